"""Sketches resident on the device, and the tables of measurements that were asked before.

A query goes: measurement → table (cached, or one pass over the parameters for all that is asked at that moment) → sums
over the deletion set → `estimate.predict`.
"""

from __future__ import annotations

import dataclasses
import threading
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TypeAlias

import torch
from torch import Tensor

from engine import supplements
from engine.attribution import Attributions, attribute
from engine.batching import Batches
from engine.blocks import PLANE_NAMES, direction_probe, draw_directions
from engine.cache import ByteCache
from engine.configuration import Block, SketchConfiguration
from engine.devices import torch_device
from engine.errors import ArtifactError
from engine.estimate import Prepared, predict, prepare
from engine.frame import Axes, Frame
from engine.held import Held, room
from engine.interpolation import MOST_DIRECTIONS, Interpolation
from engine.measure import Measurement, targets
from engine.model import matrices
from engine.question import Distribution, Prediction, Question, check_units
from engine.store import PARAMETERS, Artifact, open_artifact, read_tensors

_Key: TypeAlias = tuple[str, int | None, Measurement]

TableCache: TypeAlias = ByteCache[_Key, Prepared]
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
        tables: what was measured, and what will be.
    """

    frame: Frame
    sets: list[tuple[int, ...]]
    stamp: int | None
    tables: Batches[_Key, Prepared]

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
        self._tables = table_cache(64 << 20) if tables is None else tables
        self._reading, self._measuring = threading.Lock(), threading.Lock()
        self._built = self._load()
        self._now = self._with_supplement()

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
        built, now = self._built.frame.models, self._now.frame.models
        twice = built.nbytes if built is not None and built is not now else 0  # once more, with what came later
        return self._now.frame.size_bytes + twice

    def table(self, measurement: Measurement) -> Prepared:
        """What is known of a measurement, made once.

        Raises:
            TextLengthError, UnknownCharacterError: the text can't be measured.
        """
        [prepared] = self._prepared(self._current(), [measurement])
        return prepared

    def warm(self) -> None:
        """Make now what the first question would wait for: all that measurements share. By measuring something."""
        prepare([Measurement(kind="next_token")], self.frame)  # of an empty prompt, which any sketch can tell

    def knows(self, measurements: Sequence[Measurement]) -> bool:
        """Whether all of them were measured already, so that an answer takes no time; it never waits."""
        stamp = supplements.stamp(self.artifact)
        return all((self.artifact.checksum, stamp, one) in self._tables for one in measurements)

    def attribute(
        self, measurement: Measurement, *, top: int, confidence: float, left_out: Collection[int] = ()
    ) -> Attributions:
        """The units whose deletion changes a measurement most; those that are left out aren't named.

        Raises:
            QuestionError: of the kind that says what can't be answered.
        """
        now = self._current()
        [prepared] = self._prepared(now, [measurement])
        return attribute(prepared, now.frame, top=top, confidence=confidence, left_out=left_out)

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
        now, members = self._current(), tuple(sorted(units))
        deleted, row = now.frame.one_set(members), now.rows.get(members)
        return [
            predict(prepared, now.frame, deleted, question, retrained=row)
            for prepared in self._prepared(now, measurements)
        ]

    def retrained_model(self, units: Sequence[int]) -> dict[str, Tensor] | None:
        """Parameter matrices of the model that was retrained without a deletion set, if one was."""
        now = self._current()
        row = now.rows.get(tuple(sorted(units)))
        if row is None or now.frame.models is None:
            return None
        return matrices(self.configuration.model, now.frame.models.rows([row])[0])

    def _prepared(self, now: _State, measurements: Sequence[Measurement]) -> list[Prepared]:
        """What is known of some measurements: from the cache, or made together, with those of concurrent questions."""
        keys = [(self.artifact.checksum, now.stamp, measurement) for measurement in measurements]
        for key in keys:
            if key not in self._tables:
                targets(key[-1], self.configuration.model)  # what can't be measured must not spoil a batch
        return now.tables.get(keys)

    def look_again(self) -> None:
        """Let go of models that were retrained later, and are no longer beside the artifact."""
        self._current()

    def _current(self) -> _State:
        """The state with what was retrained up to now: one look at the disk, where nothing is new."""
        if self._now.stamp != supplements.stamp(self.artifact):
            with self._reading:  # once for all who notice
                if self._now.stamp != supplements.stamp(self.artifact):
                    self._now = self._with_supplement()  # states don't change: who has the one before may go on
        return self._now

    def _with_supplement(self) -> _State:
        """What was built, and the models retrained later: exact answers, and further anchors where there are axes."""
        stamp, built = supplements.stamp(self.artifact), self._built
        found = supplements.read(self.artifact)
        new = [number for number, units in enumerate(found.sets) if units not in built.rows]
        if not new:
            return self._state(built.frame, built.sets, stamp)
        sets = [found.sets[number] for number in new]
        frame, axes = built.frame, built.frame.axes
        if axes is not None:
            anchors = _indicators(sets, self.unit_count).to(self.device)
            axes = dataclasses.replace(axes, anchors=torch.cat([axes.anchors, anchors]))
        models = self._room(len(built.sets) + len(sets))
        if frame.models is not None:
            models.put(0, frame.models.rows())
        models.put(len(built.sets), found.models[new])
        frame = dataclasses.replace(frame, axes=axes, models=models)
        return self._state(frame, [*built.sets, *sets], stamp)

    def _state(self, frame: Frame, sets: list[tuple[int, ...]], stamp: int | None) -> _State:
        def make(keys: list[_Key]) -> list[Prepared]:
            return prepare([measurement for _, _, measurement in keys], frame)

        return _State(frame=frame, sets=sets, stamp=stamp, tables=Batches(self._tables, make, making=self._measuring))

    def _load(self) -> _State:
        """What the artifact holds."""
        configuration, path = self.configuration, self.artifact.path
        model, units = configuration.model, self.unit_count
        psi = self._draw_directions()
        try:
            constants = read_tensors(path / PARAMETERS)
            # A copy, as everything that is kept: what is mapped changes with the file, and ends the process where that
            # is cut off.
            constant = torch.cat([constants[f"trained.{name}"].flatten() for name in model.shapes]).to(self.device)
            trained = matrices(model, constant)
            along_directions = along_axes = models = None
            if configuration.directions:
                along_directions = self._room(configuration.directions, constant, planes=2)
            if configuration.axes:
                along_axes = self._room(units, constant, planes=1)
                models = self._room(configuration.retrained(units))
            rooms = {"directions": along_directions, "axes": along_axes, "retrained": models}
            sets: list[tuple[int, ...]] = []
            for block in configuration.blocks(units):
                tensors, held = read_tensors(path / block.file), rooms[block.kind]
                assert held is not None  # there are no other blocks than what there is room for
                sets += _fill(held, block, tensors, configuration.degree)
        except (KeyError, RuntimeError) as error:
            raise ArtifactError("The tensors don't fit the manifest.") from error
        axes = None
        if along_axes is not None and models is not None:
            singles = models.rows(range(units)).double()
            singles = singles - singles.mean(dim=0)
            anchors = _indicators(sets[len(sets) - configuration.anchors :], units).to(self.device)
            axes = Axes(parameters=along_axes, pairs=configuration.pairs, kinship=singles @ singles.T, anchors=anchors)
        interpolated = axes is not None and 0 < configuration.directions <= MOST_DIRECTIONS
        frame = Frame(
            model=model,
            units=units,
            degree=configuration.degree,
            ensemble=configuration.ensemble,
            directions=psi,
            trained=trained,
            parameters=along_directions,
            models=models,
            axes=axes,
            interpolation=Interpolation(psi.to(torch.complex128), configuration.degree) if interpolated else None,
        )
        return self._state(frame, sets, None)

    def _room(self, count: int, constant: Tensor | None = None, *, planes: int = 1) -> Held:
        """Room for jets with these constants, or for plain models."""
        configuration = self.configuration
        return room(
            configuration.model,
            count,
            dtype=configuration.torch_dtype,
            device=self.device,
            degree=0 if constant is None else configuration.degree,
            planes=planes,
            constant=constant,
        )

    def _draw_directions(self) -> Tensor:
        configuration = self.configuration
        rows = draw_directions(configuration, self.unit_count)
        for drawn, stored in zip(direction_probe(rows), self.artifact.manifest.direction_probe, strict=True):
            if abs(complex(*drawn) - complex(*stored)) > _PROBE_TOLERANCE:
                raise ArtifactError("This installation draws other directions than the one that built the sketch.")
        return rows.to(self.device, torch.complex64 if configuration.dtype == "float32" else torch.complex128)


def _fill(held: Held, block: Block, tensors: dict[str, Tensor], degree: int) -> list[tuple[int, ...]]:
    """Put what a block's file holds where it belongs; the deletion sets of its retrained models."""
    if block.kind == "retrained":
        _check(tensors["models"], block)
        held.put(block.start, tensors["models"])
        sizes: list[int] = tensors["sizes"].tolist()
        return [tuple(units.tolist()) for units in torch.split(tensors["members"], sizes)]
    planes = PLANE_NAMES if block.kind == "directions" else PLANE_NAMES[:1]
    for order in range(1, degree + 1):
        for number, name in enumerate(planes):
            rows = tensors[f"order{order}.{name}"]
            _check(rows, block)
            held.put(block.start, rows, order=order, plane=number)
    return []


def _check(rows: Tensor, block: Block) -> None:
    if len(rows) != block.stop - block.start:
        raise ArtifactError("The tensors don't fit the manifest.")


def _indicators(sets: Sequence[tuple[int, ...]], units: int) -> Tensor:
    """Deletion sets as rows of zeros and ones, float64 of shape [B, m]."""
    rows = torch.zeros(len(sets), units, dtype=torch.float64)
    for row, members in zip(rows, sets, strict=True):
        row[list(members)] = 1
    return rows
