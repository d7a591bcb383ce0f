"""What questions are answered with, and how an answer is: looked up, computed, counted, recorded.

These are the steps that all kinds of questions share; what is asked and answered is the routes' part.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from fastapi import Request

from app.access import Access
from app.errors import LimitError
from app.lookup import Found, Lookup
from app.metrics import Metrics
from app.predictor import Predictor
from app.queues import Queues
from app.recorder import Recorder
from app.secret import Secret
from app.settings import Settings
from app.verifier import Verifier
from engine.measure import Measurement
from engine.question import Distribution, Prediction


@dataclass(frozen=True, kw_only=True)
class Parts:
    """All that the application opened, for functions that answer questions."""

    settings: Settings
    access: Access
    lookup: Lookup
    predictor: Predictor
    verifier: Verifier
    queues: Queues
    recorder: Recorder
    secret: Secret
    metrics: Metrics

    def check_size(self, found: Found, measurements: Sequence[Measurement]) -> None:
        """Refuse a question that is larger than the settings allow.

        Raises:
            LimitError: too many measurements or units.
        """
        units, most_units = len(found.deletion.units), self.settings.max_units
        if units > most_units:
            raise LimitError(f"{units:,} units are deleted, and a question may delete {most_units:,}.")
        most_measurements = self.settings.max_measurements
        if len(measurements) > most_measurements:
            raise LimitError(
                f"There are {len(measurements):,} measurements, and a question may have {most_measurements:,}."
            )

    def deletion_digest(self, found: Found) -> str:
        """What the audit keeps of a deletion set."""
        return self.secret.deletion_digest(found.version.dataset.fingerprint, found.deletion.units)

    def count(self, predictions: Sequence[Prediction | Distribution]) -> None:
        """Count measurements that were predicted."""
        for one in predictions:
            outcomes = one.outcomes if isinstance(one, Distribution) else (one,)
            self.metrics.predicted(below_resolution=all(outcome.below_resolution for outcome in outcomes))


def parts_of(request: Request) -> Parts:
    """The parts of the application that a request came to."""
    parts: Parts = request.app.state.parts
    return parts
