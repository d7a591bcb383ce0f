"""Measurements: numbers computed from the trained parameters, as jets along every direction.

A measurement's *table* holds what depends on the measurement only: for every direction and order the Taylor
coefficients of the target tokens' probabilities, and of the loss, which follows from them by the ring's logarithm.
With a table at hand, another deletion set costs no inference.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from engine import jet
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
    """Jets of one measurement along the K directions of a sketch.

    Attributes:
        measurement: what was measured.
        baseline: its value after ordinary training.
        coefficients: orders 1 … S of its value, complex128 of shape [S, K].
        probabilities: jets of the target tokens' probabilities, of shape [T].
    """

    measurement: Measurement
    baseline: float
    coefficients: Tensor
    probabilities: Jet

    @property
    def size_bytes(self) -> int:
        """What it occupies."""
        planes = [plane for coefficient in self.probabilities.coefficients for plane in coefficient]
        return sum(tensor.nbytes for tensor in (self.coefficients, *planes))


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
def tabulate(measurement: Measurement, model: ModelConfiguration, parameters: Parameters) -> Table:
    """Measure along all directions at once.

    Args:
        measurement: what to measure.
        model: the model.
        parameters: jets of the trained parameters.

    Raises:
        TextLengthError, UnknownCharacterError: as `measurement_tokens`.
    """
    probabilities = target_probabilities(model, parameters, measurement_tokens(measurement, model))
    loss = loss_of(probabilities)
    rows = [torch.complex(*(plane.double() for plane in planes)) for planes in loss.higher]
    return Table(
        measurement=measurement,
        baseline=loss.constant.item(),
        coefficients=torch.stack(rows),
        probabilities=probabilities,
    )


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
