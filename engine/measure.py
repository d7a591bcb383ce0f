"""Measurements: numbers computed from the trained parameters, all of them read out of token probabilities.

- `loss`: -mean log p of the text's tokens and the closing BOS, in nats per token.
- `log_probability`: Σ log p of a completion's tokens after a prompt, in nats.
- `next_token`: p of every token of the vocabulary after a prompt; they add up to one.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, NamedTuple, TypeAlias

import torch
from torch import Tensor

from engine import jet
from engine.documents import tokens
from engine.errors import TextLengthError
from engine.jet import Jet
from engine.model import ModelConfiguration, Parameters, token_probabilities

Kind: TypeAlias = Literal["loss", "log_probability", "next_token"]


@dataclass(frozen=True, kw_only=True)
class Measurement:
    """What is asked of the trained model.

    Attributes:
        kind: what the value is.
        text: of a loss.
        prompt: what a completion or the next token follows; may be empty, which is the start of a text.
        completion: of a log-probability.
    """

    kind: Kind = "loss"
    text: str = ""
    prompt: str = ""
    completion: str = ""

    @property
    def label(self) -> str:
        """For people."""
        if self.kind == "loss":
            return self.text
        return f"{self.prompt}…" if self.kind == "next_token" else f"{self.prompt}…{self.completion}"


class Targets(NamedTuple):
    """Tokens whose probabilities a measurement is read out of: token `tokens[i]` after `inputs[: positions[i] + 1]`."""

    inputs: list[int]
    positions: list[int]
    tokens: list[int]


def targets(measurement: Measurement, model: ModelConfiguration) -> Targets:
    """Where a measurement looks.

    Raises:
        TextLengthError: there is nothing to measure, or more than the context holds.
        UnknownCharacterError: a character isn't in the vocabulary.
    """
    if measurement.kind == "loss":
        if not measurement.text:
            raise TextLengthError("The text of the measurement is empty; it needs at least one character.")
        _check_length(measurement.text, model, most=model.context - 1)
        ids = tokens(measurement.text, model.vocabulary)
        return Targets(ids[:-1], list(range(len(ids) - 1)), ids[1:])
    if measurement.kind == "log_probability":
        if not measurement.completion:
            raise TextLengthError("The completion of the measurement is empty; it needs at least one character.")
        whole = measurement.prompt + measurement.completion
        _check_length(whole, model, most=model.context)
        ids = tokens(whole, model.vocabulary)[:-1]
        return Targets(ids[:-1], list(range(len(measurement.prompt), len(whole))), ids[len(measurement.prompt) + 1 :])
    _check_length(measurement.prompt, model, most=model.context - 1)
    ids = tokens(measurement.prompt, model.vocabulary)[:-1]
    every = list(range(len(model.vocabulary) + 1))
    return Targets(ids, [len(ids) - 1] * len(every), every)


def outcomes(measurement: Measurement, model: ModelConfiguration) -> tuple[str, ...]:
    """What the values of a next-token measurement belong to: the characters, and "" for the end of the text."""
    return (*model.vocabulary, "") if measurement.kind == "next_token" else ()


def read_out(kind: Kind, probabilities: Tensor) -> Tensor:
    """Values of a measurement from the probabilities of its tokens.

    Args:
        kind: of the measurement.
        probabilities: positive, of shape [..., T].

    Returns:
        Of shape [..., O]: O = T for "next_token", else 1.
    """
    if kind == "loss":
        return -probabilities.log().mean(dim=-1, keepdim=True)
    if kind == "log_probability":
        return probabilities.log().sum(dim=-1, keepdim=True)
    return probabilities / probabilities.sum(dim=-1, keepdim=True)


def read_out_jets(kind: Kind, probabilities: Jet) -> Jet:
    """The same in the ring, in double precision, since small probabilities cancel in a logarithm.

    What is read out here adds up to one already, as all probabilities of a softmax do.
    """
    precise = jet.linear_map(torch.Tensor.double, probabilities)
    if kind == "next_token":
        return precise
    logarithms = jet.log(precise)
    if kind == "loss":
        return jet.linear_map(lambda plane: -plane.mean(dim=-1, keepdim=True), logarithms)
    return jet.linear_map(lambda plane: plane.sum(dim=-1, keepdim=True), logarithms)


@torch.inference_mode()
def measured_probabilities(measurement: Measurement, model: ModelConfiguration, parameters: Parameters) -> Jet:
    """Jets of the probabilities that a measurement is read out of, of shape [T].

    Raises:
        TextLengthError, UnknownCharacterError: as `targets`.
    """
    return token_probabilities(model, parameters, *targets(measurement, model))


@torch.inference_mode()
def measure_models(measurement: Measurement, model: ModelConfiguration, parameters: dict[str, Tensor]) -> Tensor:
    """The values for each of B plain models.

    Args:
        measurement: what to measure.
        model: the model.
        parameters: matrices of shape [B, rows, columns].

    Returns:
        float64 of shape [B], or [B, O] for "next_token".
    """
    jets = {name: Jet(matrix) for name, matrix in parameters.items()}
    values = read_out(measurement.kind, measured_probabilities(measurement, model, jets).constant.double())
    return values if measurement.kind == "next_token" else values.squeeze(-1)


def _check_length(text: str, model: ModelConfiguration, *, most: int) -> None:
    if len(text) > most:
        raise TextLengthError(
            f"The text has {len(text)} characters; with a context of {model.context} positions at most "
            f"{most} can be measured to the end."
        )
