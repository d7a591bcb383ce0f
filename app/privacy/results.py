"""What is filed of a measured value, and whether its change is material.

    with a retrained value     |retrained - baseline| > threshold: yes; else no
    with an interval only      all of interval - baseline beyond ±threshold: yes; all of it within: no; else undecided

A distribution's change is material where that of one of its probabilities is.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from typing import Annotated, Any, Final, Literal, TypeAlias

from pydantic import BaseModel, ConfigDict, Discriminator

from engine.measure import Measurement
from engine.question import Distribution, Outcome, Prediction

Material = Literal["yes", "no", "undecided"]
Interval: TypeAlias = tuple[float, float]

_UNITS: Final[dict[str, Literal["nats per token", "nats"]]] = {"loss": "nats per token", "log_probability": "nats"}
_WITHHELD: Final = "a measurement whose text is withheld"


class Part(BaseModel):
    """A part of the form; nothing may be in it that the form doesn't have."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class Measured(Part):
    """A value before and after.

    Attributes:
        baseline: of the model as it is.
        estimate: of the model without the person's documents.
        standard_error: of the estimate.
        interval: of the estimate.
        change: estimate - baseline.
        retrained: of the model trained again without the documents; None where it wasn't.
        material: whether the change is beyond the threshold.
    """

    baseline: float
    estimate: float
    standard_error: float
    interval: Interval
    change: float
    retrained: float | None
    material: Material


class NumberResult(Measured):
    """A loss, or a log-probability.

    Attributes:
        kind: which.
        label: for people.
        own_document: its number among the person's own that were measured; None of a configured measurement.
        text: of a loss; None where it is withheld, since it is the person's.
        prompt: of a log-probability; None as above.
        completion: the same.
        unit: of all values.
        estimator: that gave the estimate.
        confidence: of the interval.
        threshold: beyond which a change is material.
    """

    kind: Literal["loss", "log_probability"]
    label: str
    own_document: int | None
    text: str | None
    prompt: str | None
    completion: str | None
    unit: Literal["nats per token", "nats"]
    estimator: str
    confidence: float
    threshold: float


class TokenResult(Measured):
    """The probability of one next character; of the text's end it is empty."""

    token: str


class DistributionResult(Part):
    """The distribution of the next character. It is material where one of its probabilities is.

    Attributes:
        kind: of the measurement.
        label: for people.
        prompt: that it follows; None where it is withheld.
        unit: of all values.
        estimator: that gave the estimates.
        confidence: of the intervals.
        threshold: beyond which a change of one probability is material.
        tokens: the probability of each.
        total_variation: half the sum of the estimated changes' sizes: how much probability moves.
        retrained_total_variation: the same of the retrained model.
        material: whether a change is beyond the threshold.
    """

    kind: Literal["next_token"]
    label: str
    prompt: str | None
    unit: Literal["probability"]
    estimator: str
    confidence: float
    threshold: float
    tokens: tuple[TokenResult, ...]
    total_variation: float
    retrained_total_variation: float | None
    material: Material


Result: TypeAlias = Annotated[NumberResult | DistributionResult, Discriminator("kind")]


def result_of(
    prediction: Prediction | Distribution,
    *,
    threshold_nats: float,
    threshold_probability: float,
    confidence: float,
    own: int | None = None,
    withheld: bool = False,
    retrained: float | Sequence[float] | None = None,
) -> NumberResult | DistributionResult:
    """What is filed of a prediction.

    Args:
        prediction: at downweight 1.
        threshold_nats: a change of a loss or log-probability beyond it is material.
        threshold_probability: a change of a probability beyond it is.
        confidence: of the prediction's intervals.
        own: the number of the person's own document whose loss this is; its text isn't filed.
        withheld: whether the measurement's text isn't filed either, since it is in the person's documents.
        retrained: what the retrained model measures; of a distribution a value a token.
    """
    measurement, exact = prediction.measurement, prediction.estimator == "retrained"
    keeps_text = own is None and not withheld
    label = f"own document {own}" if own is not None else _WITHHELD if withheld else _label(measurement)
    if isinstance(prediction, Distribution):
        distribution = _distribution(
            label=label,
            prompt=measurement.prompt if keeps_text else None,
            estimator=prediction.estimator,
            confidence=confidence,
            threshold=threshold_probability,
            tokens=[
                TokenResult(token=one.token, **_measured(one, threshold_probability, one.estimate if exact else None))
                for one in prediction.outcomes
            ],
        )
        return distribution if retrained is None else retrained_result(distribution, retrained)
    is_loss = measurement.kind == "loss"
    number = NumberResult(
        kind="loss" if is_loss else "log_probability",
        label=label,
        own_document=own,
        text=measurement.text if keeps_text and is_loss else None,
        prompt=measurement.prompt if keeps_text and not is_loss else None,
        completion=measurement.completion if keeps_text and not is_loss else None,
        unit=_UNITS[measurement.kind],
        estimator=prediction.estimator,
        confidence=confidence,
        threshold=threshold_nats,
        **_measured(prediction, threshold_nats, prediction.estimate if exact else None),
    )
    return number if retrained is None else retrained_result(number, retrained)


def material_of(baseline: float, interval: Interval, retrained: float | None, threshold: float) -> Material:
    """Whether a change is beyond the threshold, as the module says."""
    if retrained is not None:
        return "yes" if abs(retrained - baseline) > threshold else "no"
    low, high = (end - baseline for end in interval)
    if low > threshold or high < -threshold:
        return "yes"
    return "no" if -threshold <= low and high <= threshold else "undecided"


def any_material(parts: Iterable[Material]) -> Material:
    """Of several changes: yes where one is material, no where none is."""
    found = set(parts)
    return "yes" if "yes" in found else "undecided" if "undecided" in found else "no"


def is_retrained(result: NumberResult | DistributionResult) -> bool:
    """Whether the model was really trained again for a result."""
    if isinstance(result, DistributionResult):
        return all(token.retrained is not None for token in result.tokens)
    return result.retrained is not None


def retrained_result(
    result: NumberResult | DistributionResult, value: float | Sequence[float]
) -> NumberResult | DistributionResult:
    """A result with what the retrained model measures, of a distribution a value a token.

    Raises:
        ValueError: there are other than so many.
    """
    if isinstance(result, NumberResult):
        if not isinstance(value, (int, float)):
            raise ValueError("a retrained value of a number is a number")
        return result.model_copy(update=_measured(result, result.threshold, float(value)))
    if isinstance(value, (int, float)):
        raise ValueError("retrained values of a distribution are a list")
    tokens = [
        token.model_copy(update=_measured(token, result.threshold, float(one)))
        for token, one in zip(result.tokens, value, strict=True)
    ]
    kept = {name: getattr(result, name) for name in ("label", "prompt", "estimator", "confidence", "threshold")}
    return _distribution(tokens=tokens, **kept)


def faults_of(result: NumberResult | DistributionResult, where: str) -> Iterator[str]:
    """What of a result doesn't follow from its values, a sentence each.

    Args:
        result: as it was filed.
        where: it is, the beginning of each sentence.
    """
    parts: Sequence[Measured] = result.tokens if isinstance(result, DistributionResult) else [result]
    for part in parts:
        if part.change != part.estimate - part.baseline:
            yield f"{where}: the change isn't estimate - baseline."
        if not part.interval[0] <= part.interval[1]:
            yield f"{where}: the interval's ends are exchanged."
        if part.material != material_of(part.baseline, part.interval, part.retrained, result.threshold):
            yield f"{where}: whether it is material doesn't follow from its values."
    if isinstance(result, DistributionResult):
        if result.material != any_material(token.material for token in result.tokens):
            yield f"{where}: whether it is material doesn't follow from its tokens."
        if (result.total_variation, result.retrained_total_variation) != _total_variations(result.tokens):
            yield f"{where}: how much probability moves doesn't follow from its tokens."


def _measured(value: Prediction | Outcome | Measured, threshold: float, retrained: float | None) -> dict[str, Any]:
    return {
        "baseline": value.baseline,
        "estimate": value.estimate,
        "standard_error": value.standard_error,
        "interval": value.interval,
        "change": value.estimate - value.baseline,
        "retrained": retrained,
        "material": material_of(value.baseline, value.interval, retrained, threshold),
    }


def _distribution(*, tokens: Sequence[TokenResult], **of: Any) -> DistributionResult:
    moved, moved_when_retrained = _total_variations(tokens)
    return DistributionResult(
        kind="next_token",
        unit="probability",
        tokens=tuple(tokens),
        total_variation=moved,
        retrained_total_variation=moved_when_retrained,
        material=any_material(token.material for token in tokens),
        **of,
    )


def _total_variations(tokens: Sequence[TokenResult]) -> tuple[float, float | None]:
    """Of the estimates, and of the retrained values where all are known."""
    retrained = [token.retrained - token.baseline for token in tokens if token.retrained is not None]
    whole = len(retrained) == len(tokens)
    return _half_sum([token.change for token in tokens]), _half_sum(retrained) if whole else None


def _half_sum(changes: Sequence[float]) -> float:
    return math.fsum(map(abs, changes)) / 2


def _label(measurement: Measurement) -> str:
    match measurement.kind:
        case "loss":
            return measurement.text
        case "log_probability":
            return f"{measurement.completion} after {measurement.prompt or 'the start'}"
        case "next_token":
            return f"next character after {measurement.prompt or 'the start'}"
