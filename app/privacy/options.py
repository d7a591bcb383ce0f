"""What a connection may be told to do, by its protocol: all that an administrator may read of it."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Mapping
from typing import Annotated, Any, Final, Literal
from urllib.parse import urlsplit

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, field_validator

from app.errors import InvalidTextError
from app.names import NAME_PATTERN

Mode = Literal["predict", "erase"]
EventType = Literal[
    "erasure_request.pending",
    "erasure_request.in_progress",
    "erasure_request.completed",
    "erasure_request.cancelled",
    "erasure_request.failed",
]

_HOST: Final = re.compile(r"(\[[0-9a-f:.]+\]|[a-z0-9]([a-z0-9.-]*[a-z0-9])?)(:[0-9]{1,5})?")
_DOMAIN: Final = r"^[a-z0-9]([a-z0-9-]*[a-z0-9])?(\.[a-z0-9]([a-z0-9-]*[a-z0-9])?)+$"


def _check_url(url: str) -> str:
    parts = urlsplit(url)
    if parts.scheme not in {"https", "http"} or not parts.hostname or parts.username or parts.query or parts.fragment:
        raise ValueError("an address such as https://privacy.example.org/path, without a query or credentials")
    return url.rstrip("/")


def _check_host(host: str) -> str:
    if not _HOST.fullmatch(host):
        raise ValueError("a host such as privacy.example.org, or with its port privacy.example.org:8443")
    return host


def _check_network(network: str) -> str:
    return str(ipaddress.ip_network(network))


Url = Annotated[str, Field(max_length=500), AfterValidator(_check_url)]
Host = Annotated[str, Field(max_length=260), AfterValidator(_check_host)]
Network = Annotated[str, AfterValidator(_check_network)]


class CommonOptions(BaseModel):
    """What every connection may be told."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    mode: Mode = Field(default="predict", description="predict leaves the person's data; erase forgets it afterwards.")
    report: str = Field(default="default", pattern=NAME_PATTERN, description="Name of the report that is filed.")
    verify: bool = Field(default=False, description="Whether each answer is compared with a retrained model.")
    identity_types: dict[str, str] = Field(default_factory=dict, description="The peer's words for types, and ours.")
    allowed_hosts: list[Host] = Field(default_factory=list, description="Hosts that may be called, with their ports.")
    allowed_networks: list[Network] = Field(
        default_factory=list, description="Networks that may be called though they are private, such as 10.1.0.0/16."
    )
    allow_http: bool = Field(default=False, description="Whether they may be called without TLS.")

    def configured_urls(self) -> tuple[str, ...]:
        """Addresses that the administrator gave, whose hosts may be called without being listed."""
        return ()


class FidesOptions(CommonOptions):
    """A Fides server, whose policy webhooks call us."""

    base_url: Url = Field(description="Of the Fides server, without /api/v1: its webhooks don't say it.")
    on_failure: Literal["hold", "resume"] = Field(
        default="hold", description="Where there is no evidence: hold leaves the request paused, resume lets it go on."
    )
    wait_seconds: float = Field(default=0.7, ge=0, le=2, description="How long a webhook waits for the evidence.")

    def configured_urls(self) -> tuple[str, ...]:
        """The server's."""
        return (self.base_url,)


class OpenDsrOptions(CommonOptions):
    """A controller of OpenDSR, whose processor we are."""

    mode: Mode = Field(default="erase", description="erase; with predict an erasure would be called completed falsely.")
    domain: str = Field(pattern=_DOMAIN, max_length=253, description="Of ours: in the certificate, and in requests.")
    controller_id: str = Field(min_length=1, max_length=200, description="What the controller is called in answers.")
    results_base_url: Url | None = Field(default=None, description="Where this service is reached, for results_url.")

    @field_validator("mode")
    @classmethod
    def _erases(cls, mode: Mode) -> Mode:
        if mode != "erase":
            raise ValueError("an OpenDSR connection's mode is erase: `completed` would be untrue otherwise")
        return mode


class WebhookOptions(CommonOptions):
    """Somebody who is told of every request's changes, by Standard Webhooks."""

    url: Url = Field(description="That events are sent to.")
    events: list[EventType] | None = Field(default=None, description="Types of events that are sent; null is all.")

    def configured_urls(self) -> tuple[str, ...]:
        """Where events go."""
        return (self.url,)


class TranscendOptions(CommonOptions):
    """A Transcend data silo with a server webhook."""

    sombra_url: Url = Field(description="Of the gateway (Sombra).")
    audience: str = Field(min_length=1, max_length=500, description="That its tokens are made for.")

    def configured_urls(self) -> tuple[str, ...]:
        """The gateway's."""
        return (self.sombra_url,)


class KetchOptions(CommonOptions):
    """A Ketch forwarder."""

    header: str = Field(
        default="Authorization", pattern=r"^[A-Za-z0-9-]{1,64}$", description="That shows the credential."
    )


OPTIONS: Final[dict[str, type[CommonOptions]]] = {
    "fides": FidesOptions,
    "opendsr": OpenDsrOptions,
    "webhook": WebhookOptions,
    "transcend": TranscendOptions,
    "ketch": KetchOptions,
}


def options_of(protocol: str, options: Mapping[str, Any]) -> CommonOptions:
    """Options of a protocol, checked.

    Raises:
        InvalidTextError: one isn't known or has a wrong form.
    """
    try:
        return OPTIONS[protocol].model_validate(options)
    except ValidationError as error:
        fault = error.errors(include_input=False, include_url=False)[0]
        place = ".".join(map(str, fault["loc"]))
        raise InvalidTextError(f"The option {place}: {fault['msg'].removeprefix('Value error, ')}.") from None
