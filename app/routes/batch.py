"""Many questions at once: the same measurements without each of many deletion sets."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Sequence
from time import perf_counter
from typing import Final, NamedTuple

from fastapi import APIRouter, Request, Response
from fastapi.responses import StreamingResponse
from starlette.types import Message, Send

from app.answering import Answered, answered, answered_about, check_measurements, predicted
from app.direct import as_json
from app.errors import (
    AppError,
    BusyError,
    ConflictError,
    ForbiddenError,
    LimitError,
    NotFoundError,
    UnauthorisedError,
    problem_type,
)
from app.guard import GuardedDirectRoute, caller_of, needs
from app.lookup import Version
from app.openapi import declared
from app.parts import parts_of
from app.problems import problem
from app.recorder import committed
from app.schemas.batch import BatchAnswer, BatchItem, BatchRequest
from app.schemas.predict import DeletedAnswer
from engine.errors import (
    ArtifactError,
    DegreeError,
    DeletionSetError,
    DownweightError,
    EngineError,
    TextLengthError,
    UnknownCharacterError,
)

logger = logging.getLogger(__name__)

_LINES: Final = "application/jsonl"
_TURN_SECONDS: Final = 0.05
"""How long a batch computes before others get their turn."""

router = APIRouter(tags=["predict"], route_class=GuardedDirectRoute)


@router.post(
    "/predict/batch",
    operation_id="predict_batch",
    openapi_extra=needs("predict"),
    response_class=StreamingResponse,
    responses={
        200: {
            "description": "JSON lines, one for each deletion set, sent as they are computed.",
            "content": {_LINES: {"schema": {"$ref": "#/components/schemas/BatchAnswer"}}},
        },
        **declared(
            UnknownCharacterError("The character 'ö' at position 1 isn't in the model's vocabulary."),
            TextLengthError("The text of the measurement is empty; it needs at least one character."),
            DegreeError("The sketch holds orders up to 3; degree 4 needs another build."),
            DownweightError("The downweight 1.5 lies outside [0, 1]."),
            LimitError("There are 64 measurements, and a question may have 16."),
            ForbiddenError("This key may only ask for the measurements that it was made for."),
            NotFoundError("There is no sketch 'nmaes'. Known: names."),
            ConflictError("names v1 is retired and isn't served; ask the current version."),
            ArtifactError("names v1: the file parameters.safetensors doesn't have the checksum of the manifest."),
            BusyError("136 questions are before this one: try again later."),
            wrong="body.deletions: List should have at least 1 item after validation, not 0",
            body=True,
        ),
    },
)
async def predict_batch(batch: BatchRequest, request: Request) -> Response:
    """Predict measurements without each of many deletion sets, answered line by line as they are computed.

    One version answers all of them. A set that can't be deleted has a `problem` in its line, and the others go on;
    what is wrong with the measurements refuses the batch. Each set counts as one request of the key. Where the key or
    the version ceases to be valid meanwhile, a last line has the `problem`, and no set from there on is answered.
    """
    parts, caller = parts_of(request), caller_of(request)
    caller.check_measurements(batch.measured())
    check_measurements(parts.settings, len(batch.measurements))
    parts.access.charge(caller, len(batch.deletions) - 1, before=1)
    version = await parts.queues.slow(_begun, batch, request)
    first = await _turn(batch, 0, version, request)
    return _Lines(_lines(batch, first, version, request), stalled_seconds=parts.settings.request_seconds)


class _Turn(NamedTuple):
    """Lines that were computed together, recorded; the last ones where there is no going on."""

    lines: Sequence[Answered]
    is_last: bool


def _begun(batch: BatchRequest, request: Request) -> Version:
    """The version that answers, where it can measure what is asked: later that can't be refused any more."""
    parts = parts_of(request)
    version = parts.lookup.find_version(batch.sketch, batch.version)
    parts.predictor.check(version.artifact, batch.measured())
    return version


async def _lines(batch: BatchRequest, turn: _Turn, version: Version, request: Request) -> AsyncIterator[bytes]:
    done = 0
    while True:
        yield b"".join(line.body for line in turn.lines)
        done += len(turn.lines)
        if turn.is_last:
            return
        turn = await _turn(batch, done, version, request)


async def _turn(batch: BatchRequest, start: int, version: Version, request: Request) -> _Turn:
    """The lines of some sets, recorded."""
    parts = parts_of(request)
    async with asyncio.timeout(parts.settings.request_seconds):
        refusal = await _refusal(request) if start else None  # the first turn's request was just admitted
        while True:
            try:
                turn = await parts.queues.slow(_computed, batch, start, version, request, refusal)
            except BusyError:
                if not start:
                    raise
                await asyncio.sleep(_TURN_SECONDS)  # what was begun goes on when there is room
            else:
                break
        for line in turn.lines:
            await committed(line.record)
    return turn


async def _refusal(request: Request) -> UnauthorisedError | None:
    """Why the caller may no longer ask; None where it may."""
    try:
        await parts_of(request).access.identify(request.headers)
    except UnauthorisedError as error:
        return error
    return None


def _computed(
    batch: BatchRequest, start: int, version: Version, request: Request, refusal: UnauthorisedError | None
) -> _Turn:
    """Lines from a place on, until the turn is over; what comes up after the first turn has a last line."""
    began = perf_counter()
    lines: list[Answered] = []
    try:
        if refusal is not None:
            raise refusal
        if start:
            version = parts_of(request).lookup.find_version(version.sketch, version.number)
        for index in range(start, len(batch.deletions)):
            lines.append(_line(batch, index, version, request))
            if perf_counter() - began > _TURN_SECONDS:
                break
    except (AppError, EngineError) as error:
        if not start:
            raise  # nothing was sent yet: all of the batch is refused
        index = start + len(lines)
        lines.append(_refused(request, index, batch.deletions[index], version, error))
        return _Turn(lines, is_last=True)
    return _Turn(lines, is_last=start + len(lines) == len(batch.deletions))


def _line(batch: BatchRequest, index: int, version: Version, request: Request) -> Answered:
    parts, item = parts_of(request), batch.deletions[index]
    try:
        with parts.metrics.phase("lookup"):
            found = parts.lookup.resolve(version, item.delete.resolvable())
        predictions = predicted(parts, found, batch, batch.measured())
    except (NotFoundError, DeletionSetError, LimitError) as error:
        return _refused(request, index, item, version, error)
    body = as_json(
        BatchAnswer,
        ascii=True,
        decimals=caller_of(request).decimals,
        index=index,
        id=item.id,
        version=version.number,
        contains_erased=version.contains_erased,
        deleted=DeletedAnswer(units=len(found.deletion.units), documents=found.deletion.documents),
        predictions=predictions,
        problem=None,
    )
    return answered(request, "predict", found, body + b"\n", measurements=len(predictions), index=index)


def _refused(
    request: Request, index: int, item: BatchItem, version: Version, error: AppError | EngineError
) -> Answered:
    kind = problem_type(type(error))
    body = as_json(
        BatchAnswer,
        ascii=True,
        index=index,
        id=item.id,
        version=version.number,
        contains_erased=version.contains_erased,
        deleted=None,
        predictions=None,
        problem=problem(kind, str(error)),
    )
    return answered_about(request, "predict", version, body + b"\n", index=index, problem=kind.slug)


class _Lines(StreamingResponse):
    """Lines that are sent as they come; a client that doesn't read them is left after a while."""

    media_type = _LINES

    def __init__(self, lines: AsyncIterator[bytes], *, stalled_seconds: float) -> None:
        super().__init__(lines)
        self._stalled_seconds = stalled_seconds

    async def stream_response(self, send: Send) -> None:
        """Send, and give up where that isn't taken."""

        async def patient(message: Message) -> None:
            async with asyncio.timeout(self._stalled_seconds):
                await send(message)

        await super().stream_response(patient)
