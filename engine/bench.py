"""How fast the engine is, beside a plain training step and a plain inference measured in the same run.

Machines differ and are noisy: the ratios are the figures to compare, absolute times are for orientation. What is
compared is measured in turns, and medians are taken over the rounds. What the figures mean, and how they were, is in
docs/performance.md.
"""

from __future__ import annotations

import json
import math
import multiprocessing
import platform
import random
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from multiprocessing.connection import Connection
from pathlib import Path

import torch
from rich import box
from rich.table import Table

from engine import plain
from engine.blocks import block_tensors, execution
from engine.configuration import Block, SketchConfiguration
from engine.cost import Cost, estimate_cost
from engine.data import census_names
from engine.devices import torch_device
from engine.documents import Documents
from engine.errors import EngineError
from engine.estimate import prepare
from engine.measure import Measurement
from engine.memory import peak_memory_bytes
from engine.model import ModelConfiguration
from engine.native.library import compiler
from engine.question import Question
from engine.resident import ResidentSketch
from engine.sketch import build, direction_steps
from engine.threads import cores, use_one_thread
from engine.train import schedule
from engine.workers import train_blocks, worker_count

TEXT = "alexandra"
DELETED = 50
DELETED_UNITS = (2, 20, 200, 900)
PLAIN_STEPS = 100
PLAIN_INFERENCES = 50
SOME_DOCUMENTS = 200
TORCH_DOCUMENTS = 20
GROWTH_DOCUMENTS = 100
GROWTH_DIRECTIONS = 64
ANCHORS = 1_000


@dataclass(frozen=True, kw_only=True)
class Figure:
    """One measured figure.

    Attributes:
        name: what was measured; of a build, a step of one direction, axis or model.
        value: in its unit; a median over the rounds where there are several.
        unit: "ms", "s", "MB", "1/s", or "x" for a ratio by itself.
        yardstick: what it is divided by; None where there is nothing.
        ratio: value / the yardstick's.
        target: the most that the ratio may be, or the value where there is none; None where nothing is promised.
    """

    name: str
    value: float
    unit: str
    yardstick: str | None = None
    ratio: float | None = None
    target: float | None = None


@dataclass(frozen=True, kw_only=True)
class Scale:
    """What is measured.

    Attributes:
        documents: n, bundled names, a unit each.
        directions: K.
        degree: S.
        rounds: that medians are taken over.
        whole: whether whole builds are made, and sketches of them are asked.
        growth: whether it is measured how cost grows.
        device: "cpu", or a CUDA device.
    """

    documents: int = 1_000
    directions: int = 500
    degree: int = 3
    rounds: int = 5
    whole: bool = True
    growth: bool = True
    device: str = "cpu"

    def configuration(self, vocabulary: str) -> SketchConfiguration:
        """Random directions, and nothing else."""
        model = ModelConfiguration(vocabulary=vocabulary)
        return SketchConfiguration(model=model, directions=self.directions, degree=self.degree)


def bench(scale: Scale) -> Iterator[Figure]:
    """Measure, one figure after the other."""
    documents = census_names().first(scale.documents)
    directions = scale.configuration(documents.vocabulary)
    axes = replace(directions, axes=True, directions=0, anchors=ANCHORS)
    yield from _training(documents, directions, axes, scale)
    if scale.whole:
        with tempfile.TemporaryDirectory() as folder:
            for name, configuration in (("directions", directions), ("axes", axes)):
                yield from _whole_build(name, documents, configuration, Path(folder) / name, scale.device)
            yield from _answers(Path(folder), documents, scale)
    if scale.growth:
        yield from _growth(scale)


def conditions(device: str) -> dict[str, str | int]:
    """What the figures were measured on."""
    return {
        "device": torch.cuda.get_device_name() if device.startswith("cuda") else platform.machine(),
        "cores": cores(),
        "torch": torch.__version__,
        "compiler": compiler() or "none",
    }


def table(figures: Sequence[Figure], conditions: Mapping[str, str | int]) -> Table:
    """The figures for people; what misses its target is red."""
    shown = Table(box=box.SIMPLE, title=", ".join(f"{name} {value}" for name, value in conditions.items()))
    for heading in ("figure", "value", "ratio", "of", "at most"):
        shown.add_column(heading, justify="left" if heading in {"figure", "of"} else "right")
    for figure in figures:
        judged = figure.value if figure.ratio is None else figure.ratio
        missed = figure.target is not None and judged > figure.target
        shown.add_row(
            figure.name,
            f"{figure.value:.4g} {figure.unit}",
            "" if figure.ratio is None else f"{figure.ratio:.3g}",
            figure.yardstick or "",
            "" if figure.target is None else f"{figure.target:.3g}",
            style="red" if missed else None,
        )
    return shown


def append(path: Path, figures: Sequence[Figure], conditions: Mapping[str, str | int]) -> None:
    """Append the figures to a file of JSON lines, each with its conditions and the time."""
    at = datetime.now(UTC).isoformat(timespec="seconds")
    with path.open("a", encoding="utf-8") as file:
        for figure in figures:
            file.write(json.dumps({**asdict(figure), "conditions": dict(conditions), "at": at}) + "\n")


def _training(
    documents: Documents, directions: SketchConfiguration, axes: SketchConfiguration, scale: Scale
) -> Iterator[Figure]:
    """Seconds of a direction and step, all cores busy, by those of a plain step."""
    device = torch_device(scale.device)
    steps = schedule(directions.model, directions.training, documents, device)
    initial = {name: matrix.to(device, torch.float32) for name, matrix in directions.model.initial_parameters().items()}
    some = documents.first(min(len(documents), SOME_DOCUMENTS))
    few = documents.first(min(len(documents), TORCH_DOCUMENTS))
    by_torch = replace(directions, directions=min(GROWTH_DIRECTIONS, directions.directions))
    jobs = {
        "plain": lambda: plain.train(directions.model, directions.training, steps[:PLAIN_STEPS], initial),
        "directions": _trainer(some, directions, "directions", device),
        "axes": _trainer(documents, axes, "axes", device),
        "models": _trainer(some, axes, "retrained", device),
        "torch": _trainer(few, by_torch, "directions", device, native=False),
    }
    counts = {
        "plain": min(PLAIN_STEPS, len(steps)),
        "directions": directions.directions * len(some),
        "axes": documents.unit_count * len(documents),
        "models": axes.retrained(some.unit_count) * len(some),
        "torch": by_torch.directions * len(few),
    }
    seconds = _medians(jobs, scale.rounds, device)
    each = {name: seconds[name] / counts[name] for name in jobs}
    yield Figure(name="plain training step", value=1e3 * each["plain"], unit="ms")
    for name, what, target in (
        ("directions", f"build, {directions.directions:,} directions, degree {scale.degree}", 0.08),
        ("axes", f"build, {documents.unit_count:,} axes, degree {scale.degree}", 0.04),
        ("models", "build, retrained models", None),
        ("torch", f"build by torch on one core, {by_torch.directions} directions", None),
    ):
        ratio = each[name] / each["plain"]
        yield Figure(name=what, value=1e3 * each[name], unit="ms", yardstick="step", ratio=ratio, target=target)


def _trainer(
    documents: Documents, configuration: SketchConfiguration, kind: str, device: torch.device, *, native: bool = True
) -> Callable[[], None]:
    """Trains all blocks of a kind as a build does, and keeps nothing."""
    blocks = [block for block in configuration.blocks(documents.unit_count) if block.kind == kind]
    work = direction_steps(configuration, documents)
    chosen = execution(configuration, device, work, native=native)
    workers = cores() if chosen.native else 1  # processes would spend the measurement on their start

    def train_one(block: Block, report: Callable[[int], None]) -> None:
        block_tensors(configuration, documents, block, device, chosen, report=report)

    return lambda: train_blocks(train_one, blocks, workers=workers, threads=chosen.native, report=lambda work: None)


def _whole_build(
    name: str, documents: Documents, configuration: SketchConfiguration, place: Path, device: str
) -> Iterator[Figure]:
    """A build from start to end in a process of its own, beside what was predicted of it."""
    receiving, sending = multiprocessing.get_context("spawn").Pipe(duplex=False)
    process = multiprocessing.get_context("spawn").Process(
        target=_build_and_tell, args=(sending, documents, configuration, place, device)
    )
    process.start()
    sending.close()
    try:
        told = receiving.recv()
    except EOFError:
        raise EngineError("The build ended without an answer.") from None
    finally:
        process.join()
    cost, seconds, memory, size = told
    for what, value, predicted, unit, target in (
        ("time", seconds, cost.seconds, "s", None),
        ("peak memory", memory / 2**20, cost.memory_bytes / 2**20, "MiB", 1536),
        ("size", size / 1e6, cost.size_bytes / 1e6, "MB", None),
    ):
        yield Figure(name=f"whole build, {name}: {what}", value=value, unit=unit, target=target)
        off = abs(predicted / value - 1)
        yield Figure(name=f"… {what} predicted, off by ({name})", value=off, unit="x", target=0.25)


def _build_and_tell(
    sending: Connection, documents: Documents, configuration: SketchConfiguration, place: Path, device: str
) -> None:
    use_one_thread()
    workers = worker_count(direction_steps(configuration, documents), device=device)
    cost: Cost = estimate_cost(documents, configuration, device, workers)
    started = time.perf_counter()
    artifact = build(documents, configuration, place, device=device, workers=workers)
    seconds = time.perf_counter() - started
    sending.send((cost, seconds, peak_memory_bytes(torch_device(device)), artifact.manifest.size_bytes))


def _answers(folder: Path, documents: Documents, scale: Scale) -> Iterator[Figure]:
    """New and repeated measurements of the sketches that were built."""
    device = torch_device(scale.device)
    sketches = {name: ResidentSketch.open(folder / name, device=scale.device) for name in ("directions", "axes")}
    model = sketches["axes"].configuration.model
    measurement = Measurement(text=TEXT)
    initial = {name: matrix.to(device, torch.float32) for name, matrix in model.initial_parameters().items()}
    [step] = schedule(model, sketches["axes"].configuration.training, Documents.from_records([(TEXT, None)]), device)

    def infer() -> None:
        with torch.inference_mode():
            for _ in range(PLAIN_INFERENCES):
                plain.logits(model, initial, step.inputs).log_softmax(-1)

    jobs: dict[str, Callable[[], object]] = {"plain": infer}
    for name, sketch in sketches.items():
        jobs[f"new {name}"] = lambda sketch=sketch: prepare([measurement], sketch.frame)  # type: ignore[misc]
        jobs[f"known {name}"] = _asker(sketch, DELETED)
    jobs["retrain"] = _retrainer(documents, sketches["axes"].configuration, initial, device)
    seconds = _medians(jobs, max(scale.rounds, 5), device)
    plainly = seconds["plain"] / PLAIN_INFERENCES
    yield Figure(name=f"plain inference, {len(TEXT)} letters", value=1e3 * plainly, unit="ms")
    for name, target in (("directions", 80.0), ("axes", None)):
        new = seconds[f"new {name}"]
        yield Figure(
            name=f"new measurement, {name}",
            value=1e3 * new,
            unit="ms",
            yardstick="inference",
            ratio=new / plainly,
            target=target,
        )
    yield Figure(name="plain retrain of one model", value=1e3 * seconds["retrain"], unit="ms")
    for name in sketches:
        known = seconds[f"known {name}"] / PLAIN_INFERENCES
        what = f"repeated measurement, {name}"
        yield Figure(name=what, value=1e3 * known, unit="ms", target=0.3)
        ratio = known / seconds["retrain"]
        yield Figure(name=f"… {name}", value=1e3 * known, unit="ms", yardstick="retrain", ratio=ratio, target=1 / 500)
    yield from _deleted_units(sketches["axes"], scale)


def _asker(sketch: ResidentSketch, deleted: int) -> Callable[[], None]:
    """Asks for a measurement again and again, each time without another set of so many units."""
    generator = random.Random(1)
    questions = [generator.sample(range(sketch.unit_count), deleted) for _ in range(PLAIN_INFERENCES)]

    def ask() -> None:
        for units in questions:
            sketch.predict([Measurement(text=TEXT)], units, Question())

    return ask


def _deleted_units(sketch: ResidentSketch, scale: Scale) -> Iterator[Figure]:
    """How an answer grows with what is deleted."""
    sizes = [size for size in DELETED_UNITS if size < sketch.unit_count]
    jobs = {str(size): _asker(sketch, size) for size in sizes}
    for size, seconds in _medians(jobs, scale.rounds, sketch.device).items():
        yield Figure(name=f"growth: {size} deleted units, axes", value=1e3 * seconds / PLAIN_INFERENCES, unit="ms")


def _retrainer(
    documents: Documents, configuration: SketchConfiguration, initial: dict[str, torch.Tensor], device: torch.device
) -> Callable[[], object]:
    steps = schedule(configuration.model, configuration.training, documents, device)
    return lambda: plain.train(
        configuration.model, configuration.training, steps, initial, lambda unit: float(unit > 0)
    )


def _growth(scale: Scale) -> Iterator[Figure]:
    """Time of a build by that of one half as large, or of lower degree."""
    device = torch_device(scale.device)
    documents = census_names().first(2 * GROWTH_DOCUMENTS)
    half = documents.first(GROWTH_DOCUMENTS)
    base = replace(
        scale.configuration(documents.vocabulary), directions=GROWTH_DIRECTIONS, block=GROWTH_DIRECTIONS // 2
    )
    wide = replace(base, model=replace(base.model, width=24))
    axes = replace(base, axes=True, directions=0, anchors=ANCHORS)
    degrees = {degree: replace(base, degree=degree) for degree in (1, 2, 4, 8)}
    jobs = {
        "base": _trainer(half, base, "directions", device),
        "directions": _trainer(half, replace(base, directions=2 * GROWTH_DIRECTIONS), "directions", device),
        "documents": _trainer(documents, base, "directions", device),
        "parameters": _trainer(half, wide, "directions", device),
        "models": _trainer(half, axes, "retrained", device),
        **{f"degree {d}": _trainer(half, c, "directions", device) for d, c in degrees.items()},
    }
    seconds = _medians(jobs, scale.rounds, device)
    for name, what in (("directions", "twice the directions"), ("documents", "twice the documents")):
        yield Figure(name=f"growth: {what}", value=seconds[name] / seconds["base"], unit="x", target=2.2)
    more = wide.model.parameter_count / base.model.parameter_count
    grown = (seconds["parameters"] / seconds["base"]) ** (math.log(2) / math.log(more))
    yield Figure(name=f"growth: twice the parameters, from {more:.2f} times", value=grown, unit="x", target=2.2)
    # A product of degree s is (s + 1)(s + 2)/2 products of coefficients; a plain model's step has one in its place.
    model = seconds["models"] / axes.retrained(half.unit_count)
    for degree in degrees:
        step = seconds[f"degree {degree}"] / GROWTH_DIRECTIONS
        yield Figure(
            name=f"growth: degree {degree}",
            value=1e3 * step / len(half),
            unit="ms",
            yardstick="model",
            ratio=step / model,
            target=(degree + 1) * (degree + 2) / 2,
        )


def _medians(jobs: Mapping[str, Callable[[], object]], rounds: int, device: torch.device) -> dict[str, float]:
    """Seconds of each job, in turns, after a first time that isn't counted."""
    times: dict[str, list[float]] = {name: [] for name in jobs}
    for number in range(rounds + 1):
        for name, job in jobs.items():
            seconds = _timed(job, device)
            if number:
                times[name].append(seconds)
    return {name: statistics.median(values) for name, values in times.items()}


def _timed(job: Callable[[], object], device: torch.device) -> float:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    started = time.perf_counter()
    job()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter() - started
