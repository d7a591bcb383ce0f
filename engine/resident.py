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

from engine.axes import Anchors
from engine.cache import ByteCache
from engine.configuration import Block, SketchConfiguration
from engine.devices import torch_device
from engine.directions import directions, overlaps
from engine.errors import ArtifactError
from engine.estimate import Prediction, Question, check_units, predict
from engine.jet import Jet
from engine.measure import Measurement, Table, tabulate
from engine.sketch import PLANE_NAMES, direction_probe
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
        self.parameters, self.axes, self.anchors = self._load()
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
        """The number of units, m."""
        return self.artifact.manifest.plan.source.units

    @property
    def size_bytes(self) -> int:
        """Memory of coefficients, anchors and directions."""
        jets = [*self.parameters.values(), *(self.axes or {}).values()]
        planes = [plane for jet in jets for coefficient in jet.coefficients for plane in coefficient]
        models = [] if self.anchors is None else self.anchors[1].values()
        return sum(tensor.nbytes for tensor in (*planes, *models, self.directions))

    def table(self, measurement: Measurement) -> Table:
        """The table of a measurement, made once.

        Raises:
            TextLengthError, UnknownCharacterError: the text can't be measured.
        """
        key = (self.artifact.checksum, measurement)
        return self._tables.get(
            key,
            lambda: tabulate(
                measurement, self.configuration.model, self.parameters, axes=self.axes, anchors=self.anchors
            ),
        )

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
        overlap = overlaps(self.directions, columns)
        return [
            predict(
                table,
                columns,
                overlap,
                units=self.unit_count,
                ensemble=self.configuration.ensemble,
                question=question,
            )
            for table in tables
        ]

    def anchor_sets(self) -> list[tuple[int, ...]]:
        """The deletion sets that axes' bars were calibrated on."""
        if self.anchors is None:
            return []
        sets = self.anchors[0]
        sizes = torch.bincount(sets.owners, minlength=sets.count).tolist()
        return [tuple(units.tolist()) for units in torch.split(sets.members, sizes)]

    def _load(self) -> tuple[dict[str, Jet], dict[str, Jet] | None, tuple[Anchors, dict[str, Tensor]] | None]:
        """Jets along the directions, jets along the axes, and the anchors with their models."""
        configuration, path = self.configuration, self.artifact.path
        slices = _slices(configuration.model.shapes)
        constants = read_tensors(path / PARAMETERS)
        files: dict[str, list[tuple[Block, dict[str, Tensor]]]] = {"axes": [], "directions": [], "anchors": []}
        for block in configuration.blocks(self.unit_count):
            files[block.kind].append((block, read_tensors(path / block.file)))
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
            if not configuration.axes:
                return along_directions, None, None
            models = self._gathered(files["anchors"], "models")
            sizes = torch.cat([tensors["sizes"] for _, tensors in files["anchors"]])
            anchors = Anchors(
                members=torch.cat([tensors["members"] for _, tensors in files["anchors"]]).to(self.device),
                owners=torch.repeat_interleave(torch.arange(len(sizes)), sizes).to(self.device),
                count=len(sizes),
            )
            of_anchors = {name: models[:, where].view(-1, *shape) for name, (where, shape) in slices.items()}
            return along_directions, jets("axes", PLANE_NAMES[:1]), (anchors, of_anchors)
        except (KeyError, RuntimeError) as error:
            raise ArtifactError("The tensors don't fit the manifest.") from error

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
