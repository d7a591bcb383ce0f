"""Sketches and their versions, as answered."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Final, Literal

from pydantic import AliasPath, ConfigDict, Field
from pydantic.config import JsonDict

from app.schemas import Answer, PageAnswer, RequestBody, example_page
from engine.store import Manifest

_SKETCH: Final[JsonDict] = {
    "name": "names",
    "dataset": "census-names",
    "current_version": 1,
    "created_at": "2026-01-05T09:31:00Z",
}
_BUILD: Final[JsonDict] = {
    "sketch": "names",
    "version": 1,
    "document_count": 1000,
    "unit_count": 1000,
    "fingerprint": "131a8ecdec3464071ed9b9c6ebe7e612ee4e5c5dd9f6af1211c77a9fafe4a196",
    "parameter_count": 4192,
    "device": "cpu",
    "native": True,
    "build_seconds": 87.988,
    "created_at": "2026-01-05T09:30:58Z",
    "directions": 200,
    "degree": 3,
    "axes": True,
    "retrained_count": 2000,
    "step_count": 1000,
    "libraries": {"neverseen": "0.1.0", "torch": "2.13.0+cpu", "numpy": "2.4.6", "python": "3.11.7"},
}
_VERSION: Final[JsonDict] = {
    "sketch": "names",
    "dataset": "census-names",
    "number": 1,
    "state": "ready",
    "is_current": True,
    "contains_erased": False,
    "erased_units": 0,
    "checksum": "26ab999510e84998ba3214ffc8dd290dc0d49e45b5baae91bdcfb12b0478e887",
    "size_bytes": 40280288,
    "configuration": {"ensemble": "unitary", "directions": 400, "degree": 3, "seed": 0, "dtype": "float32"},
    "created_at": "2026-01-05T09:31:00Z",
}


class Promotion(RequestBody):
    """Which version is to be current, and which one is so now."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"version": 1, "expected": 1}]})

    version: int = Field(strict=True, ge=1, le=2**31 - 1, description="The version that questions get from now on.")
    expected: int | None = Field(
        strict=True, ge=1, le=2**31 - 1, description="The current version as you know it, null for none; else 409."
    )


class Rollback(RequestBody):
    """Which version is current now: of two who roll back at once, one is refused."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"expected": 3}]})

    expected: int = Field(strict=True, ge=1, le=2**31 - 1, description="The current version as you know it; else 409.")


class SketchAnswer(Answer):
    """A sketch: the name under which its versions are served."""

    model_config = ConfigDict(json_schema_extra={"examples": [_SKETCH]})

    name: str
    dataset: str = Field(validation_alias=AliasPath("dataset", "name"))
    current_version: int | None = Field(
        validation_alias="current_number",
        description="What questions get unless they name another; after a promotion as soon as it is loaded.",
    )
    created_at: datetime


class VersionAnswer(Answer):
    """A sketch version: one immutable artifact."""

    model_config = ConfigDict(json_schema_extra={"examples": [_VERSION]})

    sketch: str = Field(validation_alias=AliasPath("sketch", "name"))
    dataset: str = Field(validation_alias=AliasPath("dataset", "name"), description="That it was built from.")
    number: int = Field(description="Versions of a sketch count from 1.")
    state: Literal["ready", "retired", "deleted"] = Field(
        description="A retired version isn't served; the artifact of a deleted one is given up, too."
    )
    is_current: bool
    contains_erased: bool = Field(description="Whether the version was trained on units that have been erased since.")
    erased_units: int = Field(description="How many these are.")
    checksum: str
    size_bytes: int
    configuration: dict[str, Any] = Field(description="What it was built with.")
    created_at: datetime


class BuildAnswer(Answer):
    """How a version's artifact was made, as that says itself."""

    model_config = ConfigDict(json_schema_extra={"examples": [_BUILD]})

    sketch: str
    version: int
    document_count: int = Field(description="That the model was trained on.")
    unit_count: int = Field(description="What can be deleted by itself: documents, or subjects.")
    fingerprint: str = Field(description="SHA-256 of the documents and whose they are.")
    parameter_count: int = Field(description="Of the model.")
    device: str = Field(description="On which it was trained: cpu or cuda.")
    native: bool = Field(description="Whether compiled code trained it, and not torch.")
    build_seconds: float = Field(description="Wall time, over all attempts.")
    created_at: datetime = Field(description="When the artifact was complete.")
    directions: int = Field(description="Random directions.")
    degree: int = Field(description="The highest order of the expansion.")
    axes: bool = Field(description="Whether every unit has an axis of its own.")
    retrained_count: int = Field(
        description="Models that were trained beside the ordinary one, each without some units; not those that were"
        " pinned or verified since."
    )
    step_count: int = Field(description="Of one training run.")
    libraries: dict[str, str] = Field(description="Versions of those that took part.")


class SketchPage(PageAnswer[SketchAnswer]):
    """Sketches by name."""

    model_config = example_page(_SKETCH)


class VersionPage(PageAnswer[VersionAnswer]):
    """Versions of a sketch, the newest first."""

    model_config = example_page(_VERSION)


def build_answer(sketch: str, version: int, manifest: Manifest) -> BuildAnswer:
    """What a version's artifact says of how it was made."""
    configuration, source, execution = manifest.configuration, manifest.plan.source, manifest.plan.execution
    return BuildAnswer(
        sketch=sketch,
        version=version,
        document_count=source.documents,
        unit_count=source.units,
        fingerprint=source.fingerprint,
        parameter_count=configuration.model.parameter_count,
        device=execution.device,
        native=execution.native,
        build_seconds=manifest.build_seconds,
        created_at=manifest.created_at,
        directions=configuration.directions,
        degree=configuration.degree,
        axes=configuration.axes,
        retrained_count=configuration.retrained(source.units),
        step_count=source.documents * configuration.training.epochs,
        libraries=manifest.versions,
    )
