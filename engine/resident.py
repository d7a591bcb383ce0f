"""Sketches resident on the device, and the tables of measurements that were asked before.

A query goes: measurement → table (cached, or one batched inference in the ring) → <ψ_j, 1_D> by gathering columns →
`estimate.predict`.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TypeAlias

import torch
from torch import Tensor

from engine.cache import ByteCache
from engine.configuration import SketchConfiguration
from engine.directions import directions, overlaps
from engine.errors import ArtifactError
from engine.estimate import Prediction, Question, check_units, predict
from engine.jet import Jet
from engine.measure import Measurement, Table, tabulate
from engine.sketch import PLANE_NAMES, block_file, direction_probe, torch_device
from engine.store import PARAMETERS, Artifact, open_artifact, read_tensors

TableCache: TypeAlias = ByteCache[tuple[str, Measurement], Table]
"""Tables by the artifact's checksum and the measurement."""

_PROBE_TOLERANCE = 1e-9


def table_cache(budget: int) -> TableCache:
    """A cache of tables of at most `budget` bytes; the least recently used go first."""
    return ByteCache(budget, size=lambda table: table.size_bytes)


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
        self.parameters = self._load_parameters()
        self.directions = self._draw_directions()
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
    def unit_count(self) -> int:
        """M."""
        return self.artifact.manifest.plan.source.units

    @property
    def size_bytes(self) -> int:
        """Memory of coefficients and directions."""
        planes = [p for jet in self.parameters.values() for coefficient in jet.coefficients for p in coefficient]
        return sum(tensor.nbytes for tensor in (*planes, self.directions))

    def table(self, measurement: Measurement) -> Table:
        """The table of a measurement, made once.

        Raises:
            TextLengthError, UnknownCharacterError: the text can't be measured.
        """
        key = (self.artifact.checksum, measurement)
        return self._tables.get(key, lambda: tabulate(measurement, self.configuration.model, self.parameters))

    def predict(
        self, measurements: Sequence[Measurement], units: Sequence[int], question: Question
    ) -> list[Prediction]:
        """Answer for one deletion set, one prediction a measurement.

        Args:
            measurements: what to measure.
            units: the deletion set D, unit numbers.
            question: degree, downweights, confidence.

        Raises:
            QuestionError: of the kind that says what can't be answered.
        """
        check_units(units, self.unit_count)
        tables = [self.table(measurement) for measurement in measurements]
        columns = torch.tensor(sorted(units), device=self.device)
        return [
            predict(
                table,
                overlaps(self.directions, columns),
                units=self.unit_count,
                deleted=len(units),
                ensemble=self.configuration.ensemble,
                question=question,
            )
            for table in tables
        ]

    def _load_parameters(self) -> dict[str, Jet]:
        configuration, path = self.configuration, self.artifact.path
        constants = read_tensors(path / PARAMETERS)
        shape = (configuration.directions, configuration.model.parameter_count)
        orders = [
            tuple(torch.empty(shape, dtype=configuration.torch_dtype, device=self.device) for _ in PLANE_NAMES)
            for _ in range(configuration.degree)
        ]
        try:
            for number, (start, stop) in enumerate(configuration.blocks):
                block = read_tensors(path / block_file(number))
                for order, planes in enumerate(orders, start=1):
                    for plane, name in zip(planes, PLANE_NAMES, strict=True):
                        plane[start:stop] = block[f"order{order}.{name}"]
            trained = {name: constants[f"trained.{name}"].to(self.device) for name in configuration.model.shapes}
        except (KeyError, RuntimeError) as error:
            raise ArtifactError("The tensors don't fit the manifest.") from error
        return {
            name: Jet(
                trained[name],
                tuple(tuple(plane[:, where].view(-1, *shape) for plane in planes) for planes in orders),
            )
            for name, (where, shape) in _slices(configuration.model.shapes).items()
        }

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
