"""Training as a function of what is deleted: Adam in the ring, one document a step, from a fixed initialisation.

A downweight vector x multiplies the loss of document i by 1 - x[unit_of[i]]. Along a direction ψ, x = z·ψ: the loss
of the step is multiplied by the jet 1 - z·ψ_u, and one pass over the schedule gives the jets of the trained
parameters. The schedule itself never changes: a document with weight zero still takes its step, so momentum goes on
moving the parameters, and the step counter and the learning rate go on. Retraining for ground truth means exactly the
same.

Adam has its epsilon inside the root, ``θ -= lr_t · m̂ / sqrt(v̂ + eps)``, and accumulates g² rather than |g|²: both
make training analytic.

The schedule is laid out on the device before the first step (`tabulated`), and a step (`take_step`) writes over fixed
tensors (`State`), told nothing but the length of its document. That is what lets CUDA replay it (`engine.captured`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple, TypeAlias

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from engine import jet
from engine.captured import replayed
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


class Table(NamedTuple):
    """What the steps of a schedule read, on the device: all that a step needs of the host is its length."""

    inputs: Tensor  # token ids, [steps, longest T], padded with zeros
    targets: Tensor  # the next token ids, of the same shape
    units: Tensor  # [steps]
    rates: Tensor  # of `adam_rates`, [steps, 5]


def tabulated(training: TrainingConfiguration, steps: Sequence[Step], like: Tensor) -> Table:
    """The table of a schedule.

    Args:
        training: the optimiser.
        steps: the schedule; not empty.
        like: a tensor of the precision and on the device of training.
    """
    return Table(
        pad_sequence([step.inputs for step in steps], batch_first=True),
        pad_sequence([step.targets for step in steps], batch_first=True),
        torch.tensor([step.unit for step in steps], device=like.device),
        torch.stack([adam_rates(training, index, len(steps)) for index in range(len(steps))]).to(like),
    )


class State(NamedTuple):
    """Where training has come to: tensors that steps write over, none of which shares memory with another."""

    parameters: dict[str, Jet]
    first: dict[str, Jet]  # Adam's moments
    second: dict[str, Jet]
    done: Tensor  # steps taken, which is the next one's index: int64 of shape [1]


def initial_state(parameters: Parameters) -> State:
    """Before the first step, with the parameters copied."""

    def own(plane: Tensor) -> Tensor:
        return plane.clone(memory_format=torch.contiguous_format)

    copied = {name: jet.linear_map(own, parameter) for name, parameter in parameters.items()}
    first, second = ({name: jet.zeros_like(parameter) for name, parameter in copied.items()} for _ in range(2))
    device = next(iter(copied.values())).constant.device
    return State(copied, first, second, torch.zeros(1, dtype=torch.int64, device=device))


def _lifted(state: State, to: Parameters) -> State:
    """Ordinary numbers as jets with zero higher coefficients."""

    def lifted(jets: dict[str, Jet]) -> dict[str, Jet]:
        return {name: Jet(plain.constant, jet.zeros_like(to[name]).higher) for name, plain in jets.items()}

    return State(lifted(state.parameters), lifted(state.first), lifted(state.second), state.done)


Weight: TypeAlias = Callable[[Jet, Tensor], Jet]
"""Multiplies the gradient of a step's loss by the weight of the step's unit, whose number is int64 of shape [1]."""

Update: TypeAlias = Callable[[Jet, Jet, Jet, Jet, Tensor], None]
"""`update_in_place`, or the same compiled."""


def train(
    model: ModelConfiguration,
    training: TrainingConfiguration,
    steps: Sequence[Step],
    parameters: Parameters,
    weight: Weight,
    *,
    start: int = 0,
    fuse: bool = False,
    on_step: Callable[[int], None] = lambda step: None,
) -> dict[str, Jet]:
    """Run the schedule and return the trained parameters.

    Args:
        model: the model.
        training: the optimiser.
        steps: the schedule; not empty.
        parameters: initial parameters as jets of the degree wanted; their higher coefficients are usually zero.
        weight: of a step's unit.
        start: steps before it are taken without jets, since all higher coefficients are zero till then: a unit's axis
            has nothing to say before the unit's first visit.
        fuse: whether to compile the optimiser's update into one pass.
        on_step: called after every step with its index. A CUDA device may be up to
            `engine.captured.UNFINISHED_STEPS` steps behind.
    """
    like = next(iter(parameters.values())).constant
    table = tabulated(training, steps, like)

    def run(state: State, indices: range, update: Update) -> State:
        def step(length: int) -> None:
            take_step(model, table, weight, state, length, update)

        with replayed(step, like.device) as take:
            for index in indices:
                take(len(steps[index].inputs))
                on_step(index)
        return state

    if start:
        plain = initial_state({name: jet.truncate(parameter, 0) for name, parameter in parameters.items()})
        state = _lifted(run(plain, range(min(start, len(steps))), update_in_place), to=parameters)
    else:
        state = initial_state(parameters)
    return run(state, range(start, len(steps)), fused(update_in_place) if fuse else update_in_place).parameters


def take_step(
    model: ModelConfiguration, table: Table, weight: Weight, state: State, length: int, update: Update
) -> None:
    """Take the next step, in place. It can be captured and replayed (`engine.captured`).

    Which step it is, the device knows: the state counts, and the step looks itself up in the table. Copying each
    step's inputs to fixed places from outside would be five launches more a step, and one more thing to keep in order.

    Args:
        model: the model.
        table: of the schedule.
        weight: of the step's unit.
        state: written over.
        length: T of the step's document, the only thing that is told from outside.
        update: of a parameter matrix and its moments.
    """
    inputs, targets = (ids.index_select(0, state.done)[0, :length] for ids in (table.inputs, table.targets))
    unit, rates = table.units.index_select(0, state.done), table.rates.index_select(0, state.done)[0]
    logits, pull = forward(model, state.parameters, inputs)
    gradients = pull(weight(loss_gradient(logits, targets), unit))
    for name, gradient in gradients.items():
        update(state.parameters[name], state.first[name], state.second[name], gradient, rates)
    state.done.add_(1)


def along_directions(directions: Coefficient) -> Weight:
    """The weight 1 - z·ψ_u of every direction, for `train`.

    Args:
        directions: planes of shape [K, m].
    """

    def weight(gradient: Jet, unit: Tensor) -> Jet:
        psi = tuple(plane.index_select(1, unit)[..., None] for plane in directions)  # [K, 1, 1]
        return jet.subtract(gradient, jet.times_linear(gradient, psi))

    return weight


def of_models(downweights: Tensor) -> Weight:
    """The weight 1 - x_u of every one of B plain models, for `train` with jets of degree 0.

    Args:
        downweights: x of every model, of shape [B, m].
    """

    def weight(gradient: Jet, unit: Tensor) -> Jet:
        return jet.scale(gradient, (1 - downweights.index_select(1, unit))[..., None])

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


def update_in_place(parameter: Jet, first: Jet, second: Jet, gradient: Jet, rates: Tensor) -> None:
    """`adam_update`, written over what it updates; compiled, that is still one pass."""
    updated = adam_update(parameter, first, second, gradient, rates)
    for old, new in zip((parameter, first, second), updated, strict=True):
        for planes, values in zip(old.coefficients, new.coefficients, strict=True):
            for plane, value in zip(planes, values, strict=True):
                plane.copy_(value)


def constant_jets(
    parameters: Iterable[tuple[str, Tensor]], degree: int, planes: int, directions: int
) -> dict[str, Jet]:
    """Jets of the given degree whose higher coefficients are zero: where training along directions starts."""

    def zero(matrix: Tensor) -> Coefficient:
        return tuple(matrix.new_zeros(directions, *matrix.shape) for _ in range(planes))

    return {name: Jet(matrix, tuple(zero(matrix) for _ in range(degree))) for name, matrix in parameters}
