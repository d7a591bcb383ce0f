"""Sketches and their versions: read, and switched. They are built and registered offline."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Body, Request

from app import catalog
from app.catalog import Page
from app.deps import Limit, Offset, Reading, SketchName, VersionNumber, Writing
from app.errors import ConflictError, InvalidTextError, NotFoundError
from app.guard import Guarded, needs
from app.openapi import WRONG_NAME, WRONG_PAGE, declared
from app.parts import parts_of
from app.provenance import build_of
from app.schemas.sketches import (
    BuildAnswer,
    Promotion,
    Rollback,
    SketchAnswer,
    SketchPage,
    VersionAnswer,
    VersionPage,
)
from app.tables import Sketch, SketchVersion
from engine.errors import ArtifactError

router = APIRouter(tags=["sketches"], route_class=Guarded)

_UNKNOWN = NotFoundError("There is no sketch 'nmaes'. Known: names.")
_NO_VERSION = NotFoundError("The sketch 'names' has no version 2. Its versions are numbered from 1 to 1.")
_WRONG_VERSION = "path.version: Input should be greater than or equal to 1"


@router.get(
    "/sketches",
    operation_id="list_sketches",
    response_model=SketchPage,
    openapi_extra=needs("catalog:read"),
    responses=declared(wrong=WRONG_PAGE),
)
def list_sketches(session: Reading, limit: Limit = 50, offset: Offset = 0) -> Page[Sketch]:
    """List sketches by name."""
    return catalog.list_sketches(session, limit=limit, offset=offset)


@router.get(
    "/sketches/{sketch}",
    operation_id="get_sketch",
    response_model=SketchAnswer,
    openapi_extra=needs("catalog:read"),
    responses=declared(_UNKNOWN, wrong=WRONG_NAME),
)
def get_sketch(sketch: SketchName, session: Reading) -> Sketch:
    """Read which dataset a sketch is of, and which version is current."""
    return catalog.get_sketch(session, sketch)


@router.get(
    "/sketches/{sketch}/versions",
    operation_id="list_sketch_versions",
    response_model=VersionPage,
    openapi_extra=needs("catalog:read"),
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
    openapi_extra=needs("catalog:read"),
    responses=declared(
        _NO_VERSION,
        wrong=_WRONG_VERSION,
    ),
)
def get_sketch_version(sketch: SketchName, version: VersionNumber, session: Reading) -> SketchVersion:
    """Read how a version was built, and whether it is served."""
    return catalog.get_version(session, sketch, version)


@router.get(
    "/sketches/{sketch}/versions/{version}/build",
    operation_id="get_build",
    response_model=BuildAnswer,
    openapi_extra=needs("catalog:read"),
    responses=declared(
        _NO_VERSION,
        ConflictError("names v1 is deleted: its artifact was given up."),
        ArtifactError("names v1: There is no artifact: manifest.json is missing or can't be read."),
        wrong=_WRONG_VERSION,
    ),
)
def get_build(sketch: SketchName, version: VersionNumber, request: Request) -> BuildAnswer:
    """Read how a version's artifact was made: from what, where, how long that took, and with which libraries."""
    parts = parts_of(request)
    database, artifacts = request.app.state.database, parts.settings.artifacts
    _, build = build_of(database, artifacts, sketch, version, manifest_of=parts.predictor.manifest)
    return build


@router.put(
    "/sketches/{sketch}/current",
    operation_id="promote_version",
    response_model=SketchAnswer,
    openapi_extra=needs("catalog:write"),
    responses=declared(
        _NO_VERSION,
        ConflictError("The current version of 'names' isn't version 1 any more: somebody else moved it."),
        wrong="body.expected: Field required",
        body=True,
    ),
)
def promote_version(sketch: SketchName, promotion: Promotion, session: Writing) -> Sketch:
    """Make a version current, where the one that is current now is the expected one.

    Every process loads it before it switches; until then the version before goes on answering.
    """
    catalog.promote(session, sketch=sketch, version=promotion.version, expected=promotion.expected)
    return catalog.get_sketch(session, sketch)


@router.post(
    "/sketches/{sketch}/rollback",
    operation_id="rollback_version",
    response_model=SketchAnswer,
    openapi_extra=needs("catalog:write"),
    responses=declared(
        _UNKNOWN,
        InvalidTextError("'Names' can't name a sketch."),
        ConflictError("The sketch 'names' had no other version before; promote one by its number."),
        wrong="body.expected: Field required",
        body=True,
    ),
)
def rollback_version(
    sketch: SketchName,
    session: Writing,
    rollback: Annotated[Rollback | None, Body(examples=[{"expected": 3}])] = None,
) -> Sketch:
    """Make the version current that was so before; once more takes that back.

    With a body only where the version that is current now is the expected one: say it, and of two who roll back at
    once neither takes back what the other did.
    """
    catalog.rollback(session, sketch=sketch, expected=None if rollback is None else rollback.expected)
    return catalog.get_sketch(session, sketch)


@router.post(
    "/sketches/{sketch}/versions/{version}/retire",
    operation_id="retire_version",
    response_model=VersionAnswer,
    openapi_extra=needs("catalog:write"),
    responses=declared(
        _NO_VERSION,
        ConflictError("names v1 is the current version; make another one current before retiring it."),
        wrong=_WRONG_VERSION,
    ),
)
def retire_version(sketch: SketchName, version: VersionNumber, session: Writing) -> SketchVersion:
    """Take a version out of service for good; its artifact stays, for verifications."""
    return catalog.retire(session, sketch=sketch, version=version)


@router.delete(
    "/sketches/{sketch}/versions/{version}",
    operation_id="delete_version",
    response_model=VersionAnswer,
    openapi_extra=needs("catalog:write"),
    responses=declared(
        _NO_VERSION,
        ConflictError("names v1 isn't retired; a version in use isn't deleted."),
        wrong=_WRONG_VERSION,
    ),
)
def delete_version(sketch: SketchName, version: VersionNumber, session: Writing) -> SketchVersion:
    """Give up the artifact of a retired version. `neverseen sketches gc` removes it from the disk; the row stays."""
    return catalog.delete_version(session, sketch=sketch, version=version)
