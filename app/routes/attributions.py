"""Which units matter for a measurement."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import asdict
from time import perf_counter

from fastapi import APIRouter, Request, Response

from app import catalog
from app.answering import Answered, answered_about
from app.db import transaction
from app.direct import as_json
from app.errors import BusyError, ConflictError, ForbiddenError, NotFoundError
from app.guard import GuardedDirectRoute, caller_of, needs
from app.openapi import declared
from app.parts import parts_of
from app.schemas.attributions import AttributionsAnswer, AttributionsRequest
from app.schemas.predict import measurement_of
from engine.errors import ArtifactError, QuestionError, TextLengthError, UnknownCharacterError

router = APIRouter(tags=["predict"], route_class=GuardedDirectRoute)


@router.post(
    "/attributions",
    operation_id="attribute",
    response_model=AttributionsAnswer,
    openapi_extra=needs("predict"),
    responses=declared(
        QuestionError("top must lie between 1 and 1,000, the number of units, not be 1001."),
        UnknownCharacterError("The character 'ö' at position 1 isn't in the model's vocabulary."),
        TextLengthError("The text of the measurement is empty; it needs at least one character."),
        ForbiddenError("This key may only ask for the measurements that it was made for."),
        NotFoundError("There is no sketch 'nmaes'. Known: names."),
        ConflictError("names v1 is retired and isn't served; ask the current version."),
        ArtifactError("names v1: the file parameters.safetensors doesn't have the checksum of the manifest."),
        BusyError("136 questions are before this one: try again later."),
        wrong="body.top: Input should be greater than or equal to 1",
        body=True,
    ),
)
async def attribute(question: AttributionsRequest, request: Request) -> Response:
    """Find the units whose deletion changes a measurement most, in both directions.

    Each unit is deleted by itself; all of them are compared. What several do together is a question to `/predict`.
    The units' texts are shown to keys with the scope `catalog:read`.
    """
    started = perf_counter()
    parts = parts_of(request)
    caller_of(request).check_measurements([measurement_of(question.measurement)])
    answer = await parts.queues.slow(_answer, question, request, started)
    return await answer.response()


def _answer(question: AttributionsRequest, request: Request, started: float) -> Answered:
    parts, caller = parts_of(request), caller_of(request)
    with parts.metrics.phase("lookup"):
        version = parts.lookup.find_version(question.sketch, question.version)
    erased: Collection[int] = ()
    if version.contains_erased:
        with transaction(request.app.state.database, writes=False) as session:
            erased = catalog.list_erased_units(session, version.dataset)
    with parts.metrics.phase("engine"):
        found = parts.predictor.attribute(
            version.artifact,
            measurement=measurement_of(question.measurement),
            top=question.top,
            confidence=question.confidence,
            left_out=erased,
        )
    units = [attribution.unit for attribution in (*found.raising, *found.lowering)]
    with transaction(request.app.state.database, writes=False) as session:
        named = catalog.describe_units(session, version.dataset, units)
    hidden = {} if caller.may("catalog:read") else {"text": None}
    directions = {
        name: [
            asdict(attribution) | asdict(named[attribution.unit]) | hidden
            for attribution in attributions
            if attribution.unit in named  # else it was erased in this moment
        ]
        for name, attributions in (("raising", found.raising), ("lowering", found.lowering))
    }
    body = as_json(
        AttributionsAnswer,
        decimals=caller.decimals,
        sketch=version.sketch,
        version=version.number,
        contains_erased=version.contains_erased,
        measurement=found.measurement,
        baseline=found.baseline,
        estimator=found.estimator,
        missing_share=found.missing_share,
        elapsed_ms=(perf_counter() - started) * 1000,
        raising=directions["raising"],
        lowering=directions["lowering"],
    )
    return answered_about(request, "attribute", version, body, top=question.top)
