"""What the service says about itself."""

from __future__ import annotations

from typing import Literal

from pydantic import ConfigDict, Field

from app.schemas import Answer


class HealthAnswer(Answer):
    """The process answers."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"status": "alive"}]})

    status: Literal["alive"]


class ResidentAnswer(Answer):
    """A sketch version that is resident on the device."""

    label: str
    bytes: int


class FailureAnswer(Answer):
    """A sketch version that can't be served."""

    label: str
    message: str


class ShardsAnswer(Answer):
    """The processes that sketches are spread over."""

    count: int
    away: int = Field(description="That don't answer, or are still loading: random directions of theirs are missing.")


class ReadyAnswer(Answer):
    """At least one sketch can be served."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "status": "ready",
                    "resident": [{"label": "names v1", "bytes": 43459968}],
                    "budget_bytes": 2147483648,
                    "failed": [],
                    "shards": None,
                }
            ]
        }
    )

    status: Literal["ready"]
    resident: list[ResidentAnswer] = Field(description="Others are loaded when they are asked.")
    budget_bytes: int = Field(description="What they may take together; the least recently asked goes first.")
    failed: list[FailureAnswer] = Field(description="Damaged or missing artifacts; the other sketches go on serving.")
    shards: ShardsAnswer | None = Field(description="Null where the service holds its sketches itself.")
