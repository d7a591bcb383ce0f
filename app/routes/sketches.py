"""Sketches and their versions, to read: they are built and registered offline."""

from __future__ import annotations

from fastapi import APIRouter

from app import catalog
from app.catalog import Page
from app.deps import Limit, Offset, Reading, SketchName, VersionNumber
from app.errors import NotFoundError
from app.openapi import WRONG_NAME, WRONG_PAGE, declared
from app.schemas.sketches import SketchAnswer, SketchPage, VersionAnswer, VersionPage
from app.tables import Sketch, SketchVersion

router = APIRouter(tags=["sketches"])

_UNKNOWN = NotFoundError("There is no sketch 'nmaes'. Known: names.")


@router.get("/sketches", operation_id="list_sketches", response_model=SketchPage, responses=declared(wrong=WRONG_PAGE))
def list_sketches(session: Reading, limit: Limit = 50, offset: Offset = 0) -> Page[Sketch]:
    """List sketches by name."""
    return catalog.list_sketches(session, limit=limit, offset=offset)


@router.get(
    "/sketches/{sketch}",
    operation_id="get_sketch",
    response_model=SketchAnswer,
    responses=declared(_UNKNOWN, wrong=WRONG_NAME),
)
def get_sketch(sketch: SketchName, session: Reading) -> Sketch:
    """Read which dataset a sketch is of, and which version is current."""
    return catalog.get_sketch(session, sketch)


@router.get(
    "/sketches/{sketch}/versions",
    operation_id="list_sketch_versions",
    response_model=VersionPage,
    responses=declared(_UNKNOWN, wrong=WRONG_PAGE),
)
def list_sketch_versions(
    sketch: SketchName, session: Reading, limit: Limit = 50, offset: Offset = 0
) -> Page[SketchVersion]:
    """List the versions of a sketch, the newest first."""
    return catalog.list_versions(session, catalog.get_sketch(session, sketch), limit=limit, offset=offset)


@router.get(
    "/sketches/{sketch}/versions/{version}",
    operation_id="get_sketch_version",
    response_model=VersionAnswer,
    responses=declared(
        NotFoundError("The sketch 'names' has no version 2. Its versions are numbered from 1 to 1."),
        wrong="path.version: Input should be greater than or equal to 1",
    ),
)
def get_sketch_version(sketch: SketchName, version: VersionNumber, session: Reading) -> SketchVersion:
    """Read how a version was built, and whether it is served."""
    return catalog.get_version(session, sketch, version)
