"""Connections to privacy backends, as sent and answered; secrets are sent, and never answered but when made here."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Final, Literal, get_args

from pydantic import BaseModel, ConfigDict, Field
from pydantic.config import JsonDict

from app.schemas import Answer, Name, PageAnswer, RequestBody, example_page

Protocol = Literal["fides", "opendsr", "webhook", "transcend", "ketch"]
PROTOCOLS: Final[tuple[Protocol, ...]] = get_args(Protocol)

_OPTIONS: Final[JsonDict] = {"url": "https://privacy.example.org/events", "events": ["erasure_request.completed"]}
_CONNECTION: Final[JsonDict] = {
    "name": "privacy-desk",
    "protocol": "webhook",
    "options": _OPTIONS,
    "created_at": "2026-01-05T09:50:00Z",
    "disabled_at": None,
    "disabled_reason": None,
}
_SHOWN_ONCE: Final[JsonDict] = {
    "credential": None,
    "webhook_secret": "whsec_AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=",
}


class ConnectionSecrets(BaseModel):
    """What of a connection nobody reads."""

    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)

    private_key: str | None = Field(default=None, repr=False, description="PEM; signs what is answered by OpenDSR.")
    certificate: str | None = Field(
        default=None, repr=False, description="PEM, the key's own first, then its issuers'."
    )
    webhook_secrets: list[Annotated[str, Field(pattern=r"^whsec_[A-Za-z0-9+/]{30,86}={0,2}$")]] = Field(
        default_factory=list, max_length=5, repr=False, description="whsec_…, the newest first; all of them sign."
    )
    token: str | None = Field(default=None, repr=False, max_length=4_000, description="What we show to the peer.")


class NewConnection(RequestBody):
    """A connection to make."""

    model_config = ConfigDict(
        hide_input_in_errors=True,
        json_schema_extra={"examples": [{"name": "legal-desk", "protocol": "webhook", "options": _OPTIONS}]},
    )

    name: Name
    protocol: Protocol = Field(description="That the peer speaks; webhook is somebody who is told of events.")
    options: dict[str, Any] = Field(default_factory=dict, description="Of the protocol; docs/privacy.md has them all.")
    secrets: ConnectionSecrets = Field(
        default_factory=ConnectionSecrets, description="What is needed and left out is made."
    )
    credential: str | None = Field(
        default=None, min_length=24, max_length=500, description="That the peer shows; null makes one."
    )


class ConnectionOptionsBody(RequestBody):
    """Options to change; those that are left out stay as they are."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"options": {"events": None}}]})

    options: dict[str, Any] = Field(min_length=1, description="Of the protocol.")


class ConnectionAnswer(Answer):
    """A connection, without its secrets."""

    model_config = ConfigDict(json_schema_extra={"examples": [_CONNECTION]})

    name: str
    protocol: Protocol
    options: dict[str, Any]
    created_at: datetime
    disabled_at: datetime | None = Field(description="Since when it may neither be called nor call.")
    disabled_reason: str | None


class MadeConnectionAnswer(ConnectionAnswer):
    """A connection that was made or changed, and what its peer has to be told: this once, and never again."""

    model_config = ConfigDict(json_schema_extra={"examples": [{**_CONNECTION, **_SHOWN_ONCE}]})

    credential: str | None = Field(description="That the peer shows, where it was made now.")
    webhook_secret: str | None = Field(description="That messages are signed with, where it was made now.")


class ConnectionPage(PageAnswer[ConnectionAnswer]):
    """A part of the list of connections, by name."""

    model_config = example_page(_CONNECTION)
