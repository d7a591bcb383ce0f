"""Measurements: numbers computed from the trained parameters, as jets along every direction.

A measurement's *table* holds what depends on the measurement only: for every direction and order the Taylor
coefficients of the target tokens' probabilities, and of the loss, which follows from them by the ring's logarithm.
With a table at hand, another deletion set costs no inference.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor

from engine import jet
from engine.axes import Anchors, AxisTable, Calibration, calibrate
from engine.documents import tokens
from engine.errors import TextLengthError
from engine.jet import Jet
from engine.model import ModelConfiguration, Parameters, target_probabilities


@dataclass(frozen=True, kw_only=True)
class Measurement:
    """What is asked of the trained model.

    Attributes:
        kind: "loss": the mean negative log-likelihood of the text's tokens and the closing BOS, in nats per token.
        text: what it is computed on.
    """

    text: str
    kind: Literal["loss"] = "loss"


@dataclass(frozen=True, kw_only=True)
class Table:
    """What one measurement needs of a sketch, whatever is deleted.

    Attributes:
        measurement: what was measured.
        baseline: its value after ordinary training.
        coefficients: orders 1 … S of its value along K random directions, complex128 of shape [S, K].
        probabilities: jets of the target tokens' probabilities along these directions, of shape [T].
        axes: the target tokens' probabilities along the units' axes, where the sketch has them.
        calibration: of the axes' estimates.
    """

    measurement: Measurement
    baseline: float
    coefficients: Tensor
    probabilities: Jet
    axes: AxisTable | None = None
    calibration: Calibration | None = None

    @property
    def size_bytes(self) -> int:
        """What it occupies."""
        planes = [plane for coefficient in self.probabilities.coefficients for plane in coefficient]
        axes = [] if self.axes is None else [self.axes.coefficients]
        return sum(tensor.nbytes for tensor in (self.coefficients, *planes, *axes))


def measurement_tokens(measurement: Measurement, model: ModelConfiguration) -> list[int]:
    """Token ids of the measurement's text, BOS to BOS.

    Raises:
        TextLengthError: the text is empty or longer than the context.
        UnknownCharacterError: a character isn't in the vocabulary.
    """
    if not measurement.text:
        raise TextLengthError("The text of the measurement is empty; it needs at least one character.")
    if len(measurement.text) >= model.context:
        raise TextLengthError(
            f"The text has {len(measurement.text)} characters; with a context of {model.context} positions at most "
            f"{model.context - 1} can be measured to the end."
        )
    return tokens(measurement.text, model.vocabulary)


@torch.inference_mode()
def tabulate(
    measurement: Measurement,
    model: ModelConfiguration,
    parameters: Parameters,
    *,
    axes: Parameters | None = None,
    anchors: tuple[Anchors, dict[str, Tensor]] | None = None,
) -> Table:
    """Measure along all directions and axes at once, and calibrate.

    Args:
        measurement: what to measure.
        model: the model.
        parameters: jets of the trained parameters along random directions; of degree 0 where there are none.
        axes: the same along the units' axes.
        anchors: with axes, and the parameters of the models retrained without each of them.

    Raises:
        TextLengthError, UnknownCharacterError: as `measurement_tokens`.
    """
    probabilities = target_probabilities(model, parameters, measurement_tokens(measurement, model))
    loss = loss_of(probabilities)
    rows = [torch.complex(*(plane.double() for plane in planes)) for planes in loss.higher]
    nothing = probabilities.constant.new_empty((0, 0), dtype=torch.complex128)
    table = Table(
        measurement=measurement,
        baseline=loss.constant.item(),
        coefficients=torch.stack(rows) if rows else nothing,
        probabilities=probabilities,
    )
    if axes is None or anchors is None:
        return table
    of_axes = target_probabilities(model, axes, measurement_tokens(measurement, model))
    along = AxisTable(
        constants=of_axes.constant.double(),
        coefficients=torch.stack([plane.double() for (plane,) in of_axes.higher]),
    )
    sets, models = anchors
    truth = measure_models(measurement, model, models)
    return replace(table, axes=along, calibration=calibrate(along, sets, truth))


@torch.inference_mode()
def measure_models(measurement: Measurement, model: ModelConfiguration, parameters: dict[str, Tensor]) -> Tensor:
    """The value for each of B plain models.

    Args:
        measurement: what to measure.
        model: the model.
        parameters: matrices of shape [B, rows, columns].

    Returns:
        float64 of shape [B].
    """
    jets = {name: Jet(matrix) for name, matrix in parameters.items()}
    return loss_of(target_probabilities(model, jets, measurement_tokens(measurement, model))).constant.double()


def loss_of(probabilities: Jet) -> Jet:
    """Mean negative logarithm over the tokens; in double precision, since small probabilities cancel in it."""
    logarithms = jet.log(jet.linear_map(torch.Tensor.double, probabilities))
    return jet.linear_map(lambda plane: -plane.mean(dim=-1), logarithms)
