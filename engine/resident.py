"""Sketches resident on the device, and the tables of measurements that were asked before.

A query goes: measurement → table (cached, or one batched inference in the ring) → <ψ_j, 1_D> by gathering columns →
`estimate.predict`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TypeAlias

import torch
from torch import Tensor

from engine import supplements
from engine.attribution import Attributions, attribute
from engine.cache import ByteCache
from engine.configuration import Block, SketchConfiguration
from engine.devices import torch_device
from engine.directions import directions
from engine.errors import ArtifactError
from engine.estimate import Prepared, predict, prepare
from engine.frame import Axes, Frame
from engine.interpolation import MOST_DIRECTIONS, Interpolation
from engine.jet import Jet
from engine.measure import Measurement
from engine.model import matrices as flat_matrices
from engine.question import Distribution, Prediction, Question, check_units
from engine.sketch import PLANE_NAMES, direction_probe
from engine.store import PARAMETERS, Artifact, open_artifact, read_tensors

TableCache: TypeAlias = ByteCache[tuple[str, int | None, Measurement], Prepared]
"""Tables with their calibration, by the artifact's checksum, its supplement's stamp, and the measurement."""

_PROBE_TOLERANCE = 1e-9


def table_cache(budget: int) -> TableCache:
    """A cache of tables of at most `budget` bytes; the least recently used go first."""
    return ByteCache(budget, size=lambda table: table.size_bytes)


@dataclass(frozen=True, kw_only=True)
class _State:
    """What is in memory; never changed, but replaced.

    Attributes:
        frame: what all measurements share.
        sets: deletion sets of the retrained models, in their order.
        stamp: of the supplement, as it was read.
    """

    frame: Frame
    sets: list[tuple[int, ...]]
    stamp: int | None

    @cached_property
    def rows(self) -> dict[tuple[int, ...], int]:
        """Where the model without a deletion set is."""
        return {units: row for row, units in enumerate(self.sets)}


class ResidentSketch:
    """A sketch in the device's memory, ready to answer. Safe to use from several threads."""

    def __init__(self, artifact: Artifact, *, device: str = "cpu", tables: TableCache | None = None) -> None:
        """Load an opened artifact.

        Args:
            artifact: from `open_artifact`.
            device: "cpu", or a CUDA device.
            tables: cache of measurement tables, which sketches may share; by default one of its own.

        Raises:
            ArtifactError: its tensors don't fit its manifest, or its directions can't be drawn again.
        """
        self.artifact = artifact
        self.device = torch_device(device)
        self._built = self._load()
        self._now = self._with_supplement()
        self._tables = table_cache(64 << 20) if tables is None else tables

    @classmethod
    def open(cls, path: Path, *, checksum: str | None = None, device: str = "cpu") -> ResidentSketch:
        """Verify and load the artifact of a directory.

        Raises:
            ArtifactError: as `open_artifact` and the constructor.
        """
        return cls(open_artifact(path, checksum=checksum), device=device)

    @property
    def configuration(self) -> SketchConfiguration:
        """What the sketch is."""
        return self.artifact.manifest.configuration

    @property
    def frame(self) -> Frame:
        """What all measurements share."""
        return self._current().frame

    @property
    def retrained_sets(self) -> list[tuple[int, ...]]:
        """Deletion sets that the model was retrained without, in the order of `Frame.models`."""
        return self._current().sets

    @property
    def unit_count(self) -> int:
        """The number of units, m."""
        return self.artifact.manifest.plan.source.units

    @property
    def size_bytes(self) -> int:
        """Memory of coefficients, retrained models and directions, and what is kept of them for the anchors."""
        return self._now.frame.size_bytes

    def table(self, measurement: Measurement) -> Prepared:
        """What is known of a measurement, made once.

        Raises:
            TextLengthError, UnknownCharacterError: the text can't be measured.
        """
        return self._table(self._current(), measurement)

    def attribute(self, measurement: Measurement, *, top: int, confidence: float) -> Attributions:
        """The units whose deletion changes a measurement most.

        Raises:
            QuestionError: of the kind that says what can't be answered.
        """
        now = self._current()
        return attribute(self._table(now, measurement), now.frame, top=top, confidence=confidence)

    def predict(
        self, measurements: Sequence[Measurement], units: Sequence[int], question: Question
    ) -> list[Prediction | Distribution]:
        """Answer for one deletion set, one prediction a measurement.

        Args:
            measurements: what to measure.
            units: the deletion set D, unit numbers.
            question: estimator, degree, downweights, confidence.

        Raises:
            QuestionError: of the kind that says what can't be answered.
        """
        check_units(units, self.unit_count)
        now = self._current()
        deleted = now.frame.one_set(torch.tensor(sorted(units), device=self.device))
        row = now.rows.get(tuple(sorted(units)))
        return [
            predict(self._table(now, measurement), now.frame, deleted, question, retrained=row)
            for measurement in measurements
        ]

    def retrained_model(self, units: Sequence[int]) -> dict[str, Tensor] | None:
        """Parameter matrices of the model that was retrained without a deletion set, if one was."""
        now = self._current()
        row = now.rows.get(tuple(sorted(units)))
        return None if row is None else {name: models[row] for name, models in now.frame.models.items()}

    def _table(self, now: _State, measurement: Measurement) -> Prepared:
        key = (self.artifact.checksum, now.stamp, measurement)
        return self._tables.get(key, lambda: prepare(measurement, now.frame))

    def _current(self) -> _State:
        """The state with what was retrained up to now: one look at the disk, where nothing is new."""
        if self._now.stamp != supplements.stamp(self.artifact):
            self._now = self._with_supplement()  # states don't change, so that threads may use the one before
        return self._now

    def _with_supplement(self) -> _State:
        """What was built, and the models retrained later: exact answers, and further anchors where there are axes."""
        stamp, built = supplements.stamp(self.artifact), self._built
        found = supplements.read(self.artifact)
        new = [number for number, units in enumerate(found.sets) if units not in built.rows]
        if not new:
            return dataclasses.replace(built, stamp=stamp)
        matrices = flat_matrices(self.configuration.model, found.models[new].to(self.device))
        sets = [found.sets[number] for number in new]
        frame, axes = built.frame, built.frame.axes
        if axes is not None:
            anchors = _indicators(sets, self.unit_count).to(self.device)
            axes = dataclasses.replace(axes, anchors=torch.cat([axes.anchors, anchors]))
        models = {
            name: torch.cat([frame.models[name], matrix]) if frame.models else matrix
            for name, matrix in matrices.items()
        }
        return _State(
            frame=dataclasses.replace(frame, axes=axes, models=models), sets=[*built.sets, *sets], stamp=stamp
        )

    def _load(self) -> _State:
        """What the artifact holds."""
        configuration, path = self.configuration, self.artifact.path
        slices = _slices(configuration.model.shapes)
        constants = read_tensors(path / PARAMETERS)
        files: dict[str, list[tuple[Block, dict[str, Tensor]]]] = {"axes": [], "directions": [], "retrained": []}
        for block in configuration.blocks(self.unit_count):
            files[block.kind].append((block, read_tensors(path / block.file)))
        psi = self._draw_directions()
        axes, sets, retrained = None, [], {}
        try:
            trained = {name: constants[f"trained.{name}"].to(self.device) for name in slices}

            def jets(kind: str, planes: tuple[str, ...]) -> dict[str, Jet]:
                orders = [
                    tuple(self._gathered(files[kind], f"order{order}.{plane}") for plane in planes)
                    for order in range(1, configuration.degree + 1)
                    if files[kind]
                ]
                return {
                    name: Jet(
                        trained[name],
                        tuple(tuple(plane[:, where].view(-1, *shape) for plane in planes) for planes in orders),
                    )
                    for name, (where, shape) in slices.items()
                }

            along_directions = jets("directions", PLANE_NAMES)
            if configuration.axes:
                models = self._gathered(files["retrained"], "models")
                singles = models[: self.unit_count].double()
                singles = singles - singles.mean(dim=0)
                members = torch.cat([tensors["members"] for _, tensors in files["retrained"]])
                sizes = torch.cat([tensors["sizes"] for _, tensors in files["retrained"]])
                retrained = {name: models[:, where].view(-1, *shape) for name, (where, shape) in slices.items()}
                sets = [tuple(units.tolist()) for units in torch.split(members, sizes.tolist())]
                axes = Axes(
                    parameters=jets("axes", PLANE_NAMES[:1]),
                    pairs=configuration.pairs,
                    kinship=singles @ singles.T,
                    anchors=_indicators(sets[len(sets) - configuration.anchors :], self.unit_count).to(self.device),
                )
        except (KeyError, RuntimeError) as error:
            raise ArtifactError("The tensors don't fit the manifest.") from error
        interpolated = axes is not None and 0 < configuration.directions <= MOST_DIRECTIONS
        frame = Frame(
            model=configuration.model,
            units=self.unit_count,
            degree=configuration.degree,
            ensemble=configuration.ensemble,
            directions=psi,
            parameters=along_directions,
            models=retrained,
            axes=axes,
            interpolation=Interpolation(psi.to(torch.complex128), configuration.degree) if interpolated else None,
        )
        return _State(frame=frame, sets=sets, stamp=None)

    def _gathered(self, files: list[tuple[Block, dict[str, Tensor]]], name: str) -> Tensor:
        """A tensor [count, P] from its blocks, filled on the device without a second copy."""
        shape = (files[-1][0].stop, self.configuration.model.parameter_count)
        whole = torch.empty(shape, dtype=self.configuration.torch_dtype, device=self.device)
        for block, tensors in files:
            whole[block.start : block.stop] = tensors[name]
        return whole

    def _draw_directions(self) -> Tensor:
        configuration = self.configuration
        for drawn, stored in zip(
            direction_probe(configuration, self.unit_count), self.artifact.manifest.direction_probe, strict=True
        ):
            if abs(complex(*drawn) - complex(*stored)) > _PROBE_TOLERANCE:
                raise ArtifactError("This installation draws other directions than the one that built the sketch.")
        rows = directions(configuration.ensemble, configuration.seed, self.unit_count, 0, configuration.directions)
        return rows.to(self.device, torch.complex64 if configuration.dtype == "float32" else torch.complex128)


def _slices(shapes: dict[str, tuple[int, int]]) -> dict[str, tuple[slice, tuple[int, int]]]:
    """Where each matrix lies in a flat row of all parameters."""
    places, start = {}, 0
    for name, (rows, columns) in shapes.items():
        places[name] = (slice(start, start + rows * columns), (rows, columns))
        start += rows * columns
    return places


def _indicators(sets: Sequence[tuple[int, ...]], units: int) -> Tensor:
    """Deletion sets as rows of zeros and ones, float64 of shape [B, m]."""
    rows = torch.zeros(len(sets), units, dtype=torch.float64)
    for row, members in zip(rows, sets, strict=True):
        row[list(members)] = 1
    return rows
