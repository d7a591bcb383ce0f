"""Bodies of Transcend's server webhooks. What isn't named here is let through and not looked at."""

from __future__ import annotations

from typing import Final

from pydantic import BaseModel, ConfigDict, Field
from pydantic.config import JsonDict

_JOB: Final[JsonDict] = {
    "type": "ERASURE",
    "coreIdentifier": {"value": "max@example.org"},
    "dataSubject": {"type": "customer"},
    "isTest": False,
    "extras": {
        "profile": {"identifier": "max@example.org", "type": "email"},
        "request": {"id": "3f1c2f0e-5a0f-4c55-9a86-0d8f3e2d7b11"},
    },
}


class _Sent(BaseModel):
    """Something of a webhook's body."""

    model_config = ConfigDict(extra="ignore", hide_input_in_errors=True)


class TranscendIdentifier(_Sent):
    """What the person is known by to the whole organisation; the token is for it."""

    value: str = Field(min_length=1, max_length=1_000, repr=False)


class TranscendProfile(_Sent):
    """What the data silo is asked for; the token doesn't hold it."""

    identifier: str = Field(max_length=1_000, repr=False)
    type: str = Field(max_length=64)


class TranscendRequest(_Sent):
    """The request that the job is of."""

    id: str | None = Field(default=None, max_length=500)
    link: str | None = Field(default=None, max_length=2_000)


class TranscendExtras(_Sent):
    """What else Transcend knows."""

    profile: TranscendProfile | None = None
    request: TranscendRequest | None = None


class TranscendWebhook(_Sent):
    """A job of a privacy request, for one identifier."""

    model_config = ConfigDict(json_schema_extra={"examples": [_JOB]})

    type: str = Field(pattern=r"^[A-Z_]{1,64}$", description="Only ERASURE is taken.")
    core_identifier: TranscendIdentifier = Field(alias="coreIdentifier")
    is_test: bool = Field(default=False, alias="isTest", description="A test never erases.")
    extras: TranscendExtras = Field(default_factory=TranscendExtras)
