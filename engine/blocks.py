"""Training one block of a sketch: its directions, or the sets that the model is retrained without, into tensors.

Training is native code on a processor with a compiler (`engine.native`), else torch (`engine.train`). A block depends
on nothing but the configuration, the documents and its own directions.
"""

from __future__ import annotations

import functools
import platform
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import one_hot

from engine.anchors import anchor_sets, exact_size, pairs
from engine.compiled import WORTHWHILE_WORK, worth_fusing
from engine.configuration import Block, SketchConfiguration
from engine.devices import torch_device
from engine.directions import directions, planes
from engine.documents import Documents
from engine.errors import ConfigurationError
from engine.jet import Coefficient, Jet
from engine.model import matrices
from engine.native.groups import Code, Schedule, train_directions, train_models
from engine.native.library import library, target
from engine.retrain import retrain
from engine.store import PARAMETERS, Execution, File, Plan
from engine.threads import linear_algebra, one_thread
from engine.train import Progress, Step, along_directions, constant_jets, schedule, train
from engine.workers import Report, as_progress
from engine.workspace import BlockFiles

PLANE_NAMES = ("real", "imaginary")


@dataclass(frozen=True, kw_only=True)
class Job:
    """All that a worker of a build must know, wherever it is.

    Attributes:
        plan: what is built, and how.
        documents: in training order.
        files: where the results go.
        device: name of the device that is to work.
    """

    plan: Plan
    documents: Documents
    files: BlockFiles
    device: str


@one_thread()
def train_parameters(job: Job) -> File:
    """Train ordinarily, and write the parameters before and after.

    Raises:
        ConfigurationError: training diverged, or the device isn't there.
        ArtifactError: they can't be written.
    """
    configuration = job.plan.configuration
    steps = schedule(configuration.model, configuration.training, job.documents, torch_device(job.device))
    trained = train_ordinarily(configuration, steps, native=job.plan.execution.native)
    if not all(matrix.isfinite().all() for matrix in trained.values()):
        raise ConfigurationError(
            "Training diverged: the parameters aren't finite. Lower learning_rate or raise epsilon."
        )
    initial = configuration.model.initial_parameters()
    return job.files.save(
        PARAMETERS,
        {f"initial.{name}": matrix.to(configuration.torch_dtype) for name, matrix in initial.items()}
        | {f"trained.{name}": matrix for name, matrix in trained.items()},
    )


def train_and_save(job: Job, block: Block, report: Report) -> File:
    """Train a block, and write it.

    Raises:
        ConfigurationError: what was trained isn't finite, or the device isn't there.
        ArtifactError: it can't be written.
    """
    configuration = job.plan.configuration
    device = torch_device(job.device)
    tensors = block_tensors(configuration, job.documents, block, device, job.plan.execution, report=report)
    return job.files.save(block.file, tensors)


def execution(configuration: SketchConfiguration, device: torch.device, work: int, *, native: bool = True) -> Execution:
    """How a build of so many direction·steps is carried out: by native code where that can be had, else by torch."""
    native = native and _has_native_code(configuration, device)
    fused = not native and worth_fusing(work, device.type)
    return Execution(device=device.type, fused=fused, native=native, processor=processor(device, native=native))


def nearest(configuration: SketchConfiguration, device: torch.device, wanted: Execution) -> Execution:
    """What this machine can do that is nearest to a wanted execution: that itself, or what differs where it can't."""
    native = wanted.native and _has_native_code(configuration, device)
    return Execution(
        device=device.type,
        fused=wanted.fused and worth_fusing(WORTHWHILE_WORK, device.type),
        native=native,
        processor=processor(device, native=native) if wanted.processor else "",
    )


@functools.cache
def processor(device: torch.device, *, native: bool) -> str:
    """What of this machine decides the last bits of what is trained here; equal where these are equal.

    Args:
        device: that trains.
        native: whether native code does.
    """
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    parts = [f"{platform.machine()} {torch.backends.cpu.get_cpu_capability()}"]
    parts += [f"OpenBLAS {name}" for name in linear_algebra()]  # which draws directions
    parts += [target() or ""] if native else []
    return ", ".join(parts)


def _has_native_code(configuration: SketchConfiguration, device: torch.device) -> bool:
    kinds = ([2] if configuration.directions else []) + ([1] if configuration.axes else [])
    return device.type == "cpu" and all(code_for(configuration, planes=planes) for planes in kinds)


def code_for(configuration: SketchConfiguration, *, planes: int) -> Code | None:
    """Native code for a configuration's directions (two planes) or axes (one), None where there is none."""
    parameters = configuration.model.parameter_count
    plain = library(configuration.torch_dtype, 0, 1)
    jets = library(configuration.torch_dtype, configuration.degree, planes, parameters=parameters)
    return None if plain is None or jets is None else Code(plain=plain, jets=jets)


def train_block(
    configuration: SketchConfiguration,
    steps: list[Step],
    directions: Coefficient,
    *,
    start: int = 0,
    fuse: bool = False,
    on_step: Progress = lambda done, total: None,
) -> dict[str, Jet]:
    """Jets of the trained parameters along some directions.

    Args:
        configuration: what is built.
        steps: the schedule, on the device that is to work.
        directions: planes of shape [K, m], in the precision of training: two of complex directions, one of real axes.
        start: the first step that visits a unit of a direction.
        fuse: whether to compile the optimiser's update into one pass.
        on_step: called with the steps done and all of them.
    """
    device, dtype = steps[0].inputs.device, configuration.torch_dtype
    matrices = ((name, m.to(device, dtype)) for name, m in configuration.model.initial_parameters().items())
    return train(
        configuration.model,
        configuration.training,
        steps,
        constant_jets(matrices, configuration.degree, len(directions), len(directions[0])),
        along_directions(directions),
        start=start,
        fuse=fuse,
        on_step=lambda index: on_step(index + 1, len(steps)),
    )


def block_directions(configuration: SketchConfiguration, block: Block, units: int, device: torch.device) -> Coefficient:
    """The planes of a block's directions, of shape [K, m]."""
    if block.kind == "axes":
        rows = torch.arange(block.start, block.stop, device=device)
        return (one_hot(rows, units).to(configuration.torch_dtype),)
    drawn = directions(configuration.ensemble, configuration.seed, units, block.start, block.stop)
    return planes(drawn, dtype=configuration.torch_dtype, device=device)


def first_step(block: Block, steps: list[Step]) -> int:
    """The first step of the schedule that a block trains in jets, or in many models; those before are ordinary ones."""
    return first_steps(block, steps, together=block.stop - block.start)[0][1]


def first_steps(block: Block, steps: list[Step], *, together: int) -> list[tuple[int, int]]:
    """The same for parts of a block: how many directions each has, and its first step.

    Args:
        block: of any kind.
        steps: the schedule.
        together: directions of a part; the last has what is left.
    """
    parts = [range(at, min(at + together, block.stop)) for at in range(block.start, block.stop, together)]
    if block.kind != "axes":
        return [(len(part), 0) for part in parts]
    visits: dict[int, int] = {}
    for index, step in enumerate(steps):
        visits.setdefault(step.unit, index)
    return [(len(part), min(visits[unit] for unit in part)) for part in parts]


def trained_together(configuration: SketchConfiguration, block: Block, execution: Execution) -> int:
    """How many of a block's directions start at the same step: all of it, or a group of native code."""
    code = code_for(configuration, planes=1 if block.kind == "axes" else 2) if execution.native else None
    return block.stop - block.start if code is None else code.jets.lanes


def block_tensors(
    configuration: SketchConfiguration,
    documents: Documents,
    block: Block,
    device: torch.device,
    execution: Execution,
    *,
    report: Report,
) -> dict[str, Tensor]:
    """Train one block: the tensors of its file.

    Args:
        configuration: what is built.
        documents: in training order.
        block: one of the configuration's blocks.
        device: the device that is to work.
        execution: how it works.
        report: called as the work goes on, with direction·steps.

    Raises:
        ConfigurationError: what was trained isn't finite.
    """
    if block.kind == "retrained":
        return _retrain_sets(configuration, documents, block, device, native=execution.native, report=report)
    steps = schedule(configuration.model, configuration.training, documents, device)
    rows = block_directions(configuration, block, documents.unit_count, device)
    code = code_for(configuration, planes=len(rows)) if execution.native else None
    if code is not None:
        arrays = Schedule.of(configuration.model, configuration.training, steps, configuration.torch_dtype)
        tensors = _named(train_directions(code, arrays, rows, report=report))
    else:
        trained = train_block(
            configuration,
            steps,
            rows,
            start=first_step(block, steps),
            fuse=execution.fused,
            on_step=lambda step, steps: report(block.stop - block.start),
        )
        tensors = coefficients(trained)
    if not all(tensor.isfinite().all() for tensor in tensors.values()):
        raise ConfigurationError(
            "The expansion of training isn't finite along some direction: lower degree, or raise epsilon."
        )
    return tensors


def train_ordinarily(configuration: SketchConfiguration, steps: list[Step], *, native: bool) -> dict[str, Tensor]:
    """The trained parameters of the ordinary run, x = 0."""
    device, dtype, model = steps[0].inputs.device, configuration.torch_dtype, configuration.model
    plain = library(dtype, 0, 1) if native else None
    if plain is not None:
        arrays = Schedule.of(model, configuration.training, steps, dtype)
        units = int(arrays.units.max()) + 1
        return matrices(model, train_models(plain, arrays, torch.ones(1, units, dtype=dtype))[0])
    initial = {name: Jet(matrix.to(device, dtype)) for name, matrix in model.initial_parameters().items()}
    trained = train(model, configuration.training, steps, initial, lambda gradient, unit: gradient)
    return {name: matrix.constant for name, matrix in trained.items()}


def _named(trained: Tensor) -> dict[str, Tensor]:
    """Coefficients [S, planes, K, P] as `coefficients` names them."""
    return {
        f"order{order}.{PLANE_NAMES[plane]}": rows
        for order, planes in enumerate(trained, start=1)
        for plane, rows in enumerate(planes)
    }


def coefficients(trained: dict[str, Jet]) -> dict[str, Tensor]:
    """Higher coefficients of all parameters as tensors [K, P] by name, one an order and plane."""
    first = next(iter(trained.values()))
    return {
        f"order{order}.{PLANE_NAMES[plane]}": torch.cat(
            [parameter.higher[order - 1][plane].flatten(1) for parameter in trained.values()], dim=1
        )
        for order in range(1, first.degree + 1)
        for plane in range(len(first.higher[0]))
    }


def draw_directions(configuration: SketchConfiguration, units: int) -> Tensor:
    """All random directions of a sketch, complex128 of shape [K, m]."""
    return directions(configuration.ensemble, configuration.seed, units, 0, configuration.directions)


def direction_probe(drawn: Tensor) -> list[tuple[float, float]]:
    """A few numbers of the first and the last direction, to tell later whether the same directions are drawn."""
    ends = [0, -1] if len(drawn) else []
    return [(number.real, number.imag) for end in ends for number in drawn[end, :4].tolist()]


def probe_of(configuration: SketchConfiguration, units: int) -> list[tuple[float, float]]:
    """The `direction_probe` of all directions, of which only the first and the last are drawn."""
    count = configuration.directions
    ends = [directions(configuration.ensemble, configuration.seed, units, at, at + 1) for at in (0, count - 1) if count]
    return direction_probe(torch.cat(ends)) if ends else []


def retrained_sets(configuration: SketchConfiguration, documents: Documents) -> list[tuple[int, ...]]:
    """The deletion sets that the model is retrained for: single units, pairs and anchors, in this order."""
    units = documents.unit_count
    sets: list[tuple[int, ...]] = [(unit,) for unit in range(units)]
    if configuration.pairs:
        sets += pairs(units)
    exact = exact_size(pairs=configuration.pairs)
    return sets + anchor_sets(documents, count=configuration.anchors, seed=configuration.seed, exact=exact)


def _retrain_sets(
    configuration: SketchConfiguration,
    documents: Documents,
    block: Block,
    device: torch.device,
    *,
    native: bool,
    report: Report,
) -> dict[str, Tensor]:
    """Parameters of the models without each of a block's deletion sets, and the sets themselves."""
    sets = retrained_sets(configuration, documents)[block.start : block.stop]
    models = retrain(
        documents,
        configuration,
        sets,
        batch=len(sets),
        device=str(device),
        native=native,
        progress=as_progress(report),
    )
    if not all(matrix.isfinite().all() for matrix in models.values()):
        raise ConfigurationError("Retraining without a deletion set diverged. Lower learning_rate or raise epsilon.")
    return {
        "models": torch.cat([matrix.flatten(1) for matrix in models.values()], dim=1),
        "members": torch.tensor([unit for units in sets for unit in units]),
        "sizes": torch.tensor([len(units) for units in sets]),
    }
