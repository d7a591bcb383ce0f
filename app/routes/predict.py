"""The question: how would the model behave, had this not been in its training data?"""

from __future__ import annotations

from time import perf_counter
from uuid import UUID

from fastapi import APIRouter, Request, Response

from app.deps import parts_of
from app.direct import DirectRoute, as_json
from app.errors import BusyError, ConflictError, NotFoundError
from app.lookup import Found
from app.openapi import declared
from app.queues import Queues
from app.schemas.predict import (
    DeletedAnswer,
    PredictAnswer,
    PredictRequest,
    VerificationLinkAnswer,
    measurement_of,
)
from engine.errors import (
    ArtifactError,
    DegreeError,
    DeletionSetError,
    DownweightError,
    TextLengthError,
    UnknownCharacterError,
)
from engine.measure import Measurement

_FEW_VALUES, _FEW_UNITS = 4, 250
"""What is quick: so many values for a deletion set of so many units take a millisecond or two."""

router = APIRouter(tags=["predict"], route_class=DirectRoute)


@router.post(
    "/predict",
    operation_id="predict",
    response_model=PredictAnswer,
    responses=declared(
        UnknownCharacterError("The character 'ö' at position 1 isn't in the model's vocabulary."),
        TextLengthError("The text of the measurement is empty; it needs at least one character."),
        DegreeError("The sketch holds orders up to 3; degree 4 needs another build."),
        DownweightError("The downweight 1.5 lies outside [0, 1]."),
        DeletionSetError("There is no document 9000: those of the dataset 'census-names' are numbered from 0 to 999."),
        NotFoundError("There is no sketch 'nmaes'. Known: names."),
        ConflictError("names v1 is retired and isn't served; ask the current version."),
        ArtifactError("names v1: the file parameters.safetensors doesn't have the checksum of the manifest."),
        BusyError("100 verifications wait already: try again later, or ask without verify."),
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
    queues: Queues = request.app.state.queues
    answer = await queues.quick(_known_answer, question, request, started)
    return await queues.slow(_answer, question, request, started) if answer is None else answer


def _known_answer(question: PredictRequest, request: Request, started: float) -> Response | None:
    """The answer, where it is a matter of about a millisecond: little was asked, and all of it is known already."""
    if question.verify or not _little_is_asked(question):
        return None
    lookup, predictor, _ = parts_of(request)
    found = lookup.remembered(question.sketch, question.version, question.delete.resolvable())
    if found is None or len(found.deletion.units) > _FEW_UNITS:
        return None
    known = predictor.knows(found.version.artifact, _measurements(question))
    return _answer(question, request, started, found) if known else None


def _little_is_asked(question: PredictRequest) -> bool:
    """By a bound on the work: values at downweights, and names to be looked up."""
    values = sum(_FEW_VALUES if one.kind == "next_token" else 1 for one in question.measurements)
    named = len(question.delete.documents or question.delete.units or ())
    return values * len(question.downweights()) <= _FEW_VALUES and named <= _FEW_UNITS


def _answer(question: PredictRequest, request: Request, started: float, found: Found | None = None) -> Response:
    lookup, predictor, verifier = parts_of(request)
    found = found or lookup.find(question.sketch, question.version, question.delete.resolvable())
    version, deletion = found.version, found.deletion
    predictions = predictor.predict(
        version.artifact,
        units=deletion.units,
        measurements=_measurements(question),
        degree=question.degree,
        downweights=question.downweights(),
        confidence=question.confidence,
        average=question.average,
        estimator=question.estimator,
    )
    verification = None
    if question.verify:
        made = verifier.submit(
            version_id=version.artifact.version_id,
            deletion=deletion,
            predictions=predictions,
            confidence=question.confidence,
        )
        url = request.app.url_path_for("get_verification", verification=made)
        verification = VerificationLinkAnswer(id=UUID(made), url=url)
    return as_json(
        PredictAnswer,
        sketch=version.sketch,
        version=version.number,
        deleted=DeletedAnswer(units=len(deletion.units), documents=deletion.documents),
        predictions=predictions,
        verification=verification,
        elapsed_ms=(perf_counter() - started) * 1000,
    )


def _measurements(question: PredictRequest) -> list[Measurement]:
    return [measurement_of(one) for one in question.measurements]
