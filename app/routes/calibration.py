"""How far a version may be trusted about a measurement."""

from __future__ import annotations

import threading
from time import perf_counter

from fastapi import APIRouter, Request, Response

from app.answering import Answered, answered_about
from app.errors import BusyError, ConflictError, ForbiddenError, NotFoundError
from app.guard import GuardedDirectRoute, caller_of, needs
from app.in_time import too_late
from app.openapi import declared
from app.parts import parts_of
from app.schemas.calibration import CalibrationAnswer, CalibrationRequest, calibration_answer
from app.schemas.predict import measurement_of
from engine.errors import ArtifactError, QuestionError, TextLengthError, UnknownCharacterError

router = APIRouter(tags=["predict"], route_class=GuardedDirectRoute)


@router.post(
    "/calibration",
    operation_id="check_calibration",
    response_model=CalibrationAnswer,
    openapi_extra=needs("predict"),
    responses=declared(
        QuestionError("63 anchors can't tell an interval of confidence 0.99; at most 0.9843."),
        UnknownCharacterError("The character 'ö' at position 1 isn't in the model's vocabulary."),
        TextLengthError("The text of the measurement is empty; it needs at least one character."),
        ForbiddenError("This key is for predictions only: its answers are rounded, or of listed measurements."),
        NotFoundError("There is no sketch 'nmaes'. Known: names."),
        ConflictError("names v1 is retired and isn't served; ask the current version."),
        ArtifactError("names v1: the file parameters.safetensors doesn't have the checksum of the manifest."),
        BusyError("17 questions are before this one: try again later."),
        wrong="body.confidence: Input should be less than or equal to 0.999",
        body=True,
    ),
)
async def check_calibration(question: CalibrationRequest, request: Request) -> Response:
    """Tell how right the answers about a measurement would have been where the truth is known.

    Sets that the model was really retrained without are asked about as if it hadn't been: the estimate, the choice of
    the estimator and the interval rest on the other sets alone. Of a thousand sets that takes about a second, and one
    such question is answered at a time.

    Sets with something in common mostly have close relatives among the others here. Sets that are less like what the
    model was retrained without are covered less often. Keys whose answers are limited are refused.
    """
    started, over = perf_counter(), threading.Event()
    caller_of(request).check_unrestricted()
    try:
        answer = await parts_of(request).queues.calibration(_answer, question, request, started, over)
    finally:
        over.set()  # be it that nobody waits any more: then what runs ends soon
    return await answer.response()


def _answer(question: CalibrationRequest, request: Request, started: float, over: threading.Event) -> Answered:
    parts = parts_of(request)

    def go_on() -> None:
        if over.is_set():
            raise too_late(parts.settings.request_seconds)

    with parts.metrics.phase("lookup"):
        version = parts.lookup.find_version(question.sketch, question.version)
    with parts.metrics.phase("calibration"):
        found = parts.predictor.reliability(
            version.artifact,
            measurement=measurement_of(question.measurement),
            confidence=question.confidence,
            go_on=go_on,
        )
    answer = calibration_answer(
        found,
        sketch=version.sketch,
        version=version.number,
        contains_erased=version.contains_erased,
        confidence=question.confidence,
        elapsed_ms=(perf_counter() - started) * 1000,
    )
    body = answer.model_dump_json().encode()
    return answered_about(request, "calibrate", version, body, anchors=len(found.anchors))
