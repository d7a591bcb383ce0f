"""Sketches and their versions: rows about artifacts that are complete. One version of a sketch is current."""

from __future__ import annotations

import json
from collections.abc import Collection
from pathlib import PurePosixPath
from typing import Any, Final, cast

from sqlalchemy import CursorResult, Select, bindparam, func, select, update
from sqlalchemy.orm import Session, contains_eager, joinedload

from app.catalog.audit import record
from app.catalog.pages import Page, existing, page, unique
from app.catalog.successors import take_over_reports
from app.errors import ConflictError, InvalidTextError, NotFoundError
from app.names import check_name, check_printable, is_name, shown
from app.tables import Dataset, Sketch, SketchVersion, Verification

_STANDING_OF_ANY: Final = select(SketchVersion.id, SketchVersion.state, Dataset.erased_units).join(
    Dataset, SketchVersion.dataset_id == Dataset.id
)
_STANDING: Final = _STANDING_OF_ANY.join(Sketch, SketchVersion.sketch_id == Sketch.id).where(
    Sketch.name == bindparam("sketch")
)
CURRENT_STANDING: Final = _STANDING.where(SketchVersion.id == Sketch.current_version_id)
"""What may change of the current version of the sketch `sketch`: which it is, by its id, its state, and how many of the
units that it was trained on have been erased."""

STANDING_OF_ID: Final = _STANDING_OF_ANY.where(SketchVersion.id == bindparam("version_id"))
"""The same of the version with the id `version_id`."""

NUMBERED_STANDING: Final = _STANDING.where(SketchVersion.number == bindparam("number"))
"""The same of the version `number`."""


def register_version(
    session: Session,
    *,
    sketch: str,
    dataset: Dataset,
    location: str,
    checksum: str,
    configuration: dict[str, Any],
    size_bytes: int,
) -> SketchVersion:
    """Write a finished artifact as the next version of a sketch, and make it current.

    The sketch is made where it is new. The same artifact again is the version that it already is, made current. A
    version of a successor of the sketch's dataset makes that the dataset of the sketch, and of its reports, too.

    Args:
        session: a writing transaction.
        sketch: its name.
        dataset: what the version was built from.
        location: of the artifact, relative to the artifacts directory.
        checksum: of the artifact.
        configuration: that it was built with; JSON with finite numbers.
        size_bytes: of the artifact.

    Raises:
        ConflictError: the sketch is another dataset's, or the location holds another artifact.
        InvalidTextError: a name, location or configuration that can't be stored.
    """
    check_name(sketch, "sketch")
    _check_location(location)
    _check_finite(configuration)
    _lock(session, sketch)
    row = session.scalar(select(Sketch).where(Sketch.name == sketch))
    if row is None:
        row = Sketch(name=sketch, dataset=dataset)
        with unique(session, f"There is a sketch {sketch!r} already: it was added a moment ago. Try again."):
            session.add(row)
    if row.dataset_id != dataset.id:
        if row.dataset_id not in predecessors(session, dataset):
            raise ConflictError(_other_dataset(sketch, dataset.name))
        row.dataset = dataset
        take_over_reports(session, dataset, row.id)
    same = session.scalar(
        select(SketchVersion).where(SketchVersion.sketch_id == row.id, SketchVersion.location == location)
    )
    if same is not None and same.state == "deleted" and same.checksum != checksum:
        same.location = f"{location}.deleted-{same.number}"  # where nothing is: its place is another artifact's now
        session.flush()
        same = None
    if same is not None:
        if same.checksum == checksum:
            if same.state == "deleted":  # its artifact is there again
                same.state = "ready"
                session.flush()
                record(session, "sketch.register", sketch=sketch, version=same.number, checksum=checksum)
            if row.current_version_id != same.id:
                promote(session, sketch=sketch, version=same.number, expected=_current_number(session, row))
            return get_version(session, sketch, same.number)
        raise ConflictError(
            f"The location of {same.label} now holds another artifact. Artifacts never change; build into a new place."
        )
    last = session.scalar(select(func.max(SketchVersion.number)).where(SketchVersion.sketch_id == row.id))
    version = SketchVersion(
        sketch=row,
        dataset_id=dataset.id,
        number=(last or 0) + 1,
        location=location,
        checksum=checksum,
        configuration=configuration,
        size_bytes=size_bytes,
    )
    with unique(session, f"Another version of {sketch!r} was registered in this moment. Try again."):
        session.add(version)
    record(session, "sketch.register", sketch=sketch, version=version.number, checksum=checksum)
    promote(session, sketch=sketch, version=version.number, expected=_current_number(session, row))
    return get_version(session, sketch, version.number)


def check_sketch(session: Session, sketch: str, dataset: str) -> None:
    """Make sure, before a long build, that its result can be registered.

    Raises:
        ConflictError: the sketch is another dataset's.
        InvalidTextError: the name can't be stored.
    """
    check_name(sketch, "sketch")
    row = session.scalar(_sketches().where(Sketch.name == sketch))
    if row is None or row.dataset.name == dataset:
        return
    wanted = session.scalar(select(Dataset).where(Dataset.name == dataset))
    if wanted is None or row.dataset_id not in predecessors(session, wanted):
        raise ConflictError(_other_dataset(sketch, dataset))


def predecessors(session: Session, dataset: Dataset) -> list[int]:
    """The ids of the datasets that one is the successor of, the nearest first."""
    found: list[int] = []
    before = dataset.successor_of_id
    while before is not None:
        found.append(before)
        before = session.scalar(select(Dataset.successor_of_id).where(Dataset.id == before))
    return found


def promote(session: Session, *, sketch: str, version: int, expected: int | None) -> None:
    """Make a version current, if the current one is still the expected one.

    Where it is so already, nothing changes: a rollback still leads to the version before it.

    Args:
        session: a writing transaction.
        sketch: its name.
        version: the number of the version to serve from now on.
        expected: the number of the version that is current now, None where there is none.

    Raises:
        NotFoundError: an unknown sketch or version.
        ConflictError: another version is current, or the version is retired.
    """
    _lock(session, sketch)
    wanted = get_version(session, sketch, version)
    if wanted.state != "ready":
        raise ConflictError(f"{wanted.label} is {wanted.state} and can't be made current.")
    known = None if expected is None else get_version(session, sketch, expected).id
    if wanted.id == known and wanted.is_current:
        return
    swapped = session.execute(
        update(Sketch)
        .where(Sketch.id == wanted.sketch_id, Sketch.current_version_id.is_not_distinct_from(known))
        .values(current_version_id=wanted.id, previous_version_id=known)
        .execution_options(synchronize_session=False)
    )
    if cast("CursorResult[Any]", swapped).rowcount != 1:
        was = "none" if expected is None else f"version {expected}"
        raise ConflictError(
            f"The current version of {sketch!r} isn't {was} any more: somebody else moved it. Look again, then decide."
        )
    session.refresh(wanted.sketch)
    record(session, "sketch.promote", sketch=sketch, version=version, previous=expected)


def rollback(session: Session, *, sketch: str, expected: int | None) -> int:
    """Make the version current that was so before; again takes that back.

    Args:
        session: a writing transaction.
        sketch: its name.
        expected: the number of the version that is current now; None is whichever is.

    Returns:
        Its number.

    Raises:
        NotFoundError: an unknown sketch, or no version of the expected number.
        ConflictError: there was none before, or it is retired, or another version is current.
    """
    _lock(session, sketch)
    row = get_sketch(session, sketch)
    if row.previous_version_id is None or row.previous_version_id == row.current_version_id:
        raise ConflictError(f"The sketch {sketch!r} had no other version before; promote one by its number.")
    current = row.current_number if expected is None else expected
    previous = get_version_of_id(session, row.previous_version_id).number
    promote(session, sketch=sketch, version=previous, expected=current)
    return previous


def retire(session: Session, *, sketch: str, version: int) -> SketchVersion:
    """Take a version out of service; its number stays taken. Again changes nothing.

    Raises:
        NotFoundError: an unknown sketch or version.
        ConflictError: it is the current version, or deleted.
    """
    _lock(session, sketch)
    row = get_version(session, sketch, version)
    if row.is_current:
        raise ConflictError(f"{row.label} is the current version; make another one current before retiring it.")
    if row.state == "deleted":
        raise ConflictError(f"{row.label} is deleted already.")
    if row.state == "ready":
        row.state = "retired"
        session.flush()
        record(session, "sketch.retire", sketch=sketch, version=version)
    return row


def delete_version(session: Session, *, sketch: str, version: int) -> SketchVersion:
    """Give up a retired version's artifact, so that it may be removed; the row stays. Again changes nothing.

    Raises:
        NotFoundError: an unknown sketch or version.
        ConflictError: it isn't retired, or answers of it are still to be verified.
    """
    _lock(session, sketch)
    row = get_version(session, sketch, version)
    if row.state == "ready":
        raise ConflictError(f"{row.label} isn't retired; a version in use isn't deleted.")
    unfinished = select(Verification.id).where(
        Verification.version_id == row.id, Verification.state.in_(("pending", "running"))
    )
    if session.scalar(unfinished.limit(1)) is not None:
        raise ConflictError(f"Answers of {row.label} are still being verified. Try again later.")
    if row.state == "retired":
        row.state = "deleted"
        session.flush()
        record(session, "sketch.delete", sketch=sketch, version=version)
    return row


def named_locations(session: Session) -> set[str]:
    """Where the artifacts lie that rows name, relative to the artifacts directory."""
    return set(session.scalars(select(SketchVersion.location).where(SketchVersion.state != "deleted")))


def erased_of_versions(session: Session) -> dict[int, int]:
    """How many units of their datasets were erased, by the id of versions of which any was."""
    query = select(SketchVersion.id, Dataset.erased_units).join(Dataset, SketchVersion.dataset_id == Dataset.id)
    return dict(session.execute(query.where(Dataset.erased_units > 0)).all())


def erased_of_datasets(session: Session) -> dict[int, int]:
    """How many units were erased, by the id of datasets of which any was."""
    query = select(Dataset.id, Dataset.erased_units).where(Dataset.erased_units > 0)
    return dict(session.execute(query).all())


def get_sketch(session: Session, name: str) -> Sketch:
    """The sketch of a name, with its dataset and current version.

    Raises:
        NotFoundError: there is none; the message names those that there are.
    """
    sketch = session.scalar(_sketches().where(Sketch.name == name)) if is_name(name) else None
    if sketch is None:
        raise NotFoundError(f"There is no sketch {shown(name)}. {existing(session, Sketch.name)}")
    return sketch


def get_version(session: Session, sketch: str, number: int | None = None) -> SketchVersion:
    """A version of a sketch, with the sketch and its dataset.

    Args:
        session: any transaction.
        sketch: its name.
        number: of the version; None is the current one.

    Raises:
        NotFoundError: an unknown sketch or version; the message names those that there are.
    """
    row = get_sketch(session, sketch)
    query = _versions().where(SketchVersion.sketch_id == row.id)
    if number is None:
        query = query.where(SketchVersion.id == Sketch.current_version_id)
    else:
        query = query.where(SketchVersion.number == number)
    version = session.scalar(query)
    if version is not None:
        return version
    if number is None:
        raise NotFoundError(f"The sketch {sketch!r} has no current version.")
    last = session.scalar(select(func.max(SketchVersion.number)).where(SketchVersion.sketch_id == row.id))
    known = "It has none yet." if last is None else f"Its versions are numbered from 1 to {last}."
    raise NotFoundError(f"The sketch {sketch!r} has no version {shown(number)}. {known}")


def get_version_of_id(session: Session, version_id: int) -> SketchVersion:
    """The version with an id that there is, with the sketch and its dataset."""
    return session.scalars(_versions().where(SketchVersion.id == version_id)).one()


def current_versions(session: Session) -> list[SketchVersion]:
    """The current version of every sketch that has one, by the sketch's name."""
    query = _versions().where(SketchVersion.id == Sketch.current_version_id).order_by(Sketch.name)
    return list(session.scalars(query))


def kept_versions(session: Session) -> list[SketchVersion]:
    """All versions that aren't deleted, by the sketch's name and their numbers."""
    query = _versions().where(SketchVersion.state != "deleted").order_by(Sketch.name, SketchVersion.number)
    return list(session.scalars(query))


def labels_trained_on(session: Session, dataset_ids: Collection[int]) -> list[str]:
    """The versions that there are of some datasets, as people call them."""
    query = (
        _versions()
        .where(SketchVersion.dataset_id.in_(dataset_ids), SketchVersion.state != "deleted")
        .order_by(Sketch.name, SketchVersion.number)
    )
    return [version.label for version in session.scalars(query)]


def list_sketches(session: Session, *, limit: int, offset: int) -> Page[Sketch]:
    """Sketches by name, with their datasets and current versions."""
    return page(session, _sketches().order_by(Sketch.name), limit=limit, offset=offset)


def list_versions(session: Session, sketch: Sketch, *, limit: int, offset: int) -> Page[SketchVersion]:
    """Versions of a sketch, the newest first."""
    query = _versions().where(SketchVersion.sketch_id == sketch.id).order_by(SketchVersion.number.desc())
    return page(session, query, limit=limit, offset=offset)


def _current_number(session: Session, sketch: Sketch) -> int | None:
    return session.scalar(select(SketchVersion.number).where(SketchVersion.id == sketch.current_version_id))


def _other_dataset(sketch: str, dataset: str) -> str:
    return f"The sketch {sketch!r} is one of another dataset than {dataset!r}; choose another name for it."


def _lock(session: Session, sketch: str) -> None:
    # What is read afterwards stays true until the end of the transaction (SQLite's writers take turns anyhow).
    session.execute(select(Sketch.id).where(Sketch.name == sketch).with_for_update())


def _sketches() -> Select[Sketch]:
    current = joinedload(Sketch.current_version).joinedload(SketchVersion.dataset)
    query = select(Sketch).options(joinedload(Sketch.dataset), current)
    return query.execution_options(populate_existing=True)


def _versions() -> Select[SketchVersion]:
    return (
        select(SketchVersion)
        .join(Sketch, SketchVersion.sketch_id == Sketch.id)
        .join(Dataset, Sketch.dataset_id == Dataset.id)
        .options(contains_eager(SketchVersion.sketch).contains_eager(Sketch.dataset), joinedload(SketchVersion.dataset))
        .execution_options(populate_existing=True)
    )


def _check_location(location: str) -> None:
    check_printable(location, "location")
    path = PurePosixPath(location)
    if path.is_absolute() or ".." in path.parts or not path.parts or "\\" in location:
        raise InvalidTextError("The location must be a path within the artifacts directory, with forward slashes.")


def _check_finite(configuration: dict[str, Any]) -> None:
    try:
        json.dumps(configuration, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise InvalidTextError(f"The configuration isn't JSON with finite numbers: {error}.") from error
