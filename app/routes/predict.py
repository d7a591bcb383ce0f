"""The question: how would the model behave, had this not been in its training data?"""

from __future__ import annotations

from time import perf_counter
from uuid import UUID

from fastapi import APIRouter, Request

from app import catalog
from app.deps import Reading, ThePredictor, TheSettings, TheVerifier
from app.errors import BusyError, ConflictError, NotFoundError
from app.openapi import declared
from app.schemas.predict import (
    DeletedAnswer,
    PredictAnswer,
    PredictRequest,
    VerificationLinkAnswer,
    measurement_of,
)
from app.serving import artifact_of
from engine.errors import (
    ArtifactError,
    DegreeError,
    DeletionSetError,
    DownweightError,
    TextLengthError,
    UnknownCharacterError,
)

router = APIRouter(tags=["predict"])


@router.post(
    "/predict",
    operation_id="predict",
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
def predict(
    question: PredictRequest,
    session: Reading,
    predictor: ThePredictor,
    verifier: TheVerifier,
    settings: TheSettings,
    request: Request,
) -> PredictAnswer:
    """Predict measurements of the model that would have been trained without some of its data.

    Deleted means that the documents' losses count zero in the same training schedule. The answer gives, for each
    measurement, the value before (`baseline`) and the estimated value after (`estimate`), with the standard error and
    an interval. With `verify` the model is really retrained afterwards, and `verification` says where to read how
    right the answer was.
    """
    started = perf_counter()
    version = catalog.get_version(session, question.sketch, question.version)
    deletion = catalog.resolve_units(session, version.sketch.dataset, question.delete.resolvable())
    predictions = predictor.predict(
        artifact_of(version, settings.artifacts_dir),
        units=deletion.units,
        measurements=[measurement_of(one) for one in question.measurements],
        degree=question.degree,
        downweights=question.downweights(),
        confidence=question.confidence,
        average=question.average,
        estimator=question.estimator,
    )
    verification = None
    if question.verify:
        made = verifier.submit(
            version_id=version.id, deletion=deletion, predictions=predictions, confidence=question.confidence
        )
        url = request.app.url_path_for("get_verification", verification=made)
        verification = VerificationLinkAnswer(id=UUID(made), url=url)
    return PredictAnswer.model_validate(
        {
            "sketch": version.sketch.name,
            "version": version.number,
            "deleted": DeletedAnswer(units=len(deletion.units), documents=deletion.documents),
            "predictions": predictions,
            "verification": verification,
            "elapsed_ms": (perf_counter() - started) * 1000,
        }
    )
