"""The engine seen from the web: which sketches are resident, and questions put to them.

It knows no rows and no HTTP, and touches no tensor. Safe to use from several threads.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

from engine import supplements
from engine.attribution import Attributions
from engine.cache import ByteCache
from engine.copies import Address
from engine.counterfactual import ModelSource, counterfactual_model, draw_texts, save_model, trained_model
from engine.errors import ArtifactError, ShardsAwayError, StoreError
from engine.estimators import EstimatorName
from engine.measure import Measurement, targets
from engine.question import Distribution, Prediction, Question
from engine.reliability import Reliability
from engine.resident import ResidentSketch, table_cache
from engine.shards import Shards
from engine.sphere import Average
from engine.store import PARAMETERS, Manifest
from engine.store import Artifact as OpenedArtifact

logger = logging.getLogger(__name__)

_SUPPLEMENT_PATIENCE_SECONDS: Final = 5.0
"""How long what was retrained elsewhere is waited for: what is here serves without."""


@dataclass(frozen=True, kw_only=True)
class Artifact:
    """What the catalog knows of a sketch version.

    Attributes:
        version_id: its key; versions never change.
        label: its name for people, such as "names v3".
        path: directory of the artifact; with an origin, of the local copy.
        checksum: SHA-256 of its manifest.
        origin: URL of the artifact in an object store, if it is kept in one.
    """

    version_id: int
    label: str
    path: Path
    checksum: str
    origin: str | None = None

    @property
    def address(self) -> Address:
        """Where it is found, as the engine takes it; to be opened there."""
        return Address(path=self.path, checksum=self.checksum, origin=self.origin)

    def open(self, *, files: Collection[str] | None = None) -> OpenedArtifact:
        """Open it, verified; what isn't here is fetched, and so are models that were retrained beside it elsewhere.

        Args:
            files: names of those that are needed; None is all of them.

        Raises:
            ArtifactError: it is missing, damaged or foreign, or its store is away.
        """
        opened = self.address.open(files)
        try:
            supplements.refresh(opened, patience_seconds=_SUPPLEMENT_PATIENCE_SECONDS)
        except StoreError as error:
            logger.warning("%s: models that were retrained elsewhere can't be fetched now: %s", self.label, error)
        return opened

    def manifest(self) -> Manifest:
        """What it says of itself; nothing else of it is read.

        Raises:
            ArtifactError: it is missing, damaged or foreign, or its store is away; the message begins with its label.
        """
        try:
            return self.address.open(files=()).manifest
        except ArtifactError as error:
            raise type(error)(f"{self.label}: {error}") from error


@dataclass(frozen=True, kw_only=True)
class DrawnTexts:
    """Texts of two models, the same random numbers behind the texts of the same place.

    Attributes:
        baseline: of the model as it was trained.
        counterfactual: of the one without what was deleted.
        source: where the parameters of the latter come from.
    """

    baseline: list[str]
    counterfactual: list[str]
    source: ModelSource


@dataclass(frozen=True, kw_only=True)
class Residency:
    """A version in memory, and the bytes that it takes."""

    version_id: int
    label: str
    bytes: int


@dataclass(frozen=True, kw_only=True)
class ShardCount:
    """The shards of a service, and how many of them don't answer or are still loading."""

    count: int
    away: int


class Predictor:
    """Sketches in the device's memory under a byte budget, the least recently asked out first."""

    def __init__(
        self, *, device: str, resident_bytes: int, table_cache_bytes: int, shards: Shards | None = None
    ) -> None:
        """Start with nothing resident.

        Args:
            device: "cpu", or a CUDA device.
            resident_bytes: budget for sketches; with shards, of what they take here and in the fullest shard.
            table_cache_bytes: budget for the measurement tables of all of them.
            shards: that hold what is measured; by default the device does.
        """
        self._device, self._resident_bytes, self._shards = device, resident_bytes, shards
        self._tables = table_cache(table_cache_bytes)
        self._sketches: ByteCache[Artifact, ResidentSketch] = ByteCache(
            resident_bytes, size=lambda sketch: sketch.size_bytes
        )
        self._failures: dict[str, str] = {}
        self._lock = threading.Lock()

    @property
    def budget_bytes(self) -> int:
        """What resident sketches may take together."""
        return self._resident_bytes

    def load(self, artifact: Artifact) -> Residency:
        """Make a version resident.

        Raises:
            ArtifactError: it is missing, damaged or foreign; the message begins with its label.
            ShardsAwayError: so are shards; likewise.
        """
        sketch = self._sketch(artifact)
        return Residency(version_id=artifact.version_id, label=artifact.label, bytes=sketch.size_bytes)

    def knows(self, artifact: Artifact, measurements: Sequence[Measurement]) -> bool:
        """Whether the version is resident and the measurements' tables are made: whether an answer takes no time.

        Never waits, not even for what another thread is making.
        """
        sketch = self._sketches.peek(artifact)
        return sketch is not None and sketch.knows(measurements)

    def check(self, artifact: Artifact, measurements: Sequence[Measurement]) -> None:
        """Refuse what a version can't measure, without measuring it; loads the version where it isn't resident.

        Raises:
            TextLengthError, UnknownCharacterError: a text can't be measured.
            ArtifactError, ShardsAwayError: as `load`.
        """
        model = self._sketch(artifact).configuration.model
        for measurement in measurements:
            targets(measurement, model)

    def predict(
        self,
        artifact: Artifact,
        *,
        units: Sequence[int],
        measurements: Sequence[Measurement],
        degree: int | Literal["auto"],
        downweights: Sequence[float],
        confidence: float,
        average: Average = "mean",
        estimator: Literal["auto"] | EstimatorName = "auto",
    ) -> list[Prediction | Distribution]:
        """Answer for one deletion set, one prediction a measurement; loads the version where it isn't resident.

        Raises:
            QuestionError: of the kind that says what can't be answered.
            ArtifactError, ShardsAwayError: as `load`.
        """
        question = Question(
            estimator=estimator,
            degree=degree,
            downweights=tuple(downweights),
            confidence=confidence,
            average=average,
        )
        return self._sketch(artifact).predict(measurements, units, question)

    def attribute(
        self,
        artifact: Artifact,
        *,
        measurement: Measurement,
        top: int,
        confidence: float,
        left_out: Collection[int] = (),
    ) -> Attributions:
        """The units whose deletion changes a measurement most; those that are left out aren't named.

        Raises:
            QuestionError: of the kind that says what can't be answered.
            ArtifactError, ShardsAwayError: as `load`.
        """
        return self._sketch(artifact).attribute(measurement, top=top, confidence=confidence, left_out=left_out)

    def reliability(
        self,
        artifact: Artifact,
        *,
        measurement: Measurement,
        confidence: float,
        go_on: Callable[[], None] = lambda: None,
    ) -> Reliability:
        """How right the answers about a measurement would have been where the model was really retrained.

        Args:
            artifact: of the version.
            measurement: one that is a number.
            confidence: of the intervals.
            go_on: called again and again meanwhile; what it raises ends the work.

        Raises:
            QuestionError: of the kind that says what can't be answered.
            ArtifactError, ShardsAwayError: as `load`.
        """
        return self._sketch(artifact).reliability(measurement, confidence=confidence, go_on=go_on)

    def manifest(self, artifact: Artifact) -> Manifest:
        """What a version's artifact says of itself. Nothing is loaded for it.

        Raises:
            ArtifactError: as `Artifact.manifest`.
        """
        resident = self._sketches.peek(artifact)
        return artifact.manifest() if resident is None else resident.artifact.manifest

    def draw_texts(
        self, artifact: Artifact, *, units: Sequence[int], count: int, seed: int, temperature: float, prompt: str
    ) -> DrawnTexts:
        """Texts of the model and of the one without a deletion set, with the same random numbers.

        Raises:
            QuestionError: of the kind that says what can't be answered.
            ArtifactError, ShardsAwayError: as `load`.
        """
        sketch = self._sketch(artifact)
        model = counterfactual_model(sketch, units)
        baseline, counterfactual = (
            draw_texts(drawn, count=count, seed=seed, temperature=temperature, prompt=prompt)
            for drawn in (trained_model(sketch), model)
        )
        return DrawnTexts(baseline=baseline, counterfactual=counterfactual, source=model.source)

    def save_counterfactual(self, artifact: Artifact, *, units: Sequence[int], path: Path) -> ModelSource:
        """Write the model without a deletion set as a safetensors file.

        Returns:
            Where its parameters come from.

        Raises:
            QuestionError: of the kind that says what can't be answered.
            ArtifactError, ShardsAwayError: as `load`, or the file can't be written.
        """
        model = counterfactual_model(self._sketch(artifact), units)
        save_model(model, path, about=f"{artifact.label} without {len(units)} units")
        return model.source

    def resident(self) -> list[Residency]:
        """What is in memory."""
        return [
            Residency(version_id=artifact.version_id, label=artifact.label, bytes=sketch.size_bytes)
            for artifact, sketch in self._sketches.items()
        ]

    def shards(self) -> ShardCount | None:
        """How many shards there are, and how many of them are away; None where this process holds the sketches."""
        shards = self._shards
        return None if shards is None else ShardCount(count=shards.count, away=shards.away)

    def artifacts(self) -> list[Artifact]:
        """The versions in memory, as they were asked for."""
        return [artifact for artifact, _ in self._sketches.items()]

    def holds(self, version_id: int) -> bool:
        """Whether a version is resident."""
        return any(artifact.version_id == version_id for artifact, _ in self._sketches.items())

    def cache_counts(self) -> dict[str, tuple[int, int]]:
        """Hits and misses of the caches since the start, by their name."""
        return {
            "sketches": (self._sketches.hits, self._sketches.misses),
            "tables": (self._tables.hits, self._tables.misses),
        }

    def failures(self) -> dict[str, str]:
        """Versions whose last load failed: label and what is wrong."""
        with self._lock:
            return dict(self._failures)

    def forget_texts(self) -> None:
        """Let go of what was measured, whose keys are texts."""
        self._tables.drop(lambda _: True)

    def look_again(self, versions: Collection[int]) -> None:
        """Let go of retrained models of these versions whose files are no longer beside the artifact."""
        for artifact, sketch in self._sketches.items():
            if artifact.version_id in versions:
                sketch.look_again()

    def forget_failures(self, *, but: Collection[str]) -> None:
        """Forget that versions failed which nobody is to be served from; labels of the others are given."""
        with self._lock:
            self._failures = {label: why for label, why in self._failures.items() if label in but}

    def _sketch(self, artifact: Artifact) -> ResidentSketch:
        try:
            sketch = self._sketches.get(artifact, lambda: self._load(artifact))
        except (ArtifactError, ShardsAwayError) as error:
            with self._lock:
                self._failures[artifact.label] = str(error)
            raise type(error)(f"{artifact.label}: {error}") from error
        with self._lock:
            self._failures.pop(artifact.label, None)
        return sketch

    def _load(self, artifact: Artifact) -> ResidentSketch:
        address, shards = artifact.address, self._shards
        if shards is None:
            sketch = ResidentSketch(artifact.open(), device=self._device, tables=self._tables)
        else:
            opened = artifact.open(files={PARAMETERS})  # the shards open what they need of the rest
            sketch = ResidentSketch(opened, tables=self._tables, holdings=shards.hold(address, opened))
        if sketch.size_bytes > self._resident_bytes:
            raise ArtifactError(
                f"it takes {sketch.size_bytes:,} bytes, and NEVERSEEN_RESIDENT_BYTES allows {self._resident_bytes:,}."
            )
        sketch.warm()
        return sketch
