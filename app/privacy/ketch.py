"""Ketch's forwarder (dsr/v1): a deletion is answered with how it does, and its end is told to its callbacks.

Ketch's words have no `failed`, and its `pending` is for what waits for somebody's approval, which nothing does here:

    pending, in_progress    in_progress
    completed               completed, with the reason no_match where nobody was found; executed where what is held of
                            the person was erased; unknown where the connection's mode is predict, and nothing was
    cancelled               cancelled
    failed                  unknown: it may be tried again, and Ketch gives it up by itself some time after it was due

`outcome` is the one place in such protocols that carries the prediction back: of each measured value what the model
has, what it would have without the person's documents, and whether the change is material. No text of the person's is
in it (`results`). Only the end is told, since the answer tells all that comes before. Who is asked about is said by the
identities alone; nothing else of the person is read.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any, Final

from sqlalchemy.orm import Session

from app import catalog
from app.errors import NotFoundError, UnauthorisedError
from app.privacy.connections import OpenedConnection, authenticated
from app.privacy.identities import Identity
from app.privacy.messages import Message
from app.privacy.options import KetchOptions
from app.privacy.outgoing import check_target
from app.schemas.ketch import API_VERSION, KetchDeleteAnswer, KetchDeleteRequest, KetchStatus, Reason, Status
from app.secret import Secret
from app.tables import ErasureRequest

PROTOCOL: Final = "ketch"

_LONGEST_REGULATION: Final = 32
_STATUSES: Final[dict[str, Status]] = {
    "pending": "in_progress",
    "in_progress": "in_progress",
    "completed": "completed",
    "cancelled": "cancelled",
    "failed": "unknown",
}
_ENDS: Final = ("completed", "cancelled", "failed")


def connection_of(session: Session, secret: Secret, name: str, headers: Any) -> OpenedConnection:
    """The connection that a request names and shows the credential of, in the header that its options say.

    Args:
        session: any transaction.
        secret: of the installation.
        name: in the address.
        headers: of the request.

    Raises:
        UnauthorisedError: there is no such connection, or it isn't the one whose credential is shown.
    """
    try:
        row = catalog.get_connection(session, name)
        header = KetchOptions.model_validate(row.options).header if row.protocol == PROTOCOL else ""
        opened = authenticated(session, secret, PROTOCOL, headers, header=header)
    except (NotFoundError, UnauthorisedError):  # which of the two isn't for strangers to know
        raise _unauthorised() from None
    if opened.name != name:
        raise _unauthorised()
    return opened


def identities(body: KetchDeleteRequest, connection: OpenedConnection) -> tuple[Identity, ...]:
    """Who is asked about, by our words for types."""
    words = connection.options.identity_types
    return tuple(
        Identity(kind=words.get(one.identitySpace, one.identitySpace), value=one.identityValue, form=one.identityFormat)
        for one in body.request.identities
    )


def asked(body: KetchDeleteRequest) -> bytes:
    """What makes two requests the same: not the callbacks, whose tokens may be new each time."""
    deletion = body.request
    return json.dumps(
        [
            deletion.regulation,
            [[one.identitySpace, one.identityFormat, one.identityValue] for one in deletion.identities],
            deletion.submittedTimestamp,
            deletion.dueTimestamp,
        ]
    ).encode()


def regulation(body: KetchDeleteRequest) -> str | None:
    """Ketch's code in small letters; None of one that can't be kept."""
    code = body.request.regulation.lower()
    return code if 0 < len(code) <= _LONGEST_REGULATION and code.isprintable() else None


def sealed(body: KetchDeleteRequest, connection: OpenedConnection) -> dict[str, Any]:
    """What callbacks need.

    Raises:
        TargetError: one mustn't be called.
    """
    for one in body.request.callbacks:
        check_target(one.url, connection.options)
    return {
        "tenant": body.metadata.tenant,
        "callbacks": [{"url": one.url, "headers": one.headers} for one in body.request.callbacks],
    }


def moment(seconds: int) -> datetime:
    """Ketch's times."""
    return datetime.fromtimestamp(seconds, UTC)


def answer(row: ErasureRequest, tenant: str) -> KetchDeleteAnswer:
    """The answer to a deletion, as it is now."""
    return KetchDeleteAnswer.model_validate(
        {**_envelope(row, tenant, "DeleteResponse"), "response": _status(row).model_dump()}
    )


def messages(row: ErasureRequest, connection: OpenedConnection, sealed: dict[str, Any]) -> list[Message]:
    """What Ketch is told of a change: the end, at each of the request's callbacks.

    Args:
        row: of the request, as it is now.
        connection: that it came by.
        sealed: what the function of this name gave.
    """
    if row.state not in _ENDS:
        return []
    event = {**_envelope(row, sealed.get("tenant", ""), "DeleteStatusEvent"), "event": _status(row).model_dump()}
    body = json.dumps(event, ensure_ascii=False, separators=(",", ":"))
    return [
        Message(kind="ketch_status", url=one["url"], body=body, headers=one["headers"])
        for one in sealed.get("callbacks", ())
    ]


def _unauthorised() -> UnauthorisedError:
    return UnauthorisedError("The credential of this connection is needed, in the header that Ketch is set up to send.")


def _envelope(row: ErasureRequest, tenant: str, kind: str) -> dict[str, Any]:
    return {"apiVersion": API_VERSION, "kind": kind, "metadata": {"uid": row.caller_id, "tenant": tenant}}


def _status(row: ErasureRequest) -> KetchStatus:
    reason, message = _reason(row)
    return KetchStatus(
        status=_STATUSES[row.state],
        reason=reason,
        expectedCompletionTimestamp=int(row.due_at.timestamp()),
        requestID=row.id,
        resultMessage=message,
        outcome=_outcome(row) if row.state == "completed" else {},
    )


def _reason(row: ErasureRequest) -> tuple[Reason, str]:
    if row.state == "completed":
        if row.outcome == "no_match":
            return "no_match", "Nobody was found by these identities."
        if row.mode == "erase":
            return "executed", "Predicted; then what is held of the person here was erased."
        return "unknown", "Predicted only; nothing was erased."
    if row.state == "failed":
        return "unknown", "Nothing could be predicted, and nothing was erased."
    return "unknown", "Cancelled." if row.state == "cancelled" else "Not done yet."


def _outcome(row: ErasureRequest) -> dict[str, Any]:
    """What was predicted, in short; the evidence has all of it."""
    assert row.evidence is not None
    evidence = json.loads(row.evidence)
    return {
        "verdict": evidence["verdict"],
        "sentence": evidence["sentence"],
        "erased": row.mode == "erase" and row.outcome == "answered",
        "evidence": row.id,
        "measurements": list(_measurements(evidence)),
    }


def _measurements(evidence: dict[str, Any]) -> Iterator[dict[str, Any]]:
    for report in evidence["reports"]:
        where = {
            "dataset": report["dataset"],
            "sketch": report["sketch"]["name"],
            "version": report["sketch"]["version"],
        }
        for result in report["results"]:
            said = {**where, **{name: result[name] for name in ("label", "unit", "confidence", "material")}}
            if result["kind"] != "next_token":
                yield {**said, **_values(result)}
            else:
                yield {
                    **said,
                    "total_variation": result["total_variation"],
                    "tokens": [{"token": one["token"], **_values(one)} for one in result["tokens"]],
                }


def _values(measured: dict[str, Any]) -> dict[str, Any]:
    return {name: measured[name] for name in ("baseline", "estimate", "interval", "retrained", "material")}
