"""How fast the engine is, against a plain training step and a plain inference measured in the same run.

Machines differ and are noisy: the ratios are the figures to compare, absolute times are for orientation.
"""

from __future__ import annotations

import platform
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch

from engine import plain
from engine.compiled import WORTHWHILE_WORK, fused, worth_fusing
from engine.configuration import SketchConfiguration
from engine.data import census_names
from engine.devices import torch_device
from engine.evidence import tabulate
from engine.frame import Frame
from engine.measure import Measurement
from engine.model import ModelConfiguration
from engine.sketch import block_directions, train_block
from engine.train import TrainingConfiguration, adam_rates, adam_update, schedule

WARM_STEPS = 16
"""Steps before the measured ones: code is compiled, caches and allocators are filled."""


@dataclass(frozen=True, kw_only=True)
class Figure:
    """One measured figure.

    Attributes:
        name: what was measured.
        seconds: median over the rounds.
        per: what the time is of.
        yardstick: the figure's name that it is divided by, or None.
        ratio: seconds / the yardstick's, or None.
    """

    name: str
    seconds: float
    per: str
    yardstick: str | None = None
    ratio: float | None = None


def bench(
    *,
    directions_count: int = 64,
    degree: int = 3,
    steps: int = 40,
    rounds: int = 5,
    dtype: str = "float32",
    device: str = "cpu",
) -> list[Figure]:
    """Measure, alternating between the engine and the yardstick so that both see the same machine.

    Args:
        directions_count: K, trained as one block.
        degree: S.
        steps: training steps a round.
        rounds: the median is taken over them.
        dtype: "float32" or "float64".
        device: "cpu", or a CUDA device.
    """
    place = torch_device(device)
    documents = census_names().first(max(steps, WARM_STEPS))
    configuration = SketchConfiguration(
        model=ModelConfiguration(vocabulary=documents.vocabulary),
        directions=directions_count,
        degree=degree,
        dtype=dtype,  # type: ignore[arg-type]  # checked by the configuration
        block=directions_count,
    )
    model = configuration.model
    [block] = configuration.blocks(documents.unit_count)
    rows = block_directions(configuration, block, documents.unit_count, place)
    schedule_of = schedule(model, TrainingConfiguration(), documents, place)
    initial = {name: m.to(place, configuration.torch_dtype) for name, m in model.initial_parameters().items()}
    measurement = Measurement(text="alexandra")
    ids = torch.tensor([model.vocabulary.find(c) for c in measurement.text], device=place)
    fuse = worth_fusing(WORTHWHILE_WORK)
    trained = train_block(configuration, schedule_of[:WARM_STEPS], rows, fuse=fuse)
    plain.train(model, configuration.training, schedule_of[:WARM_STEPS], initial)

    frame = Frame(
        model=model,
        units=documents.unit_count,
        degree=degree,
        ensemble=configuration.ensemble,
        directions=torch.complex(rows[0], rows[1]),
        parameters=trained,
    )

    def plain_inference() -> None:
        with torch.inference_mode():
            for _ in range(20):
                plain.logits(model, initial, ids).log_softmax(-1)

    rates = adam_rates(configuration.training, 0, steps).to(place, configuration.torch_dtype)

    def updates(update: Callable[..., object]) -> Callable[[], object]:
        return lambda: [update(jets, jets, jets, jets, rates) for jets in trained.values()]

    jobs: dict[str, tuple[Callable[[], object], int]] = {
        "plain step": (lambda: plain.train(model, configuration.training, schedule_of[:steps], initial), steps),
        "ring step": (
            lambda: train_block(configuration, schedule_of[:steps], rows, fuse=fuse),
            steps * directions_count,
        ),
        "update": (updates(adam_update), directions_count),
        "fused update": (updates(fused(adam_update) if fuse else adam_update), directions_count),
        "plain inference": (plain_inference, 20),
        "new measurement": (lambda: tabulate(measurement, frame), 1),
    }
    times: dict[str, list[float]] = {name: [] for name in jobs}
    for _ in range(rounds):
        for name, (job, count) in jobs.items():
            times[name].append(_timed(job, place) / count)
    seconds = {name: statistics.median(values) for name, values in times.items()}
    return [
        Figure(
            name="plain training step",
            seconds=seconds["plain step"],
            per="step",
        ),
        Figure(
            name=f"ring training, degree {degree}, {directions_count} directions",
            seconds=seconds["ring step"],
            per="direction and step",
            yardstick="plain training step",
            ratio=seconds["ring step"] / seconds["plain step"],
        ),
        Figure(name="of it, Adam's update, not fused", seconds=seconds["update"], per="direction and step"),
        Figure(
            name="of it, Adam's update, fused" if fuse else "of it, Adam's update (nothing is fused here)",
            seconds=seconds["fused update"],
            per="direction and step",
            yardstick="the one not fused",
            ratio=seconds["fused update"] / seconds["update"],
        ),
        Figure(name="plain inference, 9 letters", seconds=seconds["plain inference"], per="text"),
        Figure(
            name=f"new measurement, {directions_count} directions, 9 letters",
            seconds=seconds["new measurement"],
            per="measurement",
            yardstick="plain inference",
            ratio=seconds["new measurement"] / seconds["plain inference"],
        ),
    ]


def conditions(device: str) -> dict[str, str | int | bool]:
    """What the figures were measured on."""
    return {
        "device": torch.cuda.get_device_name() if device.startswith("cuda") else platform.machine(),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "fused": worth_fusing(WORTHWHILE_WORK),
    }


def _timed(job: Callable[[], object], device: torch.device) -> float:
    if device.type == "cuda":
        torch.cuda.synchronize()
    started = time.perf_counter()
    job()
    if device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - started
