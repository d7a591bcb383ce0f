"""The question: how would a model measure, had some data not been in its training data?"""

from __future__ import annotations

from time import perf_counter
from uuid import UUID

from fastapi import APIRouter, Request, Response

from app import catalog
from app.answering import Answered, answered, predicted
from app.direct import as_json
from app.errors import BusyError, ConflictError, ForbiddenError, LimitError, NotFoundError
from app.guard import GuardedDirectRoute, caller_of, needs
from app.lookup import Found
from app.openapi import declared
from app.parts import parts_of
from app.schemas.predict import DeletedAnswer, PredictAnswer, PredictRequest, VerificationLinkAnswer
from engine.errors import (
    ArtifactError,
    DegreeError,
    DeletionSetError,
    DownweightError,
    TextLengthError,
    UnknownCharacterError,
)

_FEW_VALUES, _FEW_UNITS = 4, 250
"""What is quick: so many values for a deletion set of so many units take a millisecond or two."""

router = APIRouter(tags=["predict"], route_class=GuardedDirectRoute)


@router.post(
    "/predict",
    operation_id="predict",
    response_model=PredictAnswer,
    openapi_extra=needs("predict"),
    responses=declared(
        UnknownCharacterError("The character 'ö' at position 1 isn't in the model's vocabulary."),
        TextLengthError("The text of the measurement is empty; it needs at least one character."),
        DegreeError("The sketch holds orders up to 3; degree 4 needs another build."),
        DownweightError("The downweight 1.5 lies outside [0, 1]."),
        DeletionSetError("There is no document 9000: those of the dataset 'census-names' are numbered from 0 to 999."),
        LimitError("200,000 units are deleted, and a question may delete 100,000."),
        ForbiddenError("This key may only ask for the measurements that it was made for."),
        NotFoundError("There is no sketch 'nmaes'. Known: names."),
        ConflictError("names v1 is retired and isn't served; ask the current version."),
        ArtifactError("names v1: the file parameters.safetensors doesn't have the checksum of the manifest."),
        BusyError("136 questions are before this one: try again later."),
        wrong="body.delete: give exactly one of documents, units, subset",
        body=True,
    ),
)
async def predict(question: PredictRequest, request: Request) -> Response:
    """Predict measurements of the model that would have been trained without some of its data.

    Deleted means that the documents' losses count zero in the same training schedule. The answer gives, for each
    measurement, the value before (`baseline`) and the estimated value after (`estimate`), with the standard error and
    an interval. With `verify` the model is really retrained afterwards, and `verification` says where to read how
    right the answer was.
    """
    started = perf_counter()
    parts, caller = parts_of(request), caller_of(request)
    caller.check_measurements(question.measured())
    if question.verify:
        caller.check_unrestricted()
    answer = None
    if not question.verify and _little_is_asked(question):
        answer = await parts.queues.quick(_known_answer, question, request, started)
    if answer is None:
        answer = await parts.queues.slow(_answer, question, request, started)
    return await answer.response()


def _known_answer(question: PredictRequest, request: Request, started: float) -> Answered | None:
    """The answer, where it is a matter of about a millisecond: all that is asked is known already."""
    parts = parts_of(request)
    with parts.metrics.phase("lookup"):
        found = parts.lookup.remembered(question.sketch, question.version, question.delete.resolvable())
    if found is None or len(found.deletion.units) > _FEW_UNITS:
        return None
    known = parts.predictor.knows(found.version.artifact, question.measured())
    return _answer(question, request, started, found) if known else None


def _little_is_asked(question: PredictRequest) -> bool:
    """By a bound on the work: values at downweights, and names to be looked up."""
    values = sum(_FEW_VALUES if one.kind == "next_token" else 1 for one in question.measurements)
    named = len(question.delete.documents or question.delete.units or ())
    return values * len(question.downweights()) <= _FEW_VALUES and named <= _FEW_UNITS


def _answer(question: PredictRequest, request: Request, started: float, found: Found | None = None) -> Answered:
    parts = parts_of(request)
    if found is None:
        with parts.metrics.phase("lookup"):
            found = parts.lookup.find(question.sketch, question.version, question.delete.resolvable())
    version, deletion = found.version, found.deletion
    if question.verify and version.contains_erased:
        raise ConflictError(catalog.erased_refusal(version.dataset))
    predictions = predicted(parts, found, question, question.measured())
    verification = None
    if question.verify:
        made = parts.verifier.submit(
            version_id=version.artifact.version_id,
            deletion=deletion,
            predictions=predictions,
            confidence=question.confidence,
        )
        url = request.app.url_path_for("get_verification", verification=made)
        verification = VerificationLinkAnswer(id=UUID(made), url=url)
    body = as_json(
        PredictAnswer,
        decimals=caller_of(request).decimals,
        sketch=version.sketch,
        version=version.number,
        contains_erased=version.contains_erased,
        deleted=DeletedAnswer(units=len(deletion.units), documents=deletion.documents),
        predictions=predictions,
        verification=verification,
        elapsed_ms=(perf_counter() - started) * 1000,
    )
    return answered(request, "predict", found, body, measurements=len(predictions))
