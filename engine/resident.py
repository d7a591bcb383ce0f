"""Sketches resident on the device, and the tables of measurements that were asked before.

A query goes: measurement → table (cached, or one pass over the parameters for all that is asked at that moment) → sums
over the deletion set → `estimate.predict`.
"""

from __future__ import annotations

import dataclasses
import threading
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Final, TypeAlias

import torch
from torch import Tensor

from engine import supplements
from engine.anchors import exact_size, telling
from engine.attribution import Attributions, attribute
from engine.batching import Batches
from engine.blocks import direction_probe, draw_directions
from engine.cache import ByteCache
from engine.configuration import FEWEST_ANCHORS, SketchConfiguration
from engine.devices import torch_device
from engine.errors import ArtifactError, ShardLostError
from engine.estimate import Prepared, predict, prepare
from engine.frame import Axes, Frame
from engine.held import room
from engine.holdings import Extended, Holdings, hold
from engine.interpolation import MOST_DIRECTIONS, Interpolation
from engine.measure import Measurement, targets
from engine.model import matrices
from engine.question import Distribution, Prediction, Question, check_units
from engine.reliability import Reliability, reliability
from engine.store import PARAMETERS, Artifact, open_artifact, read_tensors

_Key: TypeAlias = tuple[str, int | None, tuple[range, ...], Measurement]

TableCache: TypeAlias = ByteCache[_Key, Prepared]
"""Tables with their calibration, by the artifact's checksum, its supplement's stamp, the directions that were measured
along, and the measurement."""

_TRIES: Final = 3
"""Of a measurement whose shards go away meanwhile: those that are left are asked again."""

_PROBE_TOLERANCE = 1e-9


def table_cache(budget: int) -> TableCache:
    """A cache of tables of at most `budget` bytes; the least recently used go first."""
    return ByteCache(budget, size=lambda table: table.size_bytes)


@dataclass(frozen=True, kw_only=True)
class _State:
    """What is in memory; never changed, but replaced.

    Attributes:
        frame: what all measurements share.
        holdings: what is measured.
        stamp: of the supplement, as it was read.
        tables: what was measured, and what will be.
    """

    frame: Frame
    holdings: Holdings
    stamp: int | None
    tables: Batches[_Key, Prepared]

    @cached_property
    def rows(self) -> dict[tuple[int, ...], int]:
        """Where the model without a deletion set is."""
        return {units: row for row, units in enumerate(self.holdings.sets)}


class ResidentSketch:
    """A sketch in the device's memory, ready to answer. Safe to use from several threads."""

    def __init__(
        self,
        artifact: Artifact,
        *,
        device: str = "cpu",
        tables: TableCache | None = None,
        holdings: Holdings | None = None,
    ) -> None:
        """Load an opened artifact.

        Args:
            artifact: from `open_artifact`.
            device: "cpu", or a CUDA device.
            tables: cache of measurement tables, which sketches may share; by default one of its own.
            holdings: what is measured, where others hold it; by default it is read into the device's memory.

        Raises:
            ArtifactError: its tensors don't fit its manifest, or its directions can't be drawn again.
            ShardLostError, ShardsAwayError: of the holdings.
        """
        self.artifact = artifact
        self.device = torch_device(device)
        self._tables = table_cache(64 << 20) if tables is None else tables
        self._reading, self._measuring = threading.Lock(), threading.Lock()
        self._built = self._load(hold(artifact, device=self.device) if holdings is None else holdings)
        self._now = self._with_supplement()
        self._left: tuple[_State, _State] | None = None  # a state, and what is left of it while shards are away

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
    def retrained_sets(self) -> Sequence[tuple[int, ...]]:
        """Deletion sets that the model was retrained without, in the order of the frame's models."""
        return self._current().holdings.sets

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
            ShardsAwayError: as `predict`.
        """
        [(_, prepared)] = self._prepared([measurement])
        return prepared

    def warm(self) -> None:
        """Make now what the first question would wait for: all that measurements share. By measuring something.

        Raises:
            ShardLostError, ShardsAwayError: of the holdings.
        """
        # The next token after an empty prompt, which any sketch can tell.
        prepare([Measurement(kind="next_token")], self._available(self._current()).frame)

    def knows(self, measurements: Sequence[Measurement]) -> bool:
        """Whether all of them were measured already, so that an answer takes no time; it never waits."""
        return self._knows(supplements.stamp(self.artifact), measurements)

    def attribute(
        self, measurement: Measurement, *, top: int, confidence: float, left_out: Collection[int] = ()
    ) -> Attributions:
        """The units whose deletion changes a measurement most; those that are left out aren't named.

        Raises:
            QuestionError: of the kind that says what can't be answered.
            ShardsAwayError: as `predict`.
        """
        [(now, prepared)] = self._prepared([measurement])
        return attribute(prepared, now.frame, top=top, confidence=confidence, left_out=left_out)

    def reliability(
        self, measurement: Measurement, *, confidence: float, go_on: Callable[[], None] = lambda: None
    ) -> Reliability:
        """How right answers about a measurement would have been where the model was really retrained.

        Args:
            measurement: one that is a number.
            confidence: of the intervals.
            go_on: called again and again meanwhile; what it raises ends the work.

        Raises:
            QuestionError: of the kind that says what can't be answered.
            ShardsAwayError: as `predict`.
        """
        [(now, prepared)] = self._prepared([measurement])
        return reliability(prepared, now.frame, confidence=confidence, go_on=go_on)

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
            ShardsAwayError: too much of the sketch is away.
        """
        check_units(units, self.unit_count)
        members, found = tuple(sorted(units)), self._prepared(measurements)
        deleted = {id(now): now.frame.one_set(members) for now, _ in found}
        return [
            predict(prepared, now.frame, deleted[id(now)], question, retrained=now.rows.get(members))
            for now, prepared in found
        ]

    def retrained_model(self, units: Sequence[int]) -> dict[str, Tensor] | None:
        """Parameter matrices of the model that was retrained without a deletion set, if one was.

        Raises:
            ShardLostError, ShardsAwayError: it is away.
        """
        now = self._current()
        row = now.rows.get(tuple(sorted(units)))
        return None if row is None else matrices(self.configuration.model, now.holdings.models([row])[0])

    def _prepared(self, measurements: Sequence[Measurement]) -> list[tuple[_State, Prepared]]:
        """What is known of some measurements, each with the state that it was made in.

        From the cache, or made together, with those of concurrent questions. While shards are away, what was measured
        before they went is as good as ever; other measurements are made along what is left.
        """
        for left in reversed(range(_TRIES)):
            now = self._current()
            known = [one for one in measurements if self._knows(now.stamp, [one])]
            new = [one for one in measurements if one not in known]
            for one in new:
                targets(one, self.configuration.model)  # what can't be measured must not spoil a batch
            try:
                found = self._made(now, known)
                if new:
                    found |= self._made(self._available(now), new)
            except ShardLostError:
                if not left:
                    raise
            else:
                return [found[one] for one in measurements]
        raise AssertionError("the last try returns or raises")

    def _made(self, state: _State, measurements: Sequence[Measurement]) -> dict[Measurement, tuple[_State, Prepared]]:
        """What is known of some measurements in a state, from the cache or made."""
        parts = state.holdings.parts
        prepared = state.tables.get([(self.artifact.checksum, state.stamp, parts, one) for one in measurements])
        return {one: (state, known) for one, known in zip(measurements, prepared, strict=True)}

    def _knows(self, stamp: int | None, measurements: Sequence[Measurement]) -> bool:
        checksum, parts = self.artifact.checksum, self._built.holdings.parts
        return all((checksum, stamp, parts, one) in self._tables for one in measurements)

    def _available(self, state: _State) -> _State:
        """A state, or what is left of it while shards are away."""
        holdings = state.holdings.available()
        if holdings is state.holdings:
            self._left = None
            return state
        left = self._left
        if left is None or left[0] is not state or left[1].holdings.parts != holdings.parts:
            total = self.configuration.directions
            kept = [number for part in holdings.parts for number in part]
            frame = dataclasses.replace(
                state.frame,
                directions=state.frame.directions[kept],
                holdings=holdings,
                missing_share=1 - len(kept) / total,
            )
            left = self._left = (state, self._state(frame, holdings, state.stamp))
        return left[1]

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
            return self._state(built.frame, built.holdings, stamp)
        sets = [found.sets[number] for number in new]
        axes = built.frame.axes
        if axes is not None:
            anchors = _indicators(sets, self.unit_count).to(self.device)
            first = len(built.holdings.sets)
            axes = dataclasses.replace(
                axes,
                anchors=torch.cat([axes.anchors, anchors]),
                models=(*axes.models, *range(first, first + len(sets))),
                later=len(sets),
            )
        configuration = self.configuration
        later = room(configuration.model, len(new), dtype=configuration.torch_dtype, device=self.device)
        later.put(0, found.models[new])
        holdings = Extended(built=built.holdings, later=later, later_sets=sets)
        return self._state(dataclasses.replace(built.frame, axes=axes, holdings=holdings), holdings, stamp)

    def _state(self, frame: Frame, holdings: Holdings, stamp: int | None) -> _State:
        def make(keys: list[_Key]) -> list[Prepared]:
            return prepare([measurement for *_, measurement in keys], frame)

        tables = Batches(self._tables, make, making=self._measuring)
        return _State(frame=frame, holdings=holdings, stamp=stamp, tables=tables)

    def _load(self, holdings: Holdings) -> _State:
        """What the artifact holds."""
        configuration, units = self.configuration, self.unit_count
        psi = self._draw_directions()
        try:
            constants = read_tensors(self.artifact.path / PARAMETERS)
            trained = {  # copies, as everything that is kept
                name: constants[f"trained.{name}"].to(self.device, copy=True).reshape(shape)
                for name, shape in configuration.model.shapes.items()
            }
        except (KeyError, RuntimeError) as error:
            raise ArtifactError("The tensors don't fit the manifest.") from error
        axes = None
        if configuration.axes:
            singles = holdings.models(range(units)).double()
            singles -= singles.mean(dim=0)
            first = len(holdings.sets) - configuration.anchors
            chosen = telling(holdings.sets[first:], exact=exact_size(pairs=configuration.pairs))
            if len(chosen) < FEWEST_ANCHORS:  # of a handful of units, or as an earlier release drew them: what there is
                chosen = list(range(configuration.anchors))
            axes = Axes(
                pairs=configuration.pairs,
                kinship=singles @ singles.T,
                anchors=_indicators([holdings.sets[first + number] for number in chosen], units).to(self.device),
                models=tuple(first + number for number in chosen),
            )
        interpolated = axes is not None and 0 < configuration.directions <= MOST_DIRECTIONS
        frame = Frame(
            model=configuration.model,
            units=units,
            degree=configuration.degree,
            ensemble=configuration.ensemble,
            directions=psi,
            trained=trained,
            holdings=holdings,
            axes=axes,
            interpolation=Interpolation(psi.to(torch.complex128), configuration.degree) if interpolated else None,
        )
        return self._state(frame, holdings, None)

    def _draw_directions(self) -> Tensor:
        configuration = self.configuration
        rows = draw_directions(configuration, self.unit_count)
        for drawn, stored in zip(direction_probe(rows), self.artifact.manifest.direction_probe, strict=True):
            if abs(complex(*drawn) - complex(*stored)) > _PROBE_TOLERANCE:
                raise ArtifactError("This installation draws other directions than the one that built the sketch.")
        return rows.to(self.device, torch.complex64 if configuration.dtype == "float32" else torch.complex128)


def _indicators(sets: Sequence[tuple[int, ...]], units: int) -> Tensor:
    """Deletion sets as rows of zeros and ones, float64 of shape [B, m]."""
    rows = torch.zeros(len(sets), units, dtype=torch.float64)
    for row, members in zip(rows, sets, strict=True):
        row[list(members)] = 1
    return rows
