"""What the commands that ask a sketch have in common: a question, put to the local catalog or to a service."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Annotated, Final

import typer
from pydantic import TypeAdapter

from app.client import Neverseen, NeverseenError, log_probability, loss, next_token
from app.predictor import Artifact, Predictor
from app.schemas.predict import DistributionAnswer, LogProbabilityBody, LossBody, MeasurementBody, PredictionAnswer
from engine.measure import Measurement
from engine.question import Question
from engine.terminal import refuse

Url = Annotated[str | None, typer.Option(metavar="URL", help="Ask the service at this address, not the local catalog.")]
Key = Annotated[
    str | None, typer.Option(metavar="KEY", envvar="NEVERSEEN_KEY", help="API key for the service at --url.")
]

Predicted = PredictionAnswer | DistributionAnswer

_PREDICTED: Final = TypeAdapter(list[Predicted])


@dataclass(frozen=True, kw_only=True)
class Asked:
    """What is asked of a sketch, whatever is deleted.

    Attributes:
        sketch: its name.
        version: its number; None is the current one.
        measurements: at least one.
        question: the rest.
    """

    sketch: str
    version: int | None
    measurements: Sequence[Measurement]
    question: Question

    def bodies(self) -> list[MeasurementBody]:
        """The measurements, as the service takes them."""
        return [body_of(one) for one in self.measurements]

    def predict(self, predictor: Predictor, artifact: Artifact, units: Sequence[int]) -> list[Predicted]:
        """What the engine says, in the form in which the service would.

        Raises:
            QuestionError, ArtifactError: as `Predictor.predict`.
        """
        predictions = predictor.predict(
            artifact,
            units=units,
            measurements=self.measurements,
            degree=self.question.degree,
            downweights=self.question.downweights,
            confidence=self.question.confidence,
            average=self.question.average,
            estimator=self.question.estimator,
        )
        return _PREDICTED.validate_python(predictions, from_attributes=True)


@contextmanager
def service_at(url: str, key: str | None) -> Iterator[Neverseen]:
    """The service at an address. What it refuses ends the command as what is refused here does."""
    try:
        with Neverseen(url, key=key) as service:
            yield service
    except NeverseenError as error:
        refuse(str(error))


def body_of(measurement: Measurement) -> MeasurementBody:
    """A measurement, as the service takes it."""
    if measurement.kind == "next_token":
        return next_token(measurement.prompt)
    return number_body_of(measurement)


def number_body_of(measurement: Measurement) -> LossBody | LogProbabilityBody:
    """A measurement that is a number, as the service takes it."""
    if measurement.kind == "loss":
        return loss(measurement.text)
    return log_probability(measurement.prompt, measurement.completion)


def completion_of(option: str) -> Measurement:
    """The log-probability that the option --completion asks for.

    Raises:
        BadParameter: it has no colon.
    """
    prompt, colon, completion = option.partition(":")
    if not colon:
        raise typer.BadParameter("--completion takes PROMPT:COMPLETION; the prompt may be empty")
    return Measurement(kind="log_probability", prompt=prompt, completion=completion)


def label_of(prediction: Predicted) -> str:
    """What was measured, for people."""
    return Measurement(**prediction.measurement.model_dump()).label


def answered_by(prediction: Predicted) -> str:
    """What gave an estimate, for people."""
    if prediction.estimator == "retrained":
        return "retrained"
    return f"{prediction.estimator}, degree {prediction.degree}"
