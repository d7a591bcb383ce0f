"""Datasets, their documents and their units."""

from __future__ import annotations

from fastapi import APIRouter, Request, Response

from app import catalog
from app.catalog import Page
from app.deps import Contains, DatasetName, Limit, Offset, Reading, SubsetFilter, Writing
from app.errors import ConflictError, InvalidTextError, NotFoundError
from app.guard import Guarded, needs
from app.openapi import LOCATED, WRONG_NAME, WRONG_PAGE, declared
from app.schemas.datasets import DatasetAnswer, DatasetPage, DocumentPage, NewDataset, UnitPage
from app.tables import Dataset, Document, Unit
from engine.documents import Documents, parse_documents
from engine.errors import DocumentsError

router = APIRouter(tags=["datasets"], route_class=Guarded)

_UNKNOWN = NotFoundError("There is no dataset 'census'. Known: census-names.")
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


@router.get(
    "/datasets/{dataset}/documents",
    operation_id="list_documents",
    response_model=DocumentPage,
    openapi_extra=needs("catalog:read"),
    responses=declared(
        InvalidTextError("The substring holds the unprintable character '\\n'."),
        _UNKNOWN,
        _UNKNOWN_SUBSET,
        wrong=WRONG_PAGE,
    ),
)
def list_documents(
    dataset: DatasetName,
    session: Reading,
    contains: Contains = None,
    subset: SubsetFilter = None,
    limit: Limit = 50,
    offset: Offset = 0,
) -> Page[Document]:
    """List documents in training order: all, those with a substring, those that a subset deletes."""
    row = catalog.get_dataset(session, dataset)
    chosen = None if subset is None else catalog.get_subset(session, row, subset)
    return catalog.list_documents(session, row, contains=contains, subset=chosen, limit=limit, offset=offset)


@router.get(
    "/datasets/{dataset}/units",
    operation_id="list_units",
    response_model=UnitPage,
    openapi_extra=needs("catalog:read"),
    responses=declared(_UNKNOWN, _UNKNOWN_SUBSET, wrong=WRONG_PAGE),
)
def list_units(
    dataset: DatasetName, session: Reading, subset: SubsetFilter = None, limit: Limit = 50, offset: Offset = 0
) -> Page[Unit]:
    """List units by number: all, or those that a subset deletes."""
    row = catalog.get_dataset(session, dataset)
    chosen = None if subset is None else catalog.get_subset(session, row, subset)
    return catalog.list_units(session, row, subset=chosen, limit=limit, offset=offset)
