"""How far a version may be trusted about a measurement."""

from __future__ import annotations

from time import perf_counter

from fastapi import APIRouter, Request, Response

from app.answering import Answered, answered_about
from app.direct import as_json
from app.errors import BusyError, ConflictError, ForbiddenError, NotFoundError
from app.guard import GuardedDirectRoute, caller_of, needs
from app.openapi import declared
from app.parts import parts_of
from app.schemas.calibration import CalibrationAnswer, CalibrationRequest
from app.schemas.predict import measurement_of
from engine.errors import ArtifactError, QuestionError, TextLengthError, UnknownCharacterError

router = APIRouter(tags=["predict"], route_class=GuardedDirectRoute)


@router.post(
    "/calibration",
    operation_id="calibrate",
    response_model=CalibrationAnswer,
    openapi_extra=needs("predict"),
    responses=declared(
        QuestionError("63 anchors can't tell an interval of confidence 0.99; at most 0.9843."),
        UnknownCharacterError("The character 'ö' at position 1 isn't in the model's vocabulary."),
        TextLengthError("The text of the measurement is empty; it needs at least one character."),
        ForbiddenError("This key may only ask for the measurements that it was made for."),
        NotFoundError("There is no sketch 'nmaes'. Known: names."),
        ConflictError("names v1 is retired and isn't served; ask the current version."),
        ArtifactError("names v1: the file parameters.safetensors doesn't have the checksum of the manifest."),
        BusyError("136 questions are before this one: try again later."),
        wrong="body.confidence: Input should be less than or equal to 0.999",
        body=True,
    ),
)
async def calibrate(question: CalibrationRequest, request: Request) -> Response:
    """Tell how right the answers about a measurement would have been where the truth is known.

    Every set that the model was really retrained without is asked about as if it hadn't been: its estimate, the choice
    of the estimator and the interval rest on the other sets alone. Of a thousand sets that takes about a second.
    """
    started = perf_counter()
    parts = parts_of(request)
    caller_of(request).check_measurements([measurement_of(question.measurement)])
    answer = await parts.queues.slow(_answer, question, request, started)
    return await answer.response()


def _answer(question: CalibrationRequest, request: Request, started: float) -> Answered:
    parts = parts_of(request)
    with parts.metrics.phase("lookup"):
        version = parts.lookup.find_version(question.sketch, question.version)
    with parts.metrics.phase("engine"):
        found = parts.predictor.reliability(
            version.artifact, measurement=measurement_of(question.measurement), confidence=question.confidence
        )
    body = as_json(
        CalibrationAnswer,
        decimals=caller_of(request).decimals,
        sketch=version.sketch,
        version=version.number,
        contains_erased=version.contains_erased,
        measurement=found.measurement,
        confidence=question.confidence,
        baseline=found.baseline,
        anchors=found.anchors,
        sizes=found.sizes,
        derivative_norms=found.derivative_norms,
        missing_share=found.missing_share,
        elapsed_ms=(perf_counter() - started) * 1000,
    )
    return answered_about(request, "calibrate", version, body, anchors=len(found.anchors))
