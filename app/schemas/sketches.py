"""Sketches and their versions, as answered."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Final, Literal

from pydantic import AliasPath, ConfigDict, Field
from pydantic.config import JsonDict

from app.schemas import Answer, PageAnswer, RequestBody, example_page

_SKETCH: Final[JsonDict] = {
    "name": "names",
    "dataset": "census-names",
    "current_version": 1,
    "created_at": "2026-01-05T09:31:00Z",
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
    dataset: str = Field(validation_alias=AliasPath("sketch", "dataset", "name"))
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


class SketchPage(PageAnswer[SketchAnswer]):
    """Sketches by name."""

    model_config = example_page(_SKETCH)


class VersionPage(PageAnswer[VersionAnswer]):
    """Versions of a sketch, the newest first."""

    model_config = example_page(_VERSION)
