"""The operations about what the catalog holds, and how the service does."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Literal, TypeVar

from pydantic import BaseModel

from app.catalog import Scope
from app.client.operation import Operation, Pages, body_of, got, path_of, reader
from app.schemas.audit import AuditPage, AuditRecordAnswer
from app.schemas.datasets import (
    DatasetAnswer,
    DatasetPage,
    DocumentAnswer,
    DocumentPage,
    NewDataset,
    NewDocument,
    UnitAnswer,
    UnitPage,
)
from app.schemas.health import HealthAnswer, ReadyAnswer
from app.schemas.keys import KeyAnswer, KeyPage, NewKey, NewKeyAnswer
from app.schemas.predict import MeasurementBody
from app.schemas.sketches import (
    BuildAnswer,
    Promotion,
    Rollback,
    SketchAnswer,
    SketchPage,
    VersionAnswer,
    VersionPage,
)
from app.schemas.subsets import NewSubset, ResolveAnswer, ResolveRequest, SubsetAnswer, SubsetPage

Form = TypeVar("Form", bound=BaseModel)


def list_datasets(*, limit: int = 50, offset: int = 0) -> Operation[DatasetPage]:
    """A page of the datasets, by name."""
    return got("list_datasets", "/datasets", DatasetPage, limit=limit, offset=offset)


def iterate_datasets() -> Pages[DatasetAnswer]:
    """All datasets, by name."""
    return partial(list_datasets)


def create_dataset(
    name: str,
    *,
    documents: Sequence[NewDocument] | None = None,
    content: str | None = None,
    format: Literal["text", "csv", "jsonl"] = "text",
    description: str = "",
) -> Operation[DatasetAnswer]:
    """Add a dataset, its documents in the order in which a model is to be trained on them.

    Args:
        name: that it gets.
        documents: with a subject each, or none; either these or `content` are given.
        content: of a file.
        format: of the content.
        description: one line for people.
    """
    body = body_of(NewDataset, name=name, documents=documents, content=content, format=format, description=description)
    return Operation(
        id="create_dataset",
        method="POST",
        path="/datasets",
        body=body,
        repeat="if undone",
        read=reader(DatasetAnswer),
    )


def get_dataset(dataset: str) -> Operation[DatasetAnswer]:
    """What a dataset is."""
    return got("get_dataset", path_of("/datasets/{dataset}", dataset=dataset), DatasetAnswer)


def list_documents(
    dataset: str,
    *,
    contains: str | None = None,
    matches: str | None = None,
    subset: str | None = None,
    limit: int = 50,
    offset: int = 0,
) -> Operation[DocumentPage]:
    """A page of documents in training order: all, those that a text is found in, those that a subset deletes.

    Args:
        dataset: its name.
        contains: a substring of texts.
        matches: instead of a substring, a regular expression of Python's.
        subset: name of a subset.
        limit: the most documents of the page.
        offset: how many come before it.
    """
    path = path_of("/datasets/{dataset}/documents", dataset=dataset)
    return got(
        "list_documents",
        path,
        DocumentPage,
        contains=contains,
        matches=matches,
        subset=subset,
        limit=limit,
        offset=offset,
    )


def iterate_documents(
    dataset: str, *, contains: str | None = None, matches: str | None = None, subset: str | None = None
) -> Pages[DocumentAnswer]:
    """Documents in training order: all, those that a text is found in, those that a subset deletes.

    A regular expression, `matches`, is searched for again for each thousand of them.
    """
    return partial(list_documents, dataset, contains=contains, matches=matches, subset=subset)


def list_units(
    dataset: str, *, contains: str | None = None, subset: str | None = None, limit: int = 50, offset: int = 0
) -> Operation[UnitPage]:
    """A page of units by number: all, those with a substring in their name, those that a subset deletes."""
    path = path_of("/datasets/{dataset}/units", dataset=dataset)
    return got("list_units", path, UnitPage, contains=contains, subset=subset, limit=limit, offset=offset)


def iterate_units(dataset: str, *, contains: str | None = None, subset: str | None = None) -> Pages[UnitAnswer]:
    """Units by number: all, those with a substring in their name, those that a subset deletes."""
    return partial(list_units, dataset, contains=contains, subset=subset)


def resolve_deletion(
    dataset: str,
    *,
    documents: Sequence[int] | None = None,
    units: Sequence[str] | None = None,
    subset: str | None = None,
    contains: str | None = None,
    matches: str | None = None,
) -> Operation[ResolveAnswer]:
    """Tell which units a deletion would take away, and change nothing.

    Args:
        dataset: its name.
        documents: numbers of the documents; one of the five is given.
        units: names of the units.
        subset: name of the subset.
        contains: a substring of texts.
        matches: a regular expression of Python's.
    """
    body = body_of(ResolveRequest, documents=documents, units=units, subset=subset, contains=contains, matches=matches)
    return Operation(
        id="resolve_deletion",
        method="POST",
        path=path_of("/datasets/{dataset}/resolve", dataset=dataset),
        body=body,
        read=reader(ResolveAnswer),
    )


def list_subsets(dataset: str, *, limit: int = 50, offset: int = 0) -> Operation[SubsetPage]:
    """A page of a dataset's subsets, by name."""
    path = path_of("/datasets/{dataset}/subsets", dataset=dataset)
    return got("list_subsets", path, SubsetPage, limit=limit, offset=offset)


def iterate_subsets(dataset: str) -> Pages[SubsetAnswer]:
    """All subsets of a dataset, by name."""
    return partial(list_subsets, dataset)


def create_subset(
    dataset: str,
    name: str,
    *,
    documents: Sequence[int] | None = None,
    units: Sequence[str] | None = None,
    contains: str | None = None,
    matches: str | None = None,
) -> Operation[SubsetAnswer]:
    """Name a deletion set, by exactly one rule.

    Args:
        dataset: its name.
        name: that the subset gets.
        documents: numbers of the documents.
        units: names of the units.
        contains: a substring of texts.
        matches: a regular expression of Python's.
    """
    body = body_of(NewSubset, name=name, documents=documents, units=units, contains=contains, matches=matches)
    return Operation(
        id="create_subset",
        method="POST",
        path=path_of("/datasets/{dataset}/subsets", dataset=dataset),
        body=body,
        repeat="if undone",
        read=reader(SubsetAnswer),
    )


def get_subset(dataset: str, subset: str) -> Operation[SubsetAnswer]:
    """What a subset is; its members are the dataset's documents, or units, with `subset`."""
    path = path_of("/datasets/{dataset}/subsets/{subset}", dataset=dataset, subset=subset)
    return got("get_subset", path, SubsetAnswer)


def list_sketches(*, limit: int = 50, offset: int = 0) -> Operation[SketchPage]:
    """A page of the sketches, by name."""
    return got("list_sketches", "/sketches", SketchPage, limit=limit, offset=offset)


def iterate_sketches() -> Pages[SketchAnswer]:
    """All sketches, by name."""
    return partial(list_sketches)


def get_sketch(sketch: str) -> Operation[SketchAnswer]:
    """Which dataset a sketch is of, and which version is current."""
    return got("get_sketch", path_of("/sketches/{sketch}", sketch=sketch), SketchAnswer)


def list_sketch_versions(sketch: str, *, limit: int = 50, offset: int = 0) -> Operation[VersionPage]:
    """A page of a sketch's versions, the newest first."""
    path = path_of("/sketches/{sketch}/versions", sketch=sketch)
    return got("list_sketch_versions", path, VersionPage, limit=limit, offset=offset)


def iterate_sketch_versions(sketch: str) -> Pages[VersionAnswer]:
    """All versions of a sketch, the newest first; one that is made meanwhile makes another come twice."""
    return partial(list_sketch_versions, sketch)


def get_sketch_version(sketch: str, version: int) -> Operation[VersionAnswer]:
    """How a version was built, and whether it is served."""
    return got("get_sketch_version", _version_path(sketch, version), VersionAnswer)


def get_build(sketch: str, version: int) -> Operation[BuildAnswer]:
    """How a version's artifact was made: from what, where, how long that took, and with which libraries."""
    return got("get_build", f"{_version_path(sketch, version)}/build", BuildAnswer)


def promote_version(sketch: str, version: int, *, expected: int | None) -> Operation[SketchAnswer]:
    """Make a version current, where the one that is current now is the expected one; else a `ConflictError`.

    Args:
        sketch: its name.
        version: that questions get from now on.
        expected: the current one as you know it; None for none.
    """
    return Operation(
        id="promote_version",
        method="PUT",
        path=path_of("/sketches/{sketch}/current", sketch=sketch),
        body=body_of(Promotion, version=version, expected=expected),
        repeat="if undone",  # once it is done, again is a conflict
        read=reader(SketchAnswer),
    )


def rollback_version(sketch: str, *, expected: int | None = None) -> Operation[SketchAnswer]:
    """Make the version current that was so before; once more takes that back.

    Args:
        sketch: its name.
        expected: the current one as you know it, else a `ConflictError`; None is whichever is current.
    """
    return Operation(
        id="rollback_version",
        method="POST",
        path=path_of("/sketches/{sketch}/rollback", sketch=sketch),
        body=None if expected is None else body_of(Rollback, expected=expected),
        repeat="if undone",
        read=reader(SketchAnswer),
    )


def retire_version(sketch: str, version: int) -> Operation[VersionAnswer]:
    """Take a version out of service for good; its artifact stays."""
    return Operation(
        id="retire_version",
        method="POST",
        path=f"{_version_path(sketch, version)}/retire",
        read=reader(VersionAnswer),
    )


def delete_version(sketch: str, version: int) -> Operation[VersionAnswer]:
    """Give up the artifact of a retired version."""
    return Operation(
        id="delete_version", method="DELETE", path=_version_path(sketch, version), read=reader(VersionAnswer)
    )


def list_keys(*, limit: int = 50, offset: int = 0) -> Operation[KeyPage]:
    """A page of the keys, the newest first, without the keys themselves."""
    return got("list_keys", "/keys", KeyPage, limit=limit, offset=offset)


def iterate_keys() -> Pages[KeyAnswer]:
    """All keys, the newest first; one that is made meanwhile makes another come twice."""
    return partial(list_keys)


def create_key(
    name: str,
    *,
    scopes: Sequence[Scope],
    expires_days: int | None = None,
    requests_per_minute: int | None = None,
    decimals: int | None = None,
    measurements: Sequence[MeasurementBody] | None = None,
) -> Operation[NewKeyAnswer]:
    """Make a key for a caller. It is in this answer, and nowhere else.

    Args:
        name: what it is called.
        scopes: what it may be used for.
        expires_days: None is never.
        requests_per_minute: None is what the service's settings say.
        decimals: that answers are rounded to; None is not at all.
        measurements: the only ones that may be asked for; None is all.
    """
    body = body_of(
        NewKey,
        name=name,
        scopes=scopes,
        expires_days=expires_days,
        requests_per_minute=requests_per_minute,
        decimals=decimals,
        measurements=measurements,
    )
    return Operation(
        id="create_key", method="POST", path="/keys", body=body, repeat="if undone", read=reader(NewKeyAnswer)
    )


def revoke_key(prefix: str) -> Operation[KeyAnswer]:
    """Revoke a key; again changes nothing."""
    return Operation(
        id="revoke_key", method="DELETE", path=path_of("/keys/{prefix}", prefix=prefix), read=reader(KeyAnswer)
    )


def list_audit_records(*, limit: int = 50, offset: int = 0) -> Operation[AuditPage]:
    """A page of the audit's records, by number."""
    return got("list_audit_records", "/audit", AuditPage, limit=limit, offset=offset)


def iterate_audit_records() -> Pages[AuditRecordAnswer]:
    """All records of the audit, by number."""
    return partial(list_audit_records)


def healthz() -> Operation[HealthAnswer]:
    """Whether the service answers at all; asked once."""
    return Operation(id="healthz", method="GET", path="/healthz", repeat="never", read=reader(HealthAnswer))


def readyz() -> Operation[ReadyAnswer]:
    """What is resident, where any sketch can be served, else an `UnavailableError`; asked once."""
    return Operation(id="readyz", method="GET", path="/readyz", repeat="never", read=reader(ReadyAnswer))


def metrics() -> Operation[str]:
    """Counts and times in Prometheus' text format; asked once."""
    return Operation(id="metrics", method="GET", path="/metrics", repeat="never", read=bytes.decode)


def _version_path(sketch: str, version: int) -> str:
    return path_of("/sketches/{sketch}/versions/{version}", sketch=sketch, version=version)
