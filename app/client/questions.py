"""The operations about what a model would be without some of its data."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import partial
from typing import Literal, TypeAlias
from uuid import UUID

from app.client.operation import Lines, Operation, Pages, body_of, checked, path_of, query_of, reader
from app.schemas.attributions import AttributionsAnswer, AttributionsRequest
from app.schemas.batch import BatchAnswer, BatchItem, BatchRequest
from app.schemas.calibration import CalibrationAnswer, CalibrationRequest
from app.schemas.predict import (
    Deletion,
    LogProbabilityBody,
    LossBody,
    MeasurementBody,
    NextTokenBody,
    PredictAnswer,
    PredictRequest,
)
from app.schemas.samples import SamplesAnswer, SamplesRequest
from app.schemas.verifications import VerificationAnswer, VerificationPage
from engine.estimators import EstimatorName
from engine.sphere import Average

Estimator: TypeAlias = Literal["auto"] | EstimatorName


def loss(text: str) -> LossBody:
    """The mean loss of a text's tokens and its end, in nats per token."""
    return checked(LossBody, kind="loss", text=text)


def log_probability(prompt: str, completion: str) -> LogProbabilityBody:
    """The log-probability of a completion after a prompt, in nats; the prompt may be empty."""
    return checked(LogProbabilityBody, kind="log_probability", prompt=prompt, completion=completion)


def next_token(prompt: str = "") -> NextTokenBody:
    """The distribution of the next character after a prompt, which is the start of a text where it is empty."""
    return checked(NextTokenBody, kind="next_token", prompt=prompt)


def predict(
    sketch: str,
    *,
    measurements: Sequence[MeasurementBody],
    documents: Sequence[int] | None = None,
    units: Sequence[str] | None = None,
    subset: str | None = None,
    version: int | None = None,
    estimator: Estimator = "auto",
    degree: int | Literal["auto"] = "auto",
    downweight: float | Sequence[float] = 1.0,
    confidence: float = 0.95,
    average: Average = "mean",
    verify: bool = False,
) -> Operation[PredictAnswer]:
    """Predict measurements of the model that would have been trained without some of its data.

    Args:
        sketch: its name.
        measurements: made by `loss`, `log_probability`, `next_token`.
        documents: numbers of the documents that are deleted; one of the three is given.
        units: names of the units that are.
        subset: name of the subset that is.
        version: of the sketch; None is the current one.
        estimator: "auto" takes what had the least error at similar retrained sets.
        degree: the highest order of the expansion.
        downweight: from 0 to 1, the part of the losses that is taken away; several ask for a curve.
        confidence: of the intervals.
        average: over the directions.
        verify: whether to retrain afterwards and compare; see `wait_for_verification`.
    """
    body = body_of(
        PredictRequest,
        sketch=sketch,
        version=version,
        delete=_without(documents, units, subset),
        measurements=measurements,
        estimator=estimator,
        degree=degree,
        downweight=list(downweight) if isinstance(downweight, Sequence) else downweight,
        confidence=confidence,
        average=average,
        verify=verify,
    )
    return Operation(
        id="predict",
        method="POST",
        path="/predict",
        body=body,
        repeat="if undone" if verify else "freely",  # each would be retrained
        read=reader(PredictAnswer),
    )


def predict_batch(
    sketch: str,
    *,
    deletions: Iterable[BatchItem | Deletion],
    measurements: Sequence[MeasurementBody],
    version: int | None = None,
    estimator: Estimator = "auto",
    degree: int | Literal["auto"] = "auto",
    downweight: float | Sequence[float] = 1.0,
    confidence: float = 0.95,
    average: Average = "mean",
) -> Lines[BatchAnswer]:
    """Predict measurements without each of many deletion sets, and yield the answers as they arrive.

    A set that can't be answered has a `problem` in its answer, and the others go on. Nothing is sent before the first
    answer is asked for.

    Args:
        sketch: its name.
        deletions: up to 10,000 sets, each deleted alone; those with an id have it in their answer.
        measurements: made by `loss`, `log_probability`, `next_token`.
        version: of the sketch; None is the current one. One version answers all sets.
        estimator: "auto" takes what had the least error at similar retrained sets.
        degree: the highest order of the expansion.
        downweight: from 0 to 1, the part of the losses that is taken away; several ask for a curve.
        confidence: of the intervals.
        average: over the directions.
    """
    items = [one if isinstance(one, BatchItem) else BatchItem(delete=one) for one in deletions]
    body = body_of(
        BatchRequest,
        sketch=sketch,
        version=version,
        deletions=items,
        measurements=measurements,
        estimator=estimator,
        degree=degree,
        downweight=list(downweight) if isinstance(downweight, Sequence) else downweight,
        confidence=confidence,
        average=average,
    )
    operation = Operation(id="predict_batch", method="POST", path="/predict/batch", body=body, read=reader(BatchAnswer))
    return Lines(operation=operation, count=len(items))


def attribute(
    sketch: str,
    *,
    measurement: LossBody | LogProbabilityBody,
    top: int = 10,
    version: int | None = None,
    confidence: float = 0.95,
) -> Operation[AttributionsAnswer]:
    """Find the units whose deletion changes a measurement most, in both directions.

    Args:
        sketch: its name.
        measurement: made by `loss` or `log_probability`.
        top: how many units to name in each direction.
        version: of the sketch; None is the current one.
        confidence: of the intervals.
    """
    body = body_of(
        AttributionsRequest, sketch=sketch, version=version, measurement=measurement, top=top, confidence=confidence
    )
    return Operation(id="attribute", method="POST", path="/attributions", body=body, read=reader(AttributionsAnswer))


def check_calibration(
    sketch: str,
    *,
    measurement: LossBody | LogProbabilityBody,
    version: int | None = None,
    confidence: float = 0.95,
) -> Operation[CalibrationAnswer]:
    """Tell how right the answers about a measurement would have been where the truth is known.

    Sets that are less like what the model was retrained without are covered less often.

    Args:
        sketch: its name.
        measurement: made by `loss` or `log_probability`.
        version: of the sketch; None is the current one.
        confidence: of the intervals.
    """
    body = body_of(CalibrationRequest, sketch=sketch, version=version, measurement=measurement, confidence=confidence)
    return Operation(
        id="check_calibration", method="POST", path="/calibration", body=body, read=reader(CalibrationAnswer)
    )


def sample(
    sketch: str,
    *,
    documents: Sequence[int] | None = None,
    units: Sequence[str] | None = None,
    subset: str | None = None,
    count: int = 10,
    seed: int = 0,
    temperature: float = 1.0,
    prompt: str = "",
    version: int | None = None,
) -> Operation[SamplesAnswer]:
    """Draw texts from the model, and from the model without some of its data.

    Args:
        sketch: its name.
        documents: numbers of the documents that are deleted; one of the three is given.
        units: names of the units that are.
        subset: name of the subset that is.
        count: how many texts of each model.
        seed: of the random numbers, the same for both models.
        temperature: below 1 the likely is drawn more often.
        prompt: what every text begins with.
        version: of the sketch; None is the current one.
    """
    body = body_of(
        SamplesRequest,
        sketch=sketch,
        version=version,
        delete=_without(documents, units, subset),
        count=count,
        seed=seed,
        temperature=temperature,
        prompt=prompt,
    )
    return Operation(id="sample", method="POST", path="/samples", body=body, read=reader(SamplesAnswer))


def list_verifications(*, limit: int = 50, offset: int = 0) -> Operation[VerificationPage]:
    """A page of the verifications, the newest first."""
    return Operation(
        id="list_verifications",
        method="GET",
        path="/verifications",
        query=query_of(limit=limit, offset=offset),
        read=reader(VerificationPage),
    )


def iterate_verifications() -> Pages[VerificationAnswer]:
    """All verifications, the newest first; one that is made meanwhile makes another come twice."""
    return partial(list_verifications)


def get_verification(verification: UUID) -> Operation[VerificationAnswer]:
    """An answer beside what the retrained model measures, once it is there."""
    return Operation(
        id="get_verification",
        method="GET",
        path=path_of("/verifications/{verification}", verification=verification),
        read=reader(VerificationAnswer),
    )


def _without(documents: Sequence[int] | None, units: Sequence[str] | None, subset: str | None) -> dict[str, object]:
    given = {"documents": documents, "units": units, "subset": subset}
    return {name: value for name, value in given.items() if value is not None}
