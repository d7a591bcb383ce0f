"""What Ketch's forwarder sends of a deletion, and is answered (dsr/v1).

Ketch adds fields from version to version: what isn't named here is let through and not looked at. Above all the
`subject`, which is what somebody wrote into a form: who is asked about is said by `identities` alone.
"""

from __future__ import annotations

from typing import Annotated, Any, Final, Literal

from pydantic import BaseModel, ConfigDict, Field
from pydantic.config import JsonDict

from app.schemas import Answer

API_VERSION: Final = "dsr/v1"
MOST_IDENTITIES: Final = 100
MOST_CALLBACKS: Final = 10
MOST_HEADERS: Final = 20

_UID: Final = "22880925-aac5-42f9-a653-cb6921d361ff"
_SECONDS: Final = 253_402_300_799  # the end of the year 9999

UnixSeconds = Annotated[int, Field(ge=0, le=_SECONDS)]
HeaderName = Annotated[str, Field(pattern=r"^[A-Za-z0-9-]{1,64}$")]
HeaderValue = Annotated[str, Field(pattern=r"^[ -~]{0,4000}$")]
Status = Literal["unknown", "in_progress", "completed", "cancelled"]
Reason = Literal["unknown", "no_match", "executed"]


class _Sent(BaseModel):
    """Something of a request."""

    model_config = ConfigDict(extra="ignore", allow_inf_nan=False, hide_input_in_errors=True)


class KetchMetadata(_Sent):
    """Which request it is."""

    uid: str = Field(min_length=1, max_length=200, description="Ketch's id of the request.")
    tenant: str = Field(pattern=r"^[ -~]{0,200}$")


class KetchIdentity(_Sent):
    """Something that the person is known by."""

    identitySpace: str = Field(min_length=1, max_length=64, description="Its type, by Ketch's word.")  # noqa: N815
    identityFormat: Literal["raw", "md5", "sha1", "sha256"] = "raw"  # noqa: N815
    identityValue: str = Field(min_length=1, max_length=1_000, repr=False)  # noqa: N815


class KetchCallback(_Sent):
    """Where the end is told."""

    url: str = Field(max_length=2_000)
    headers: Annotated[dict[HeaderName, HeaderValue], Field(max_length=MOST_HEADERS)] = Field(
        default_factory=dict, repr=False, description="Sent with it."
    )


class KetchDeletion(_Sent):
    """What is asked."""

    regulation: str = Field(max_length=200, description="By Ketch's code.")
    identities: list[KetchIdentity] = Field(min_length=1, max_length=MOST_IDENTITIES)
    callbacks: list[KetchCallback] = Field(default_factory=list, max_length=MOST_CALLBACKS)
    submittedTimestamp: UnixSeconds = Field(description="When the person asked.")  # noqa: N815
    dueTimestamp: UnixSeconds = Field(description="When it has to be done.")  # noqa: N815


class KetchDeleteRequest(_Sent):
    """A deletion that Ketch forwards."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "apiVersion": API_VERSION,
                    "kind": "DeleteRequest",
                    "metadata": {"uid": _UID, "tenant": "axonic"},
                    "request": {
                        "property": "axonic.io",
                        "environment": "production",
                        "regulation": "gdpr",
                        "jurisdiction": "eugdpr",
                        "identities": [
                            {"identitySpace": "email", "identityFormat": "raw", "identityValue": "max@example.org"}
                        ],
                        "callbacks": [
                            {"url": "https://dsr.ketch.example/callback", "headers": {"Authorization": "Bearer TOKEN"}}
                        ],
                        "submittedTimestamp": 1769871600,
                        "dueTimestamp": 1772463600,
                    },
                }
            ]
        }
    )

    apiVersion: Literal["dsr/v1"]  # noqa: N815
    kind: Literal["DeleteRequest"] = Field(description="Only deletions are done here.")
    metadata: KetchMetadata
    request: KetchDeletion


class KetchMetadataAnswer(Answer):
    """The request's own."""

    uid: str
    tenant: str


_OUTCOME: Final[JsonDict] = {
    "verdict": "not_material",
    "sentence": "Without this person's documents, no measured value would change materially.",
    "erased": False,
    "evidence": "0b8d3c52-6f3e-4c6b-9a55-3d6f1c2f0e11",
    "measurements": [
        {
            "dataset": "census-names",
            "sketch": "names",
            "version": 1,
            "label": "max",
            "unit": "nats per token",
            "baseline": 2.113,
            "estimate": 2.114,
            "interval": [2.1135, 2.1145],
            "confidence": 0.9,
            "material": "no",
        }
    ],
}


class KetchStatus(Answer):
    """How a request does."""

    status: Status = Field(description="unknown is one that failed; it may be tried again.")
    reason: Reason = Field(description="executed: what is held of the person was erased. unknown: nothing was.")
    expectedCompletionTimestamp: int  # noqa: N815
    requestID: str = Field(description="Ours.")  # noqa: N815
    resultMessage: str  # noqa: N815
    outcome: dict[str, Any] = Field(description="What was predicted, once it is; an empty object until then.")


class KetchDeleteAnswer(Answer):
    """The answer to a deletion, each time as it is then."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "apiVersion": API_VERSION,
                    "kind": "DeleteResponse",
                    "metadata": {"uid": _UID, "tenant": "axonic"},
                    "response": {
                        "status": "completed",
                        "reason": "unknown",
                        "expectedCompletionTimestamp": 1772463600,
                        "requestID": "0b8d3c52-6f3e-4c6b-9a55-3d6f1c2f0e11",
                        "resultMessage": "Predicted only; nothing was erased.",
                        "outcome": _OUTCOME,
                    },
                }
            ]
        }
    )

    apiVersion: Literal["dsr/v1"]  # noqa: N815
    kind: Literal["DeleteResponse"]
    metadata: KetchMetadataAnswer
    response: KetchStatus
