"""API keys, as sent and answered."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Final, Literal

from pydantic import ConfigDict, Field
from pydantic.config import JsonDict

from app.catalog import Scope
from app.schemas import Answer, Name, PageAnswer, RequestBody, example_page
from app.schemas.predict import MeasurementBody

MOST_DECIMALS: Final = 12

_KEY: Final[JsonDict] = {
    "prefix": "k7d2m9qa",
    "name": "erasure-backend",
    "scopes": ["predict"],
    "requests_per_minute": 600,
    "decimals": 3,
    "measurements": [{"kind": "loss", "text": "max"}],
    "state": "revoked",
    "created_at": "2026-01-05T09:50:00Z",
    "expires_at": "2027-01-05T09:50:00Z",
    "last_used_at": "2026-02-01T12:00:00Z",
    "revoked_at": "2026-02-01T12:30:00Z",
}


class NewKey(RequestBody):
    """A key to make."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {"name": "erasure-backend", "scopes": ["predict"], "expires_days": 365},
                {
                    "name": "partner",
                    "scopes": ["predict"],
                    "requests_per_minute": 60,
                    "decimals": 3,
                    "measurements": [{"kind": "loss", "text": "max"}],
                },
            ]
        }
    )

    name: Name
    scopes: Annotated[list[Scope], Field(min_length=1, max_length=10)] = Field(description="What it may be used for.")
    expires_days: int | None = Field(
        default=None, strict=True, ge=1, le=36_500, description="Days until it ends; null is never."
    )
    requests_per_minute: int | None = Field(
        default=None, strict=True, ge=1, le=1_000_000, description="In each process; null is what the settings say."
    )
    decimals: int | None = Field(
        default=None,
        strict=True,
        ge=0,
        le=MOST_DECIMALS,
        description="That answers are rounded to; null is not at all.",
    )
    measurements: list[MeasurementBody] | None = Field(
        default=None, min_length=1, max_length=1_000, description="The only ones that may be asked for; null is all."
    )


class KeyAnswer(Answer):
    """A key, without itself."""

    model_config = ConfigDict(json_schema_extra={"examples": [_KEY]})

    prefix: str = Field(description="What the key begins with, behind nvs_: it is called by it.")
    name: str
    scopes: list[Scope]
    requests_per_minute: int | None
    decimals: int | None
    measurements: list[dict[str, Any]] | None
    state: Literal["valid", "expired", "revoked"]
    created_at: datetime
    expires_at: datetime | None
    last_used_at: datetime | None = Field(description="To about a minute.")
    revoked_at: datetime | None


class NewKeyAnswer(KeyAnswer):
    """A key that was made."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{**_KEY, "key": "nvs_k7d2m9qa_3q8mX1rYb0nT5vKc7LwZp2sJd9fHg4uEaQ6iRxOyBtM"}]}
    )

    key: str = Field(description="The key itself: shown in this answer, and never again.")


class KeyPage(PageAnswer[KeyAnswer]):
    """Keys, the newest first."""

    model_config = example_page(_KEY)
