"""Datasets, their documents and their units."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

from fastapi import APIRouter, Depends, Request, Response
from fastapi.exceptions import RequestValidationError

from app import catalog
from app.catalog import ListedDocument, ListedUnit, Page, ResolvedDeletion
from app.deps import Contains, DatasetName, Limit, Matches, NameContains, Offset, Reading, SubsetFilter, Writing
from app.errors import ConflictError, InvalidTextError, LimitError, NotFoundError, PatternError
from app.guard import Guarded, needs
from app.openapi import LOCATED, WRONG_NAME, WRONG_PAGE, declared
from app.parts import parts_of
from app.schemas.datasets import DatasetAnswer, DatasetPage, DocumentPage, NewDataset, UnitPage
from app.schemas.subsets import ResolveAnswer, ResolveRequest, resolve_answer
from app.searching import TOO_MANY, searched
from app.tables import Dataset
from engine.documents import Documents, parse_documents
from engine.errors import DeletionSetError, DocumentsError

router = APIRouter(tags=["datasets"], route_class=Guarded)

_UNKNOWN = NotFoundError("There is no dataset 'census'. Known: census-names.")
_UNPRINTABLE = InvalidTextError("The substring holds the unprintable character '\\n'.")
_NO_EXPRESSION = PatternError("Not a regular expression: missing ), unterminated subpattern at position 0.")
_UNKNOWN_SUBSET = NotFoundError("There is no subset 'hasx' of the dataset 'census-names'. Known: has-x, has-z.")


@router.get(
    "/datasets",
    operation_id="list_datasets",
    response_model=DatasetPage,
    openapi_extra=needs("catalog:read"),
    responses=declared(wrong=WRONG_PAGE),
)
def list_datasets(session: Reading, limit: Limit = 50, offset: Offset = 0) -> Page[Dataset]:
    """List datasets by name."""
    return catalog.list_datasets(session, limit=limit, offset=offset)


@router.post(
    "/datasets",
    operation_id="create_dataset",
    status_code=201,
    response_model=DatasetAnswer,
    openapi_extra=needs("catalog:write"),
    responses=LOCATED
    | declared(
        DocumentsError("A column named 'text' is needed; the header has ['name'].", line=1),
        ConflictError("There is a dataset 'letters' already, with other documents."),
        wrong="body: give either documents or content",
        body=True,
    ),
)
def create_dataset(new: NewDataset, session: Writing, request: Request, response: Response) -> Dataset:
    """Add a dataset, its documents in the order in which a model is to be trained on them.

    A dataset never changes afterwards. Sketches of it are built offline.
    """
    dataset = catalog.add_dataset(session, name=new.name, documents=_documents(new), description=new.description)
    response.headers["Location"] = request.app.url_path_for("get_dataset", dataset=dataset.name)
    return dataset


def _documents(new: NewDataset) -> Documents:
    if new.content is not None:
        return parse_documents(new.content, format=new.format)
    return Documents.from_records((document.text, document.subject) for document in new.documents or ())


@router.get(
    "/datasets/{dataset}",
    operation_id="get_dataset",
    response_model=DatasetAnswer,
    openapi_extra=needs("catalog:read"),
    responses=declared(_UNKNOWN, wrong=WRONG_NAME),
)
def get_dataset(dataset: DatasetName, session: Reading) -> Dataset:
    """Read what a dataset is; its documents and units are lists of their own."""
    return catalog.get_dataset(session, dataset)


async def _numbers_found(
    dataset: DatasetName,
    request: Request,
    contains: Contains = None,
    matches: Matches = None,
    subset: SubsetFilter = None,
) -> list[int] | None:
    """The numbers of the documents that an expression matches; None where there is no expression."""
    if matches is None:
        return None
    if contains is not None:
        message = "Documents are chosen by contains or by matches; give one of them."
        raise RequestValidationError([{"type": "value_error", "loc": ("query", "matches"), "msg": message}])
    return [number for number, _ in await searched(request, dataset, matches, subset=subset)]


@router.get(
    "/datasets/{dataset}/documents",
    operation_id="list_documents",
    response_model=DocumentPage,
    openapi_extra=needs("catalog:read"),
    responses=declared(
        _UNPRINTABLE,
        _NO_EXPRESSION,
        _UNKNOWN,
        _UNKNOWN_SUBSET,
        TOO_MANY,
        wrong="query.matches: Documents are chosen by contains or by matches; give one of them.",
    ),
)
def list_documents(
    dataset: DatasetName,
    found: Annotated[Sequence[int] | None, Depends(_numbers_found)],  # before there is a session
    session: Reading,
    contains: Contains = None,
    subset: SubsetFilter = None,
    limit: Limit = 50,
    offset: Offset = 0,
) -> Page[ListedDocument]:
    """List documents in training order: all, those that a text is found in, those that a subset deletes."""
    row = catalog.get_dataset(session, dataset)
    chosen = None if subset is None else catalog.get_subset(session, row, subset)
    return catalog.list_documents(
        session, row, contains=contains, found=found, subset=chosen, limit=limit, offset=offset
    )


@router.get(
    "/datasets/{dataset}/units",
    operation_id="list_units",
    response_model=UnitPage,
    openapi_extra=needs("catalog:read"),
    responses=declared(_UNPRINTABLE, _UNKNOWN, _UNKNOWN_SUBSET, wrong=WRONG_PAGE),
)
def list_units(
    dataset: DatasetName,
    session: Reading,
    contains: NameContains = None,
    subset: SubsetFilter = None,
    limit: Limit = 50,
    offset: Offset = 0,
) -> Page[ListedUnit]:
    """List units by number: all, those with a substring in their name, those that a subset deletes."""
    row = catalog.get_dataset(session, dataset)
    chosen = None if subset is None else catalog.get_subset(session, row, subset)
    return catalog.list_units(session, row, contains=contains, subset=chosen, limit=limit, offset=offset)


async def _sought(
    dataset: DatasetName, deletion: ResolveRequest, request: Request
) -> tuple[ResolveRequest, set[int] | None]:
    """The deletion, and the units that its expression found; None where it has none."""
    if deletion.matches is None:
        return deletion, None
    return deletion, {unit for _, unit in await searched(request, dataset, deletion.matches)}


@router.post(
    "/datasets/{dataset}/resolve",
    operation_id="resolve_deletion",
    openapi_extra=needs("catalog:read"),
    responses=declared(
        DeletionSetError("The deletion set is empty: nothing in the dataset 'census-names' is chosen."),
        LimitError("120,000 units would be deleted, and a question may delete 100,000."),
        _UNPRINTABLE,
        _NO_EXPRESSION,
        _UNKNOWN,
        ConflictError("Units that were chosen were erased in this moment. Try again."),
        TOO_MANY,
        wrong="body: give exactly one of documents, units, subset, contains, matches",
        body=True,
    ),
)
def resolve_deletion(
    dataset: DatasetName,
    sought: Annotated[tuple[ResolveRequest, set[int] | None], Depends(_sought)],  # before there is a session
    session: Reading,
    request: Request,
) -> ResolveAnswer:
    """Tell which units a deletion would take away, and change nothing.

    Documents are deleted with the others of their unit, which must be named too. What texts contain or match chooses
    every unit with at least one such document.
    """
    deletion, found = sought
    row = catalog.get_dataset(session, dataset)
    if found is None:
        resolved = catalog.resolve_units(session, row, deletion.resolvable())
    else:
        resolved = catalog.resolve_found(session, row, found)
    _check_size(resolved, most=parts_of(request).settings.max_units)
    return resolve_answer(row.name, resolved, catalog.names_of_deletion(session, row, resolved))


def _check_size(resolved: ResolvedDeletion, *, most: int) -> None:
    if (units := len(resolved.units)) > most:
        raise LimitError(f"{units:,} units would be deleted, and a question may delete {most:,}.")
