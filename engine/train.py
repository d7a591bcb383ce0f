"""Training as a function of what is deleted: Adam in the ring, one document a step, from a fixed initialisation.

A downweight vector x multiplies the loss of document i by 1 - x[unit_of[i]]. Along a direction ψ, x = z·ψ: the loss
of the step is multiplied by the jet 1 - z·ψ_u, and one pass over the schedule gives the jets of the trained
parameters. The schedule itself never changes: a document with weight zero still takes its step, so momentum goes on
moving the parameters, and the step counter and the learning rate go on. Retraining for ground truth means exactly the
same.

Adam has its epsilon inside the root, ``θ -= lr_t · m̂ / sqrt(v̂ + eps)``, and accumulates g² rather than |g|²: both
make training analytic.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from engine import jet
from engine.compiled import fused
from engine.documents import Documents, tokens
from engine.errors import ConfigurationError
from engine.jet import Coefficient, Jet
from engine.model import ModelConfiguration, Parameters, forward, loss_gradient

Progress = Callable[[int, int], None]
"""Called with the work done and the whole, in one unit, as it goes on."""


@dataclass(frozen=True, kw_only=True)
class TrainingConfiguration:
    """How the model is trained.

    Attributes:
        epochs: passes over the documents; steps = epochs · n.
        learning_rate: at step 0; decays linearly to 0 at the last step.
        beta1: decay of the first moment.
        beta2: decay of the second moment.
        epsilon: inside the root.

    Raises:
        ConfigurationError: a value outside its range.
    """

    epochs: int = 1
    learning_rate: float = 0.01
    beta1: float = 0.85
    beta2: float = 0.99
    epsilon: float = 1e-3

    def __post_init__(self) -> None:
        if self.epochs < 1:
            raise ConfigurationError(f"epochs must be at least 1, not {self.epochs}.")
        if not (0 <= self.beta1 < 1 and 0 <= self.beta2 < 1):
            raise ConfigurationError("beta1 and beta2 must lie in [0, 1).")
        if self.learning_rate <= 0 or self.epsilon <= 0:
            raise ConfigurationError("learning_rate and epsilon must be positive.")


class Step(NamedTuple):
    """One step of the schedule."""

    inputs: Tensor  # token ids, [T]
    targets: Tensor  # the next token ids, [T]
    unit: int


def schedule(
    model: ModelConfiguration, training: TrainingConfiguration, documents: Documents, device: torch.device
) -> list[Step]:
    """The steps in order: document ``step mod n`` at step `step`, cut to the model's context."""
    once = []
    for text, unit in zip(documents.texts, documents.unit_of, strict=True):
        ids = torch.tensor(tokens(text, model.vocabulary)[: model.context + 1], device=device)
        once.append(Step(ids[:-1], ids[1:], unit))
    return once * training.epochs


def train(
    model: ModelConfiguration,
    training: TrainingConfiguration,
    steps: Sequence[Step],
    parameters: Parameters,
    weight: Callable[[Jet, int], Jet],
    *,
    start: int = 0,
    fuse: bool = False,
    on_step: Callable[[int], None] = lambda step: None,
) -> dict[str, Jet]:
    """Run the schedule and return the trained parameters.

    Args:
        model: the model.
        training: the optimiser.
        steps: the schedule.
        parameters: initial parameters as jets of the degree wanted; their higher coefficients are usually zero.
        weight: multiplies the gradient of a step's loss by the weight of the step's unit.
        start: steps before it are taken without jets, since all higher coefficients are zero till then: a unit's axis
            has nothing to say before the unit's first visit.
        fuse: whether to compile the optimiser's update into one pass.
        on_step: called after every step with its index.
    """
    current = {name: jet.truncate(parameter, 0) if start else parameter for name, parameter in parameters.items()}
    first = {name: jet.zeros_like(parameter) for name, parameter in current.items()}
    second = {name: jet.zeros_like(parameter) for name, parameter in current.items()}
    like = next(iter(current.values())).constant
    for index, step in enumerate(steps):
        if start and index == start:
            for jets in (current, first, second):
                jets.update({name: _lifted(jets[name], to=parameter) for name, parameter in parameters.items()})
        logits, pull = forward(model, current, step.inputs)
        gradients = pull(weight(loss_gradient(logits, step.targets), step.unit))
        rates = adam_rates(training, index, len(steps)).to(like)
        update = fused(adam_update) if fuse and index >= start else adam_update
        for name, gradient in gradients.items():
            current[name], first[name], second[name] = update(current[name], first[name], second[name], gradient, rates)
        on_step(index)
    return current


def _lifted(plain: Jet, *, to: Jet) -> Jet:
    """An ordinary number as a jet with zero higher coefficients."""
    return Jet(plain.constant, jet.zeros_like(to).higher)


def along_directions(directions: Coefficient) -> Callable[[Jet, int], Jet]:
    """The weight 1 - z·ψ_u of every direction, for `train`.

    Args:
        directions: planes of shape [K, m].
    """

    def weight(gradient: Jet, unit: int) -> Jet:
        psi = tuple(plane[:, unit, None, None] for plane in directions)
        return jet.subtract(gradient, jet.times_linear(gradient, psi))

    return weight


def of_models(downweights: Tensor) -> Callable[[Jet, int], Jet]:
    """The weight 1 - x_u of every one of B plain models, for `train` with jets of degree 0.

    Args:
        downweights: x of every model, of shape [B, m].
    """

    def weight(gradient: Jet, unit: int) -> Jet:
        return jet.scale(gradient, (1 - downweights[:, unit])[:, None, None])

    return weight


def adam_rates(training: TrainingConfiguration, step: int, steps: int) -> Tensor:
    """beta1, beta2, 1 / (1 - beta2^t), lr_t / (1 - beta1^t) and eps of a step, float64 of shape [5].

    A tensor rather than numbers, so that compiled code need not be made anew for every step.
    """
    return torch.tensor(
        [
            training.beta1,
            training.beta2,
            1 / (1 - training.beta2 ** (step + 1)),
            training.learning_rate * (1 - step / steps) / (1 - training.beta1 ** (step + 1)),
            training.epsilon,
        ],
        dtype=torch.float64,
    )


def adam_update(parameter: Jet, first: Jet, second: Jet, gradient: Jet, rates: Tensor) -> tuple[Jet, Jet, Jet]:
    """One update of one parameter matrix and its moments, in the ring; element-wise, so that it fuses into one pass."""
    beta1, beta2, second_correction, rate, epsilon = rates.unbind()
    first = jet.add(jet.scale(first, beta1), jet.scale(gradient, 1 - beta1))
    second = jet.add(jet.scale(second, beta2), jet.scale(jet.square(gradient), 1 - beta2))
    inverse_root = jet.power(jet.shift(jet.scale(second, second_correction), epsilon), -0.5)
    return jet.subtract(parameter, jet.scale(jet.multiply(first, inverse_root), rate)), first, second


def constant_jets(
    parameters: Iterable[tuple[str, Tensor]], degree: int, planes: int, directions: int
) -> dict[str, Jet]:
    """Jets of the given degree whose higher coefficients are zero: where training along directions starts."""

    def zero(matrix: Tensor) -> Coefficient:
        return tuple(matrix.new_zeros(directions, *matrix.shape) for _ in range(planes))

    return {name: Jet(matrix, tuple(zero(matrix) for _ in range(degree))) for name, matrix in parameters}
