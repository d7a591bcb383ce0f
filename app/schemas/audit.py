"""Records of the audit, as answered."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Final

from pydantic import ConfigDict, Field
from pydantic.config import JsonDict

from app.schemas import Answer, PageAnswer, example_page

_RECORD: Final[JsonDict] = {
    "number": 41,
    "at": "2026-01-05T10:00:00.123456Z",
    "actor": "key:k7d2m9qa",
    "request_id": "4bf92f3577b34da6a3ce929d0e0e4736",
    "action": "predict",
    "details": {
        "sketch": "names",
        "version": 1,
        "units": 8,
        "measurements": 1,
        "deletion_digest": "5d0c9a2f3b1e8d7c6a5b4f3e2d1c0b9a8f7e6d5c4b3a29180f0e0d0c0b0a0908",
        "answer_digest": "9b1c2d3e4f5a6b7c8d9e0f1a2b3c4d5e6f708192a3b4c5d6e7f8091a2b3c4d5e",
    },
    "previous_hash": "0f1e2d3c4b5a69788796a5b4c3d2e1f00f1e2d3c4b5a69788796a5b4c3d2e1f0",
    "hash": "a1b2c3d4e5f60718293a4b5c6d7e8f90a1b2c3d4e5f60718293a4b5c6d7e8f90",
}


class AuditRecordAnswer(Answer):
    """Something that was asked or changed."""

    model_config = ConfigDict(json_schema_extra={"examples": [_RECORD]})

    number: int = Field(description="From 1, without gaps.")
    at: datetime
    actor: str = Field(description='"key:PREFIX", "anonymous", or "local:USER" for the command line.')
    request_id: str | None
    action: str
    details: dict[str, Any] = Field(description="Names of the catalog, numbers and digests; no text, no identity.")
    previous_hash: str = Field(description="Hash of the record before.")
    hash: str = Field(description="SHA-256 of all the rest.")


class AuditPage(PageAnswer[AuditRecordAnswer]):
    """Records by number."""

    model_config = example_page(_RECORD, total=120)
