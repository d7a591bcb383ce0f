"""Subsets: named deletion sets of a dataset."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends, Request, Response

from app import catalog
from app.catalog import Page
from app.db import Database, transaction
from app.deps import DatasetName, Limit, Offset, Reading, SubsetName
from app.errors import ConflictError, NotFoundError, PatternError
from app.guard import Guarded, actor_of, needs
from app.openapi import LOCATED, WRONG_NAME, WRONG_PAGE, declared
from app.schemas.subsets import NewSubset, SubsetAnswer, SubsetPage
from app.searching import TOO_MANY, searched
from app.tables import Subset
from engine.errors import DeletionSetError

router = APIRouter(tags=["subsets"], route_class=Guarded, prefix="/datasets/{dataset}/subsets")

_UNKNOWN_DATASET = NotFoundError("There is no dataset 'census'. Known: census-names.")


@router.get(
    "",
    operation_id="list_subsets",
    response_model=SubsetPage,
    openapi_extra=needs("catalog:read"),
    responses=declared(_UNKNOWN_DATASET, wrong=WRONG_PAGE),
)
def list_subsets(dataset: DatasetName, session: Reading, limit: Limit = 50, offset: Offset = 0) -> Page[Subset]:
    """List the subsets of a dataset by name."""
    return catalog.list_subsets(session, catalog.get_dataset(session, dataset), limit=limit, offset=offset)


async def _sought(dataset: DatasetName, new: NewSubset, request: Request) -> tuple[NewSubset, set[int] | None]:
    """The subset, and the units that its expression found; None where it has none."""
    if new.matches is None:
        return new, None
    return new, {unit for _, unit in await searched(request, dataset, new.matches)}


@router.post(
    "",
    operation_id="create_subset",
    status_code=201,
    response_model=SubsetAnswer,
    openapi_extra=needs("catalog:write"),
    responses=LOCATED
    | declared(
        DeletionSetError("The deletion set is empty: nothing in the dataset 'census-names' is chosen."),
        PatternError("Not a regular expression: missing ), unterminated subpattern at position 0."),
        _UNKNOWN_DATASET,
        ConflictError("The dataset 'census-names' has a subset 'has-x' already."),
        TOO_MANY,
        wrong="body: give exactly one of documents, units, contains, matches",
        body=True,
    ),
)
def create_subset(
    dataset: DatasetName,
    sought: Annotated[tuple[NewSubset, set[int] | None], Depends(_sought)],
    request: Request,
    response: Response,
) -> Subset:
    """Name a deletion set: by document numbers, units, or what the texts contain or match.

    A rule about texts chooses every unit with at least one such document. The units are chosen once, now.
    """
    new, found = sought
    database: Database = request.app.state.database
    # To look through all texts takes a while, in which nothing else could be written.
    with transaction(database, writes=False) as session:
        row = catalog.get_dataset(session, dataset)
        catalog.check_subset(session, row, new.name)
        if found is None:
            chosen = catalog.resolve_units(session, row, new.rule())
        else:
            chosen = catalog.resolve_found(session, row, found)
    with transaction(database, actor=actor_of(request)) as session:
        row = catalog.get_dataset(session, dataset)
        subset = catalog.add_subset(session, dataset=row, name=new.name, rule=new.rule(), chosen=chosen)
    response.headers["Location"] = request.app.url_path_for("get_subset", dataset=dataset, subset=subset.name)
    return subset


@router.get(
    "/{subset}",
    operation_id="get_subset",
    response_model=SubsetAnswer,
    openapi_extra=needs("catalog:read"),
    responses=declared(
        NotFoundError("There is no subset 'hasx' of the dataset 'census-names'. Known: has-x, has-z."), wrong=WRONG_NAME
    ),
)
def get_subset(dataset: DatasetName, subset: SubsetName, session: Reading) -> Subset:
    """Read what a subset is. Its members: the dataset's units, or documents, with `?subset=`."""
    return catalog.get_subset(session, catalog.get_dataset(session, dataset), subset)
