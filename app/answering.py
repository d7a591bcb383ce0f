"""The steps of an answer that single questions and batches share, in a thread of a queue: engine, form, audit."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

from fastapi import Request, Response

from app.catalog import Details
from app.errors import LimitError
from app.guard import actor_of
from app.lookup import Found, Version
from app.metrics import Metrics
from app.parts import Parts, parts_of
from app.recorder import Committed, committed
from app.schemas.predict import Asked
from app.settings import Settings
from engine.measure import Measurement
from engine.question import Distribution, Prediction


@dataclass(frozen=True, kw_only=True)
class Answered:
    """An answer, and its record in the audit, which is to be committed before it is sent.

    Attributes:
        body: as it is sent.
        record: of it.
    """

    body: bytes
    record: Committed

    async def response(self) -> Response:
        """The answer alone in a response.

        Raises:
            SQLAlchemyError: its record can't be written.
        """
        await committed(self.record)
        return Response(self.body, media_type="application/json")


def check_measurements(settings: Settings, count: int) -> None:
    """Refuse more measurements than the settings allow.

    Raises:
        LimitError: too many.
    """
    most = settings.max_measurements
    if count > most:
        raise LimitError(f"There are {count:,} measurements, and a question may have {most:,}.")


def check_size(settings: Settings, found: Found) -> None:
    """Refuse a deletion set that is larger than the settings allow.

    Raises:
        LimitError: too many units.
    """
    units, most = len(found.deletion.units), settings.max_units
    if units > most:
        raise LimitError(f"{units:,} units are deleted, and a question may delete {most:,}.")


def predicted(
    parts: Parts, found: Found, question: Asked, measurements: Sequence[Measurement]
) -> list[Prediction | Distribution]:
    """What the engine says of a deletion set, counted and timed.

    Raises:
        LimitError: the question is larger than the settings allow.
        QuestionError, ArtifactError: as `Predictor.predict`.
    """
    check_size(parts.settings, found)
    check_measurements(parts.settings, len(measurements))
    with parts.metrics.phase("engine"):
        predictions = parts.predictor.predict(
            found.version.artifact,
            units=found.deletion.units,
            measurements=measurements,
            degree=question.degree,
            downweights=question.downweights(),
            confidence=question.confidence,
            average=question.average,
            estimator=question.estimator,
        )
    _count(parts.metrics, predictions)
    return predictions


def answered(request: Request, action: str, found: Found, body: bytes, **details: str | int | None) -> Answered:
    """An answer about a deletion set, recorded."""
    units = found.deletion.units
    return answered_about(
        request,
        action,
        found.version,
        body,
        units=len(units),
        deletion_digest=parts_of(request).secret.deletion_digest(found.version.dataset.fingerprint, units),
        **details,
    )


def answered_about(
    request: Request, action: str, version: Version, body: bytes, **details: str | int | None
) -> Answered:
    """An answer about a version, recorded."""
    recorded: Details = {
        "sketch": version.sketch,
        "version": version.number,
        "answer_digest": hashlib.sha256(body).hexdigest(),
        **details,
    }
    return Answered(body=body, record=parts_of(request).recorder.record(actor_of(request), action, recorded))


def _count(metrics: Metrics, predictions: Sequence[Prediction | Distribution]) -> None:
    for one in predictions:
        outcomes = one.outcomes if isinstance(one, Distribution) else (one,)
        metrics.predicted(below_resolution=all(outcome.below_resolution for outcome in outcomes))
