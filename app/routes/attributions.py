"""Which units matter for a measurement."""

from __future__ import annotations

from dataclasses import asdict
from time import perf_counter

from fastapi import APIRouter

from app import catalog
from app.deps import Reading, ThePredictor, TheSettings
from app.errors import ConflictError, NotFoundError
from app.openapi import declared
from app.schemas.attributions import AttributionsAnswer, AttributionsRequest
from app.schemas.predict import measurement_of
from app.serving import artifact_of
from engine.errors import ArtifactError, QuestionError, TextLengthError, UnknownCharacterError

router = APIRouter(tags=["predict"])


@router.post(
    "/attributions",
    operation_id="attribute",
    responses=declared(
        QuestionError("top must lie between 1 and 1,000, the number of units, not be 1001."),
        UnknownCharacterError("The character 'ö' at position 1 isn't in the model's vocabulary."),
        TextLengthError("The text of the measurement is empty; it needs at least one character."),
        NotFoundError("There is no sketch 'nmaes'. Known: names."),
        ConflictError("names v1 is retired and isn't served; ask the current version."),
        ArtifactError("names v1: the file parameters.safetensors doesn't have the checksum of the manifest."),
        wrong="body.top: Input should be greater than or equal to 1",
        body=True,
    ),
)
def attribute(
    question: AttributionsRequest, session: Reading, predictor: ThePredictor, settings: TheSettings
) -> AttributionsAnswer:
    """Find the units whose deletion changes a measurement most, in both directions.

    Each unit is deleted by itself; all of them are compared. What several do together is a question to `/predict`.
    """
    started = perf_counter()
    version = catalog.get_version(session, question.sketch, question.version)
    found = predictor.attribute(
        artifact_of(version, settings.artifacts_dir),
        measurement=measurement_of(question.measurement),
        top=question.top,
        confidence=question.confidence,
    )
    named = catalog.describe_units(
        session, version.sketch.dataset, [attribution.unit for attribution in (*found.raising, *found.lowering)]
    )
    directions = {
        name: [asdict(attribution) | asdict(named[attribution.unit]) for attribution in attributions]
        for name, attributions in (("raising", found.raising), ("lowering", found.lowering))
    }
    return AttributionsAnswer.model_validate(
        {
            "sketch": version.sketch.name,
            "version": version.number,
            "measurement": found.measurement,
            "baseline": found.baseline,
            "estimator": found.estimator,
            "elapsed_ms": (perf_counter() - started) * 1000,
            **directions,
        }
    )
