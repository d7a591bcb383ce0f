"""Training and measuring in groups of directions, by native code.

A group is as many directions, or plain models, as a vector register holds numbers: `Library.lanes` of them, innermost
in memory. What the code wants of a group lies in `_State`: constants [P], shared by the group's directions (of plain
models [P, lanes]), and higher coefficients [P, S, planes, lanes].

A direction's numbers don't depend on which others are in its group, to the bit. An axis's do by rounding, since steps
before its group's first visit are taken as a plain model's. So the same blocks give the same results, however many
threads there are.
The oracle of everything here is the torch code: `engine.train.train`, `engine.measure.measured_probabilities`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple, TypeAlias

import torch
from torch import Tensor
from torch.nn import functional

from engine.jet import Coefficient, Jet
from engine.model import ModelConfiguration
from engine.native.library import Library, Shape
from engine.train import Step, TrainingConfiguration, adam_rates

Report: TypeAlias = Callable[[int], None]
"""Called with the direction·steps, or model·steps, that were just done."""

STEPS = 16
"""Steps of a call, after which progress is reported and Ctrl-C is heard."""


_PARTS_OF_A_THREAD = 4


class Code(NamedTuple):
    """What training along directions takes: code for their jets, and for plain models, the ordinary run among them."""

    plain: Library
    jets: Library


@dataclass(frozen=True, kw_only=True)
class Schedule:
    """The steps of training as arrays: N steps, documents cut to the context C and padded with zeros.

    Attributes:
        shape: of the model.
        lengths: T of each document, int32 of shape [N].
        inputs: token ids, int32 of shape [N, C].
        targets: the next token ids, int32 of shape [N, C].
        units: of each document, int32 of shape [N].
        rates: Adam's, float64 of shape [N, 5].
        initial: parameters at the start, [P].
    """

    shape: Shape
    lengths: Tensor
    inputs: Tensor
    targets: Tensor
    units: Tensor
    rates: Tensor
    initial: Tensor

    @classmethod
    def of(
        cls, model: ModelConfiguration, training: TrainingConfiguration, steps: Sequence[Step], dtype: torch.dtype
    ) -> Schedule:
        """The schedule of all steps, from `engine.train.schedule`."""
        return cls(
            shape=_shape(model),
            lengths=torch.tensor([len(step.inputs) for step in steps], dtype=torch.int32),
            inputs=_padded([step.inputs for step in steps], model.context),
            targets=_padded([step.targets for step in steps], model.context),
            units=torch.tensor([step.unit for step in steps], dtype=torch.int32),
            rates=torch.stack([adam_rates(training, index, len(steps)) for index in range(len(steps))]),
            initial=torch.cat([matrix.flatten() for matrix in model.initial_parameters().values()]).to(dtype),
        )

    def __len__(self) -> int:
        return len(self.units)


@dataclass(frozen=True, kw_only=True)
class _State:
    """Parameters and moments of a group; `Library` moves them."""

    values: Tensor
    higher_values: Tensor
    first: Tensor
    higher_first: Tensor
    second: Tensor
    higher_second: Tensor

    @classmethod
    def of(cls, code: Library, values: Tensor, first: Tensor, second: Tensor) -> _State:
        """Of constants alone: all higher coefficients are zero."""
        shape = (len(values), code.degree, code.planes, code.lanes)
        higher = [torch.zeros(shape, dtype=code.dtype) for _ in range(3)]
        return cls(
            values=values.clone(),
            higher_values=higher[0],
            first=first.clone(),
            higher_first=higher[1],
            second=second.clone(),
            higher_second=higher[2],
        )

    def train(
        self, code: Library, schedule: Schedule, weights: Tensor, start: int, stop: int, report: Report, count: int
    ) -> None:
        """Take steps start … stop - 1, where `count` directions or models are wanted."""
        for at in range(start, stop, STEPS):
            to = min(at + STEPS, stop)
            code.call(
                "train",
                schedule.shape,
                to - at,
                schedule.lengths[at:to],
                schedule.inputs[at:to],
                schedule.targets[at:to],
                schedule.units[at:to],
                weights,
                schedule.rates[at:to],
                self.values,
                self.higher_values,
                self.first,
                self.higher_first,
                self.second,
                self.higher_second,
            )
            report(count * (to - at))


def train_directions(
    code: Code, schedule: Schedule, directions: Coefficient, *, report: Report = lambda work: None
) -> Tensor:
    """Higher coefficients of the trained parameters along some directions.

    A group's steps before the first visit of any unit that one of its directions touches are ordinary ones.

    Args:
        code: for the degree and the planes of the directions.
        schedule: all steps.
        directions: planes of shape [K, m].
        report: called as the work goes on; what is skipped counts at once.

    Returns:
        Of shape [S, planes, K, P].
    """
    jets, count = code.jets, len(directions[0])
    result = torch.empty(jets.degree, jets.planes, count, len(schedule.initial), dtype=jets.dtype)
    groups = [tuple(plane[at : at + jets.lanes] for plane in directions) for at in range(0, count, jets.lanes)]
    starts = [_first_visit(schedule, group) for group in groups]
    ordinary = _ordinary_run(code.plain, schedule, starts)
    for number in sorted(range(len(groups)), key=starts.__getitem__):
        group, start, at = groups[number], starts[number], number * jets.lanes
        size = len(group[0])
        if start:
            report(size * start)
        state = _State.of(jets, *next(ordinary))
        state.train(jets, schedule, _by_unit(group, jets.lanes), start, len(schedule), report, size)
        result[:, :, at : at + size] = state.higher_values.permute(1, 2, 3, 0)[:, :, :size]
    return result


def train_models(code: Library, schedule: Schedule, weights: Tensor, *, report: Report = lambda work: None) -> Tensor:
    """Parameters of plain models.

    Args:
        code: for plain models.
        schedule: all steps.
        weights: of every unit's loss for each of the B models, [B, m].
        report: called as the work goes on.

    Returns:
        Of shape [B, P].
    """
    result = torch.empty(len(weights), len(schedule.initial), dtype=code.dtype)
    for at in range(0, len(weights), code.lanes):
        group = weights[at : at + code.lanes]
        state = _plain_state(code, schedule)
        state.train(code, schedule, _by_unit((group,), code.lanes), 0, len(schedule), report, len(group))
        result[at : at + len(group)] = state.values.T[: len(group)]
    return result


Text: TypeAlias = tuple[Sequence[int], Sequence[int], Sequence[int]]
"""Input tokens, and positions and tokens to look at: `engine.measure.Targets`."""


@dataclass(frozen=True, kw_only=True)
class Packed:
    """Trained parameters of K directions, or of K plain models, in groups, padded with zeros: an `engine.held.Held`.

    Attributes:
        code: for them.
        shape: of the model.
        count: K.
        constant: shared by all, [P]; of plain models [groups, P, lanes].
        higher: [groups, P, S, planes, lanes].
        threads: over which the groups of a measurement are spread.
    """

    code: Library
    shape: Shape
    count: int
    constant: Tensor
    higher: Tensor
    threads: int = 1

    @classmethod
    def empty(
        cls, code: Library, model: ModelConfiguration, count: int, constant: Tensor | None = None, *, threads: int = 1
    ) -> Packed:
        """Room for K directions with these constants [P], or for K plain models."""
        groups, size = -(-count // code.lanes), model.parameter_count
        plain = torch.zeros(groups, size, code.lanes, dtype=code.dtype) if constant is None else constant.contiguous()
        higher = torch.zeros(groups, size, code.degree, code.planes, code.lanes, dtype=code.dtype)
        return cls(code=code, shape=_shape(model), count=count, constant=plain, higher=higher, threads=threads)

    def put(self, start: int, rows: Tensor, *, order: int = 0, plane: int = 0) -> None:
        """As of `Held`."""
        whole = self.constant if order == 0 else self.higher[:, :, order - 1, plane]
        at = 0
        while at < len(rows):
            group, lane = divmod(start + at, self.code.lanes)
            taken = min(self.code.lanes - lane, len(rows) - at)
            whole[group, :, lane : lane + taken] = rows[at : at + taken].T
            at += taken

    @property
    def nbytes(self) -> int:
        """As of `Held`."""
        return self.constant.nbytes + self.higher.nbytes

    @cached_property
    def _pool(self) -> ThreadPoolExecutor:
        """Threads beside the caller's; they are kept, since starting one takes as long as a part of the work."""
        return ThreadPoolExecutor(max(1, self.threads - 1), thread_name_prefix="measure")

    def rows(self, which: Sequence[int] | None = None, *, order: int = 0, plane: int = 0) -> Tensor:
        """As of `Held`."""
        whole = self.constant if order == 0 else self.higher[:, :, order - 1, plane]
        rows = torch.arange(self.count) if which is None else torch.tensor(which, dtype=torch.int64)
        return whole[rows // self.code.lanes, :, rows % self.code.lanes]

    def probabilities(self, texts: Sequence[Text]) -> list[Jet]:
        """As of `Held`, in one pass over the parameters."""
        code, groups = self.code, len(self.higher)
        counts = [len(positions) for _, positions, _ in texts]
        shared, total = code.degree > 0, sum(counts)
        arguments = (
            torch.tensor([len(inputs) for inputs, _, _ in texts], dtype=torch.int32),
            _padded([torch.tensor(inputs) for inputs, _, _ in texts], self.shape.context),
            torch.tensor(counts, dtype=torch.int32),
            torch.tensor([position for _, positions, _ in texts for position in positions], dtype=torch.int32),
            torch.tensor([token for _, _, tokens in texts for token in tokens], dtype=torch.int32),
        )
        # More parts than threads, so that one that lost its core for a while doesn't keep the others waiting. Shared
        # constant terms come out the same in every part; each has a place of its own for them.
        parts = min(groups, 1 if self.threads == 1 else _PARTS_OF_A_THREAD * self.threads)
        constant = torch.empty((parts, total) if shared else (groups, total, code.lanes), dtype=code.dtype)
        higher = torch.empty(groups, total, code.degree, code.planes, code.lanes, dtype=code.dtype)

        def measure(number: int) -> None:
            start, stop = groups * number // parts, groups * (number + 1) // parts
            code.call(
                "measure",
                self.shape,
                stop - start,
                len(texts),
                *arguments,
                self.constant if shared else self.constant[start:stop],
                self.higher[start:stop],
                constant[number] if shared else constant[start:stop],
                higher[start:stop],
            )

        remaining = iter(range(parts))

        def work() -> None:
            for number in remaining:  # each part is one thread's, whichever comes first
                measure(number)

        others = [self._pool.submit(work) for _ in range(min(parts, self.threads) - 1)]
        work()
        for other in others:
            other.result()
        found = constant[0] if shared else constant.transpose(1, 2).reshape(-1, total)[: self.count]
        planes = higher.permute(2, 3, 0, 4, 1).reshape(code.degree, code.planes, groups * code.lanes, total)
        return [
            Jet(of_text, tuple(tuple(plane) for plane in orders))
            for of_text, orders in zip(
                torch.split(found, counts, dim=-1), torch.split(planes[:, :, : self.count], counts, dim=-1), strict=True
            )
        ]


def _ordinary_run(plain: Library, schedule: Schedule, stops: Sequence[int]) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """Parameters and moments [P] of the ordinary run before each of some steps, the early ones first."""
    state = _plain_state(plain, schedule)
    weights = torch.ones(int(schedule.units.max()) + 1, 1, plain.lanes, dtype=plain.dtype)
    at = 0
    for stop in sorted(stops):
        state.train(plain, schedule, weights, at, stop, lambda work: None, 0)
        at = stop
        yield state.values[:, 0].contiguous(), state.first[:, 0].contiguous(), state.second[:, 0].contiguous()


def _plain_state(plain: Library, schedule: Schedule) -> _State:
    initial = schedule.initial[:, None].repeat(1, plain.lanes)
    return _State.of(plain, initial, torch.zeros_like(initial), torch.zeros_like(initial))


def _first_visit(schedule: Schedule, group: Coefficient) -> int:
    """The first step on a unit that a direction of the group touches; all steps where there is none."""
    touched = torch.stack([plane.any(dim=0) for plane in group]).any(dim=0)
    visits = touched[schedule.units.long()].nonzero()
    return int(visits[0]) if len(visits) else len(schedule)


def _by_unit(group: Coefficient, lanes: int) -> Tensor:
    """Planes [k, m] as [m, planes, lanes], padded with zeros."""
    stacked = torch.stack(group, dim=0).permute(2, 0, 1)
    return functional.pad(stacked, (0, lanes - stacked.shape[-1])).contiguous()


def _shape(model: ModelConfiguration) -> Shape:
    return Shape(
        vocabulary=len(model.vocabulary) + 1,
        width=model.width,
        heads=model.heads,
        context=model.context,
        layers=model.layers,
        rmsnorm_epsilon=model.rmsnorm_epsilon,
    )


def _padded(rows: Sequence[Tensor], length: int) -> Tensor:
    padded = torch.zeros(len(rows), length, dtype=torch.int32)
    for to, row in zip(padded, rows, strict=True):
        to[: len(row)] = row
    return padded
