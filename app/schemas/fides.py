"""Bodies of Fides' policy webhooks, and of the answers to them.

Fides adds fields from version to version: what isn't named here is let through and not looked at.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated, Final, Literal, TypeAlias

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StrictInt, StrictStr
from pydantic.config import JsonDict

from app.schemas import Answer

MOST_IDENTITIES: Final = 100

_REQUEST: Final[JsonDict] = {
    "privacy_request_id": "pri_8ff4c1b4-9bd8-4ed7-9bb4-5c1f9b0f0c7e",
    "privacy_request_status": "in_processing",
    "direction": "two_way",
    "callback_type": "pre",
    "identity": {"email": "max@example.org", "phone_number": None, "loyalty_id": {"label": "Loyalty", "value": "81"}},
    "policy_action": "erasure",
    "privacy_request": {
        "id": "pri_8ff4c1b4-9bd8-4ed7-9bb4-5c1f9b0f0c7e",
        "requested_at": "2026-01-05T09:40:00Z",
        "due_date": "2026-02-19T09:40:00Z",
        "policy": {"key": "default_erasure_policy", "rules": [{"action_type": "erasure"}]},
    },
    "timestamp": "2026-01-05T09:40:02",
}


def _in_utc(value: datetime) -> datetime:
    if value.tzinfo is None:  # as Fides writes it
        return value.replace(tzinfo=UTC)
    try:
        return value.astimezone(UTC)
    except OverflowError:
        raise ValueError("a moment of the years 1 to 9999") from None


Moment = Annotated[datetime, AfterValidator(_in_utc)]
One: TypeAlias = StrictInt | StrictStr
Value: TypeAlias = One | Annotated[list[One], Field(max_length=MOST_IDENTITIES)]


class _Sent(BaseModel):
    """Something of a webhook's body."""

    model_config = ConfigDict(extra="ignore", allow_inf_nan=False)


class FidesIdentity(_Sent):
    """An identity of a type that the operator of Fides added."""

    label: str | None = None
    value: Value | None = Field(description="The identity, or several.")


class FidesRule(_Sent):
    """A part of a policy."""

    action_type: str | None = None


class FidesPolicy(_Sent):
    """What is done for a privacy request."""

    rules: Annotated[list[FidesRule], Field(max_length=1_000)] | None = None


class FidesPrivacyRequest(_Sent):
    """What else Fides knows of a privacy request."""

    requested_at: Moment | None = None
    due_date: Moment | None = Field(default=None, description="When it has to be done.")
    policy: FidesPolicy | None = None


class FidesWebhook(_Sent):
    """What all webhooks say."""

    model_config = ConfigDict(json_schema_extra={"examples": [_REQUEST]})

    privacy_request_id: str = Field(
        pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]{0,99}$", description="With the type of the call, the request's id here."
    )
    direction: Literal["one_way", "two_way"] = Field(
        default="two_way", description="Whether Fides listens to the answer."
    )
    identity: dict[str, Value | FidesIdentity | None] = Field(
        max_length=MOST_IDENTITIES, description="Whom it is about; null where an identity isn't known."
    )
    policy_action: str | None = Field(
        default=None, pattern=r"^[a-z_]{1,32}$", description="Of the policy's first rule; its other rules count, too."
    )
    privacy_request: FidesPrivacyRequest = Field(default_factory=FidesPrivacyRequest)
    timestamp: Moment | None = Field(default=None, description="Of the call; without a zone it is in UTC.")


class FidesPreWebhook(FidesWebhook):
    """Called before Fides does what a policy says."""

    callback_type: Literal["pre"]


class FidesPostWebhook(FidesWebhook):
    """Called when Fides has done what a policy says."""

    model_config = ConfigDict(json_schema_extra={"examples": [{**_REQUEST, "callback_type": "post"}]})

    callback_type: Literal["post"]


class FidesPreApprovalWebhook(FidesWebhook):
    """Called before somebody approves of a privacy request."""

    model_config = ConfigDict(json_schema_extra={"examples": [{**_REQUEST, "callback_type": "pre_approval"}]})

    callback_type: Literal["pre_approval"]


class HaltAnswer(Answer):
    """Whether Fides goes on."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"halt": False}]})

    halt: bool = Field(description="True pauses the privacy request until it is resumed from here.")
