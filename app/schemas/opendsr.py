"""OpenDSR 2.0, as sent and answered, and OpenGDPR 1.0, its former name.

A request may have more than is known here: the protocol grows by fields that a processor leaves alone. So these aren't
`RequestBody`, which refuses them. Answers have all their fields always, null where there is nothing to say.
"""

from __future__ import annotations

from typing import Annotated, Any, Final, Literal, TypeAlias

from pydantic import BaseModel, ConfigDict, Field
from pydantic.config import JsonDict

from app.schemas import Answer

IDENTITY_TYPES: Final = (
    "controller_customer_id",
    "email",
    "android_advertising_id",
    "android_id",
    "fire_advertising_id",
    "ios_advertising_id",
    "ios_vendor_id",
    "microsoft_advertising_id",
    "microsoft_publisher_id",
    "roku_publisher_id",
    "roku_advertising_id",
)
"""Those of the specification; a connection may know more, by its option `identity_types`."""

IDENTITY_FORMATS: Final = ("raw", "sha256", "sha1", "md5")

API_VERSION: Final = "2.0"
MOST_IDENTITIES: Final = 100
MOST_CALLBACKS: Final = 10

UUID_PATTERN: Final = r"^[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$"
_DATE: Final = "[12][0-9]{3}-[0-9]{2}-[0-9]{2}"
_TIME: Final = r"[0-9]{2}:[0-9]{2}:[0-9]{2}(\.[0-9]{1,9})?"
_TIME_PATTERN: Final = f"^{_DATE}[Tt]{_TIME}([Zz]|[+-][0-9]{{2}}:[0-9]{{2}})$"

_ID: Final = "a7551968-d5d6-44b2-9831-815ac9017798"
_RECEIVED: Final = "2026-02-01T12:00:00Z"
_EXPECTED: Final = "2026-03-03T12:00:00Z"
_CONTROLLER: Final = "example_controller_id"
_RESULTS: Final = "https://neverseen.example.org/erasure-requests/0f8b7c1e-3b0a-4a53-9a52-0d8f3e2d7b11/evidence"

SubjectRequestId = Annotated[str, Field(pattern=UUID_PATTERN)]
Time = Annotated[str, Field(description="RFC 3339, in UTC.")]
Status = Literal["pending", "in_progress", "completed", "cancelled"]
Format = Literal["raw", "sha256", "sha1", "md5"]


class _Sent(BaseModel):
    """A part of a request. What it has beside is left alone."""

    model_config = ConfigDict(extra="ignore", hide_input_in_errors=True)


class SubjectIdentity(_Sent):
    """Something that the person is known by."""

    identity_type: str = Field(min_length=1, max_length=64)
    identity_value: str = Field(min_length=1, max_length=1_000, repr=False)
    identity_format: Format


class MappedIdentity(_Sent):
    """The same in the form that mParticle's version 3 has, where the type is the key."""

    value: str = Field(min_length=1, max_length=1_000, repr=False)
    encoding: Format = "raw"


Identities: TypeAlias = (
    Annotated[list[SubjectIdentity], Field(min_length=1, max_length=MOST_IDENTITIES)]
    | Annotated[dict[str, MappedIdentity], Field(min_length=1, max_length=MOST_IDENTITIES)]
)


class OwnExtension(_Sent):
    """What `extensions` may hold under our domain: the identities, where they aren't in `subject_identities`."""

    subject_identities: Identities = Field(repr=False)


_REQUEST: Final[JsonDict] = {
    "regulation": "gdpr",
    "subject_request_id": _ID,
    "subject_request_type": "erasure",
    "submitted_time": "2026-01-31T15:00:00Z",
    "subject_identities": [
        {"identity_type": "email", "identity_value": "ann@example.org", "identity_format": "raw"},
    ],
    "api_version": "2.0",
    "status_callback_urls": ["https://controller.example.org/opendsr/callbacks"],
}


class OldSubjectRequest(_Sent):
    """A person's request by OpenGDPR 1.0, which says nothing of the regulation."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{key: value for key, value in _REQUEST.items() if key != "regulation"}]}
    )

    regulation: Literal["gdpr", "ccpa"] | None = Field(default=None, description="That it is made under.")
    subject_request_id: SubjectRequestId = Field(
        description="A UUID of version 4 in small letters, made by the controller: the same request has the same one."
    )
    subject_request_type: Literal["access", "portability", "erasure"] = Field(
        description="Only erasure is done here; the others are refused."
    )
    submitted_time: Annotated[str, Field(pattern=_TIME_PATTERN)] = Field(description="When the person asked, RFC 3339.")
    subject_identities: Identities | None = Field(
        default=None,
        repr=False,
        description="What the person is known by: a list, or an object of types. Where it is missing, it stands in"
        " `extensions`, under the processor's domain.",
    )
    api_version: Annotated[str, Field(max_length=20)] | None = Field(
        default=None, description="For people: the address says which version it is."
    )
    status_callback_urls: list[Annotated[str, Field(max_length=2_000)]] = Field(
        default_factory=list, max_length=MOST_CALLBACKS, description="Told of the request and of each change of it."
    )
    extensions: dict[str, Any] | None = Field(
        default=None, repr=False, description="By processors' domains; those of others are left alone."
    )


class SubjectRequest(OldSubjectRequest):
    """A person's request by OpenDSR 2.0."""

    model_config = ConfigDict(json_schema_extra={"examples": [_REQUEST]})

    regulation: Literal["gdpr", "ccpa"] = Field(description="That it is made under.")


class ReceiptAnswer(Answer):
    """That a request was received: signed, it is the controller's receipt."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "controller_id": _CONTROLLER,
                    "expected_completion_time": _EXPECTED,
                    "received_time": _RECEIVED,
                    "encoded_request": "eyJyZWd1bGF0aW9uIjoiZ2RwciJ9",
                    "subject_request_id": _ID,
                }
            ]
        }
    )

    controller_id: str
    expected_completion_time: Time
    received_time: Time
    encoded_request: str = Field(description="The request's body, base64. It holds the identities: don't keep it.")
    subject_request_id: str


_STATUS: Final[JsonDict] = {
    "controller_id": _CONTROLLER,
    "expected_completion_time": _EXPECTED,
    "subject_request_id": _ID,
    "request_status": "completed",
    "api_version": API_VERSION,
    "results_url": _RESULTS,
    "results_count": 3,
    "extensions": {"opendsr.example.org": {"status": "completed", "reason": "answered"}},
}


class StatusAnswer(Answer):
    """How a request does."""

    model_config = ConfigDict(json_schema_extra={"examples": [_STATUS]})

    controller_id: str
    expected_completion_time: Time
    subject_request_id: str
    request_status: Status
    api_version: str
    results_url: str | None = Field(description="Where the evidence is; it is read with a key of this service.")
    results_count: int | None = Field(description="Documents of the person that were found; null until then.")
    extensions: dict[str, dict[str, str]] = Field(
        description="Under our domain: `status`, which knows failed, too, and for a final one `reason`."
    )


class CallbackBody(StatusAnswer):
    """What a controller is told of a change."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [{**_STATUS, "status_callback_url": "https://controller.example.org/opendsr/callbacks"}]
        }
    )

    status_callback_url: str


class CancellationAnswer(Answer):
    """That a request was cancelled."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "controller_id": _CONTROLLER,
                    "received_time": _RECEIVED,
                    "subject_request_id": _ID,
                    "api_version": API_VERSION,
                }
            ]
        }
    )

    controller_id: str
    received_time: Time
    subject_request_id: str
    api_version: str


class SupportedIdentity(Answer):
    """A kind of identity that is understood."""

    identity_type: str
    identity_format: Format


class DiscoveryAnswer(Answer):
    """What this processor understands."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "api_version": API_VERSION,
                    "supported_identities": [{"identity_type": "email", "identity_format": "raw"}],
                    "supported_subject_request_types": ["erasure"],
                    "processor_certificate": "https://opendsr.example.org/v2/certificate",
                }
            ]
        }
    )

    api_version: str
    supported_identities: list[SupportedIdentity]
    supported_subject_request_types: list[Literal["erasure"]]
    processor_certificate: str


class RefusalFault(Answer):
    """A part of a refusal."""

    domain: str = Field(description="What refused it: Validation, Authentication or Request.")
    reason: str
    message: str


class RefusalError(Answer):
    """Why something was refused."""

    code: int = Field(description="The HTTP status.")
    message: str
    errors: list[RefusalFault]


class RefusalAnswer(Answer):
    """A refusal in OpenDSR's own shape; nothing of the request is in it."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "error": {
                        "code": 400,
                        "message": "subject_request_id is missing.",
                        "errors": [
                            {
                                "domain": "Validation",
                                "reason": "missing",
                                "message": "subject_request_id is missing.",
                            }
                        ],
                    }
                }
            ]
        }
    )

    error: RefusalError
