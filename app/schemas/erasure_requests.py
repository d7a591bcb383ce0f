"""Erasure requests of the native API, as sent and answered."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Final, Literal

from pydantic import AwareDatetime, ConfigDict, Field
from pydantic.config import JsonDict

from app.schemas import Answer, Name, PageAnswer, RequestBody, example_page

_REQUEST: Final[JsonDict] = {
    "id": "0b8d3c52-6f3e-4c6b-9a55-3d6f1c2f0e11",
    "caller_id": "dsar-2026-0117",
    "source": "api",
    "protocol": "native",
    "state": "completed",
    "stage": None,
    "outcome": "answered",
    "units": 1,
    "documents": 3,
    "regulation": "gdpr",
    "mode": "predict",
    "report": "default",
    "verify": False,
    "attempts": 0,
    "problem": None,
    "submitted_at": "2026-01-17T08:00:00Z",
    "received_at": "2026-01-17T09:12:00Z",
    "due_at": "2026-02-16T09:12:00Z",
    "finished_at": "2026-01-17T09:12:01Z",
    "late": False,
    "evidence": "/erasure-requests/0b8d3c52-6f3e-4c6b-9a55-3d6f1c2f0e11/evidence",
}


MOST_IDENTITIES: Final = 100
"""That one request may name."""

IdentityFormat = Literal["raw", "sha256", "sha1", "md5"]


class IdentityBody(RequestBody):
    """Something that the person is known by."""

    type: str = Field(
        pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,63}$", description="What it is, as it was linked: email, customer_id."
    )
    value: str = Field(min_length=1, max_length=1_000, description="It, or its hexadecimal digest.")
    format: IdentityFormat = Field(default="raw", description="raw, or the hash function of the digest.")


class NewErasureRequest(RequestBody):
    """A person's request."""

    model_config = ConfigDict(
        hide_input_in_errors=True,
        json_schema_extra={
            "examples": [
                {
                    "id": "dsar-2026-0117",
                    "identities": [{"type": "email", "value": "james@example.org"}],
                    "regulation": "gdpr",
                    "submitted_at": "2026-01-17T08:00:00Z",
                },
                {
                    "id": "dsar-2026-0118",
                    "identities": [
                        {
                            "type": "email",
                            "value": "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08",
                            "format": "sha256",
                        }
                    ],
                    "mode": "erase",
                    "verify": True,
                },
            ]
        },
    )

    id: str = Field(min_length=1, max_length=200, description="Yours, without an identity in it. Again: the same one.")
    identities: Annotated[list[IdentityBody], Field(min_length=1, max_length=MOST_IDENTITIES)]
    regulation: Literal["gdpr", "ccpa"] | None = Field(default=None, description="The deadline follows from it.")
    submitted_at: AwareDatetime | None = Field(default=None, description="When the person asked.")
    due_at: AwareDatetime | None = Field(
        default=None, description="When it has to be done; null is 30 days (gdpr, none) or 45 (ccpa) from now."
    )
    mode: Literal["predict", "erase"] = Field(
        default="predict", description="erase also forgets the person's part of the datasets, once that is filed."
    )
    report: Name = Field(default="default", description="What is measured.")
    verify: bool = Field(default=False, strict=True, description="Whether models are retrained, to compare.")


class TakenAnswer(Answer):
    """A request that was taken; the same request again is answered the same, byte for byte."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    name: _REQUEST[name]
                    for name in (
                        "id",
                        "caller_id",
                        "mode",
                        "report",
                        "verify",
                        "regulation",
                        "submitted_at",
                        "received_at",
                        "due_at",
                    )
                }
            ]
        }
    )

    id: str = Field(description="Ours.")
    caller_id: str = Field(description="Yours.")
    mode: str
    report: str
    verify: bool
    regulation: str | None
    submitted_at: datetime | None
    received_at: datetime
    due_at: datetime


class ErasureRequestAnswer(Answer):
    """A request, and how far it is."""

    model_config = ConfigDict(json_schema_extra={"examples": [_REQUEST]})

    id: str = Field(description="Ours.")
    caller_id: str = Field(description="Its caller's, unique within its source.")
    source: str = Field(description="Name of its connection; api is the native API.")
    protocol: str
    state: Literal["pending", "in_progress", "completed", "cancelled", "failed"]
    stage: Literal["verifying", "forgetting"] | None = Field(description="What it waits for, while it is in progress.")
    outcome: Literal["answered", "no_match"] | None = Field(description="no_match: nobody is known by the identities.")
    units: int | None = Field(description="That are the person's, once that is known.")
    documents: int | None = Field(description="Of these units.")
    regulation: str | None
    mode: Literal["predict", "erase"]
    report: str
    verify: bool
    attempts: int = Field(description="That came to nothing.")
    problem: str | None = Field(description="Why the last of these did.")
    submitted_at: datetime | None
    received_at: datetime
    due_at: datetime
    finished_at: datetime | None
    late: bool = Field(description="Whether it isn't done though it should be.")
    evidence: str | None = Field(description="Address of the signed evidence, once it is done.")


class ErasureRequestPage(PageAnswer[ErasureRequestAnswer]):
    """A part of the list of requests, the newest first."""

    model_config = example_page(_REQUEST)
