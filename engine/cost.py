"""What a build will cost and what to expect of it: time, size, and a class of accuracy, told before it starts.

**Time** comes from a measurement of some steps of the real configuration, on this machine, just before. With the time
of a step for each kind of block, of an ordinary step, and of what comes before a block's first step,

    seconds = ordinary run + start and end of the workers
              + max over workers of Σ over its blocks of (setup + ordinary steps before its first visit + own steps).

The measured steps are on documents of all lengths, since a step takes the longer the longer its document is. Blocks are
begun as the build begins them (`engine.sketch.block_tensors`) and left after a few steps, so that a further kind of
block needs nothing here. Workers slow each other down by the caches that they share, so as many of them are measured
at the same time as there will be.

**Memory** is what the process has after that, plus what its workers' results take up.

**Accuracy** is a sentence for the kind of sketch, from the figures in docs/accuracy.md; only retrains tell it for given
data.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Collection, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from typing import NamedTuple

import torch

from engine.blocks import block_tensors, execution, first_steps, train_ordinarily, trained_together
from engine.configuration import Block, BlockKind, SketchConfiguration
from engine.devices import torch_device
from engine.documents import Documents
from engine.memory import peak_memory_bytes
from engine.native.groups import STEPS as GROUP_STEPS
from engine.sketch import direction_steps
from engine.store import PARAMETERS, Execution
from engine.threads import cores, one_thread
from engine.train import Step, schedule
from engine.workers import shares

MEASURED_STEPS = 24
"""The most steps that are measured for a kind of block."""

MEASURED_SECONDS = 0.7
"""The time after which no further step of a kind of block is measured, beyond `FEWEST_STEPS`."""

FEWEST_STEPS = 6
"""Steps that are measured however long they take, if the share allows."""

WARM_STEPS = 3
"""Steps before the measured ones: the second may still be compiled anew. They are those of the longest documents, so
that memory is got from the system once."""

MEASURED_SHARE = 1 / 8
"""Of the schedule: the most steps that are measured, so that measuring a small build is shorter than the build."""

WORKER_SECONDS = 3.0
"""What a worker takes to start, with Python, torch and our modules, and to end."""

COMPILER_SECONDS = 2.5
"""What a worker takes to load torch's compiler."""

COMPILED_SECONDS = 1.0
"""The most that a worker takes for one kind of block to find what the measurement has compiled."""

FULL_DEGREE = 3
"""The order of the axes that docs/accuracy.md has figures for."""

STEADY_ANCHORS = 1_000
"""The number of anchors that docs/accuracy.md has figures for."""


@dataclass(frozen=True, kw_only=True)
class Cost:
    """What a build costs.

    Attributes:
        seconds: wall time, the measurement and what was compiled for it not counted.
        memory_bytes: the most that all processes of the build have at the same time; on a cluster, each of them.
        size_bytes: of the artifact.
        direction_steps: directions, axes and retrained sets, times steps.
        workers: threads or processes that work at the same time.
        retraining: the share of all work that goes into retrained models.
    """

    seconds: float
    memory_bytes: int
    size_bytes: int
    direction_steps: int
    workers: int
    retraining: float


class Accuracy(NamedTuple):
    """What to expect of a sketch's answers, and what would be better; one sentence or two each."""

    expected: str
    advice: str


class BlockRate(NamedTuple):
    """Seconds of a kind of block: before the first step, once a worker for compiling, and a step of one direction."""

    setup: float
    compiling: float
    step: float


@dataclass(frozen=True, kw_only=True)
class Rates:
    """How fast this machine builds.

    Attributes:
        kinds: by kind of block.
        ordinary_step: seconds of a step of the ordinary run.
        together: by kind of block, directions that start at the same step; all of a block where it isn't named.
        threads: whether workers are threads, which take no time to start.
    """

    kinds: Mapping[BlockKind, BlockRate]
    ordinary_step: float
    together: Mapping[BlockKind, int] = field(default_factory=dict)
    threads: bool = False


@one_thread()
def estimate_cost(
    documents: Documents,
    configuration: SketchConfiguration,
    device: str,
    workers: int,
    *,
    finished: Collection[str] = (),
    spread: bool = False,
) -> Cost:
    """Measure some steps, and tell from them what a build will cost.

    Args:
        documents: what the sketch is built from.
        configuration: what is built.
        device: "cpu", or a CUDA device.
        workers: threads or processes that the build gets.
        finished: names of the files that an earlier attempt has left; they cost no time.
        spread: whether the workers are processes of a cluster, of machines like this one.

    Raises:
        ConfigurationError: the device isn't there.
    """
    place = torch_device(device)
    steps = schedule(configuration.model, configuration.training, documents, place)
    blocks = [block for block in configuration.blocks(documents.unit_count) if block.file not in finished]
    chosen = execution(configuration, place, direction_steps(configuration, documents))
    workers = len(shares(range(len(blocks)), workers))
    rates = _measured_rates(
        documents, configuration, blocks, place, chosen, min(workers, cores()) if spread else workers
    )
    rates = replace(rates, threads=rates.threads and not spread)
    ordinary_run = 0.0 if PARAMETERS in finished else rates.ordinary_step * len(steps)
    return Cost(
        seconds=ordinary_run + blocks_seconds(blocks, steps, rates, workers=workers),
        memory_bytes=_memory_bytes(configuration, blocks, 1 if spread else workers, place, threads=chosen.native),
        size_bytes=configuration.size_bytes(documents.unit_count),
        direction_steps=direction_steps(configuration, documents),
        workers=workers,
        retraining=_retraining_share(blocks, steps, rates),
    )


def blocks_seconds(blocks: Sequence[Block], steps: list[Step], rates: Rates, *, workers: int) -> float:
    """Seconds that workers take to train blocks, from what was measured.

    Args:
        blocks: to be trained, in their order.
        steps: the schedule.
        rates: of every kind among the blocks.
        workers: threads or processes.
    """
    parts = shares(range(len(blocks)), workers)
    longest = max(sum(_block_seconds(blocks[number], steps, rates) for number in part) for part in parts)
    return longest + (_worker_seconds(rates) if len(parts) > 1 and not rates.threads else 0.0)


def _block_seconds(block: Block, steps: list[Step], rates: Rates) -> float:
    rate = rates.kinds[block.kind]
    parts = first_steps(block, steps, together=rates.together.get(block.kind, block.stop - block.start))
    own = sum(count * (len(steps) - start) for count, start in parts)
    return rate.setup + rates.ordinary_step * max(start for _, start in parts) + rate.step * own


def _memory_bytes(
    configuration: SketchConfiguration, blocks: Sequence[Block], workers: int, device: torch.device, *, threads: bool
) -> int:
    """The most that the build has at the same time; after the measurement, which began a block of every kind."""
    now = peak_memory_bytes(device)
    if not threads:
        return now * (1 + workers if workers > 1 else 1)  # every process is about as large as this one
    largest = max((block.stop - block.start for block in blocks), default=0)
    numbers = 2 * configuration.degree * largest * configuration.model.parameter_count
    return now + 2 * workers * numbers * configuration.torch_dtype.itemsize  # as it is filled, and as it is written


def _retraining_share(blocks: Sequence[Block], steps: list[Step], rates: Rates) -> float:
    seconds = {block: _block_seconds(block, steps, rates) for block in blocks}
    retrained = sum(spent for block, spent in seconds.items() if block.kind == "retrained")
    return retrained / sum(seconds.values()) if seconds else 0.0


def expected_accuracy(configuration: SketchConfiguration) -> Accuracy:
    """What to expect of a sketch: docs/accuracy.md in a sentence."""
    if not configuration.axes:
        return Accuracy(
            expected="coarse. Errors are half to all of the effect, on random sets the most; the intervals say so.",
            advice="--axes has single units exact, and random sets of a tenth of the data within about a quarter. "
            "Where there are too many units for that: give documents subjects, or take fewer.",
        )
    if configuration.degree < FULL_DEGREE:
        return Accuracy(
            expected=f"single units exact; larger sets good for the sign and order of effects, coarser in their size: "
            f"an expansion to order {configuration.degree} leaves out how effects bend.",
            advice=f"--degree {FULL_DEGREE} has that.",
        )
    more = "" if configuration.anchors >= STEADY_ANCHORS else f"--anchors {STEADY_ANCHORS} makes intervals steadier. "
    if configuration.pairs:
        return Accuracy(
            expected="one or two units exact, random sets of a tenth of the units within about 5% of the effects' "
            "spread, of a fifth within about a quarter: so on 1,000 first names of 100 subjects.",
            advice=f"{more}`sketches evaluate` measures it on this data.",
        )
    return Accuracy(
        expected="single units exact, random sets of a tenth of the data within about a quarter of the effects' "
        "spread, sets with something in common within a tenth to a third of the effect: so on 1,000 first names, "
        "where that is up to a quarter of them.",
        advice=f"{more}What errors are left come from interactions between units, which --pairs adds where there are "
        "few; `sketches evaluate` measures them on this data.",
    )


class _EnoughError(Exception):
    """Raised by a clock to leave a block's training."""


class _Clock:
    """Takes the time of a block's first steps, and ends its training."""

    def __init__(self, device: torch.device, steps: int) -> None:
        """Start.

        Args:
            device: where the block is trained.
            steps: how many steps are timed, apart from the first: fewer where they take longer than
                `MEASURED_SECONDS`.
        """
        self.device = device
        self.steps = steps
        self.started = _now(device)
        self.finished: list[float] = []
        self.work: list[int] = []

    def report(self, work: int) -> None:
        """For `block_tensors`."""
        self.finished.append(_now(self.device))
        self.work.append(work)
        timed, seconds = len(self.finished) - 1, self.finished[-1] - self.finished[0]
        if timed >= self.steps or (timed >= FEWEST_STEPS and seconds > MEASURED_SECONDS):
            raise _EnoughError

    @property
    def all(self) -> float:
        """Seconds up to the end of the last step."""
        return self.finished[-1] - self.started

    @property
    def step(self) -> float:
        """Seconds of a step of one direction, from the later reports; from the first, where there is no other."""
        later = sum(self.work[1:])
        return (self.finished[-1] - self.finished[0]) / later if later else self.all / self.work[0]

    @property
    def setup(self) -> float:
        """Seconds before the first step."""
        return max(0.0, self.finished[0] - self.started - self.work[0] * self.step)


def _measured_rates(
    documents: Documents,
    configuration: SketchConfiguration,
    blocks: Sequence[Block],
    device: torch.device,
    execution: Execution,
    workers: int,
) -> Rates:
    """What the kinds among some blocks take, and an ordinary step."""
    of_kind = {block.kind: block for block in reversed(configuration.blocks(documents.unit_count))}
    wanted = dict.fromkeys(block.kind for block in blocks)
    return Rates(
        kinds={
            kind: _measured_rate(documents, configuration, of_kind[kind], device, execution, workers) for kind in wanted
        },
        ordinary_step=_ordinary_step_seconds(configuration, documents, device, native=execution.native),
        together={kind: trained_together(configuration, of_kind[kind], execution) for kind in wanted},
        threads=execution.native,
    )


def _measured_rate(
    documents: Documents,
    configuration: SketchConfiguration,
    block: Block,
    device: torch.device,
    execution: Execution,
    workers: int,
) -> BlockRate:
    """Begin a kind's first block twice: what the first time takes longer is compiling."""

    def clock(ordered: Documents, steps: int) -> _Clock:
        clock = _Clock(device, steps)
        with contextlib.suppress(_EnoughError):
            block_tensors(configuration, ordered, block, device, execution, report=clock.report)
        return clock

    steps = len(documents) * configuration.training.epochs
    if execution.native:
        representative = _of_every_length(documents)
        with ThreadPoolExecutor(workers) as pool:
            clocks = list(pool.map(lambda _: clock(representative, MEASURED_STEPS), range(workers)))
        return BlockRate(
            setup=max(one.setup for one in clocks), compiling=0.0, step=sum(one.step for one in clocks) / workers
        )
    cold = clock(_longest_first(documents), min(WARM_STEPS, _measured_steps(steps)) - 1)
    warm = clock(_of_every_length(documents), _measured_steps(steps))
    compiling = cold.all - warm.setup - sum(cold.work) * warm.step
    return BlockRate(setup=warm.setup, compiling=max(0.0, compiling) if execution.fused else 0.0, step=warm.step)


def _measured_steps(steps: int) -> int:
    return max(1, min(MEASURED_STEPS, int(steps * MEASURED_SHARE)))


def _ordinary_step_seconds(
    configuration: SketchConfiguration, documents: Documents, device: torch.device, *, native: bool
) -> float:
    """Seconds of a step of the ordinary run."""
    steps = schedule(configuration.model, configuration.training, _of_every_length(documents), device)

    def seconds(count: int) -> float:
        started = _now(device)
        train_ordinarily(configuration, steps[:count], native=native)
        return _now(device) - started

    seconds(1)  # the first pass through the model takes longer
    count = _measured_steps(len(steps))
    return max(0.0, seconds(1 + count) - seconds(1)) / count


def _worker_seconds(rates: Rates) -> float:
    """What the workers take to start and to end, all at the same time."""
    compiling = [min(rate.compiling, COMPILED_SECONDS) for rate in rates.kinds.values()]
    return WORKER_SECONDS + (COMPILER_SECONDS if any(compiling) else 0) + sum(compiling)


def _of_every_length(documents: Documents) -> Documents:
    """The same documents in another order: the first of them stand for all lengths, however few are taken.

    They are at the quantiles 1/2, 1/4, 3/4, 1/8, 5/8 … of the lengths (van der Corput's sequence).
    """
    by_length = _by_length(documents)
    count = MEASURED_STEPS * GROUP_STEPS
    chosen = [by_length[int(_van_der_corput(i) * len(documents))] for i in range(1, count + 1)]
    return _reordered(documents, dict.fromkeys(chosen + by_length))


def _longest_first(documents: Documents) -> Documents:
    return _reordered(documents, reversed(_by_length(documents)))


def _by_length(documents: Documents) -> list[int]:
    return sorted(range(len(documents)), key=lambda number: len(documents.texts[number]))


def _reordered(documents: Documents, order: Iterable[int]) -> Documents:
    names = documents.unit_names if documents.has_subjects else [None] * documents.unit_count
    return Documents.from_records((documents.texts[i], names[documents.unit_of[i]]) for i in order)


def _van_der_corput(index: int) -> float:
    """The index in binary digits, mirrored at the point."""
    return int(f"{index:b}"[::-1], 2) / (1 << index.bit_length())


def _now(device: torch.device) -> float:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()
