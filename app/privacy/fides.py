"""Fides' policy webhooks: Fides calls before it erases (pre), when it has erased (post), and before somebody approves.

`pre` is where the evidence is made while the data is still there. Fides waits for the answer without a time-out, so it
is answered within a moment: `halt` false where the evidence is stored by then, else true. Fides then pauses the
person's request until it is resumed, which is a message, sent when the evidence is there. Where and with what token it
is sent stands in headers of the webhook; the address is relative, for Fides doesn't know its own, and is accepted in
that form alone.

    pre             predicts, whatever the connection's mode is: what will be erased is still there
    post            the connection's mode: with "erase" what the service holds of the person is erased now, too
    pre_approval    predicts; once the evidence is stored, the request is called eligible, whatever the evidence says:
                    that a model would change isn't a reason to deny a person's right

Each of the three is a request of its own here: a policy with webhooks of several types has evidence of each. The same
webhook again, as after a failure, is the same request; it brings another time and another token, so what it asks is
told by the identities, the action and the type alone.

A request that failed leaves Fides' paused, where the connection's `on_failure` is "hold"; it is resumed when the
request is tried again and done. One before an approval isn't called anything then, and a person decides. A webhook
without erasure in its policy is no request; it is recorded, and Fides goes on.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from typing import Any, Final, Literal, cast

from sqlalchemy.orm import Session

from app import catalog
from app.errors import InvalidTextError, TargetError
from app.privacy.connections import OpenedConnection
from app.privacy.identities import Identity
from app.privacy.messages import Kind, Message
from app.privacy.options import FidesOptions, Mode
from app.schemas.fides import MOST_IDENTITIES, FidesIdentity, FidesWebhook
from app.secret import Secret
from app.tables import ErasureRequest

PROTOCOL: Final = "fides"

CallbackType = Literal["pre", "post", "pre_approval"]

_API: Final = "/api/v1"
_TOKEN: Final = re.compile(r"[\x21-\x7e]{1,8000}")
_LONGEST_REPLY_TO: Final = 300
_ERASURE: Final = "erasure"

_REPLIES: Final[dict[str, tuple[str, ...]]] = {
    "pre": ("reply-to",),
    "pre_approval": ("reply-to-eligible", "reply-to-approve"),  # the second alone until 2.79
    "post": (),
}
"""Headers that say where a webhook is answered later; the first that is there."""

_KINDS: Final[dict[str, Kind]] = {"pre": "fides_resume", "pre_approval": "fides_pre_approval"}


def asks_for_erasure(body: FidesWebhook) -> bool:
    """Whether a policy erases: by its first rule, which is the action, or by another one."""
    policy = body.privacy_request.policy
    rules = (policy.rules if policy is not None else None) or []
    return _ERASURE in (body.policy_action, *(rule.action_type for rule in rules))


def caller_id(body: FidesWebhook, callback_type: CallbackType) -> str:
    """What Fides knows the request by."""
    return f"{body.privacy_request_id}:{callback_type}"


def identities(body: FidesWebhook, connection: OpenedConnection) -> tuple[Identity, ...]:
    """Those that have a value, by our words for their types.

    Raises:
        InvalidTextError: there is none, or there are too many.
    """
    words = connection.options.identity_types
    found: dict[Identity, None] = {}
    for kind, sent in body.identity.items():
        value = sent.value if isinstance(sent, FidesIdentity) else sent
        for one in value if isinstance(value, list) else [value]:
            if one is not None and one != "":
                found[Identity(kind=words.get(kind, kind), value=str(one))] = None
    if not found:
        raise InvalidTextError(
            "The webhook names no identity: nobody can be looked for. Fides forgets identities when their time in its "
            "cache is over; make the privacy request anew."
        )
    if len(found) > MOST_IDENTITIES:
        raise InvalidTextError(f"A webhook names at most {MOST_IDENTITIES} identities.")
    return tuple(found)


def asked(body: FidesWebhook, callback_type: CallbackType, named: Iterable[Identity]) -> bytes:
    """What identifies the question: the same in each try of a webhook, unlike its body."""
    persons = sorted((one.kind, one.value) for one in named)
    return json.dumps([callback_type, body.policy_action, persons]).encode()


def mode(callback_type: CallbackType, connection: OpenedConnection) -> Mode:
    """What is done for a webhook's request: only when Fides has erased, more than to predict."""
    return connection.options.mode if callback_type == "post" else "predict"


def reply(body: FidesWebhook, callback_type: CallbackType, headers: Mapping[str, str]) -> dict[str, str]:
    """Where and with what token a webhook is answered later, to be sealed; nothing where that isn't expected.

    Raises:
        TargetError: the address isn't a relative one of this privacy request.
        InvalidTextError: address or token is missing, or the token isn't one.
    """
    expected = _REPLIES[callback_type]
    if not expected or (callback_type == "pre" and body.direction == "one_way"):
        return {}
    found = next((name for name in expected if name in headers), None)
    if found is None or "reply-to-token" not in headers:
        raise InvalidTextError(f"A {callback_type} webhook has the headers {expected[-1]} and reply-to-token.")
    path, token = headers[found], headers["reply-to-token"]
    form = rf"(/[a-z0-9_-]+)*/privacy-request/{re.escape(body.privacy_request_id)}(/[a-z-]+)+"
    if len(path) > _LONGEST_REPLY_TO or not re.fullmatch(form, path):
        raise TargetError(
            f"The header {found} has to be an address of this privacy request, relative to Fides' own, such as "
            "/privacy-request/ID/resume."
        )
    if not _TOKEN.fullmatch(token):
        raise InvalidTextError("The header reply-to-token is 1 to 8,000 printable ASCII characters.")
    return {"reply_to": path.removeprefix(_API), "reply_to_token": token}


def halts(row: ErasureRequest, connection: OpenedConnection) -> bool:
    """Whether Fides has to wait for a request that is as this row is."""
    options = cast("FidesOptions", connection.options)
    return row.state in ("pending", "in_progress") or (row.state == "failed" and options.on_failure == "hold")


def messages(row: ErasureRequest, connection: OpenedConnection, sealed: dict[str, Any]) -> list[Message]:
    """What Fides is told of a change: that it may go on, once, where it waits for that.

    Args:
        row: as it is after the change.
        connection: to Fides.
        sealed: the type of the webhook's call, and what `reply` gave, where that was kept already.
    """
    if sealed.get("callback_type") == "pre_approval":
        told = row.state == "completed"
    else:
        told = row.state in catalog.FINAL_STATES and not halts(row, connection)
    return _replies(connection, sealed) if told else []


def reply_now(
    session: Session,
    secret: Secret,
    connection: OpenedConnection,
    callback_type: CallbackType,
    sealed: dict[str, str],
    request: str | None,
) -> None:
    """Write the reply to a webhook for which no change will: it is no request, or one that is done.

    Args:
        session: a writing transaction.
        secret: of the installation.
        connection: to Fides.
        callback_type: of the webhook.
        sealed: what `reply` gave.
        request: id of the request; None where it is none.
    """
    for message in _replies(connection, {"callback_type": callback_type, **sealed}):
        catalog.add_delivery(
            session,
            secret,
            connection=connection.name,
            request_id=request,
            kind=message.kind,
            url=message.url,
            method=message.method,
            headers=dict(message.headers),
            body=message.body,
        )


def _replies(connection: OpenedConnection, sealed: dict[str, Any]) -> list[Message]:
    if "reply_to" not in sealed:
        return []
    options = cast("FidesOptions", connection.options)
    return [
        Message(
            kind=_KINDS[sealed["callback_type"]],
            url=f"{options.base_url}{_API}{sealed['reply_to']}",
            body="{}",
            headers={"Authorization": f"Bearer {sealed['reply_to_token']}"},
        )
    ]
