"""OpenDSR 2.0, whose processor this is, and OpenGDPR 1.0, its former name: the one job in their words.

A controller sends a person's request, is answered with a signed receipt, and is told of each change by signed
callbacks. Only erasure is done. `completed` is said when the evidence is filed and what is held of the person here is
gone, so a connection's mode is always `erase` (`OpenDsrOptions`); whoever wants the prediction alone asks the native
API, or by Fides. The signature is RSA's of PKCS#1 v1.5 with SHA-256 over the bytes that are sent, hashed once; it is in
a header alone, since a body can't hold its own.

Where the specification says nothing, or contradicts itself:

    same id, same body       the first receipt, byte for byte; the signature too, as long as the key is the same
    same id, another body    400
    unknown id               404, and so are those of other connections
    DELETE again             202 as at first, for the answer may have been lost; from any other state but pending 400
    identities in two forms  a list, or mParticle's object {type: {value, encoding}}
    identities in extensions under our domain {"subject_identities": …}, where `subject_identities` is missing
    failed                   in_progress, expected 45 days later, by which both laws let a deadline be extended; nothing
                             was erased
    extensions               have under our domain {"status": our word for the state, "reason": …}, the reason of what
                             is final: of `completed` it is answered or no_match, of `failed` not_answered
    tried again afterwards   in_progress, not pending again

The receipt holds the whole request, with the identities. It is never stored: what else is in it is, and the same
request brings the rest again. Nor is its signature, by which a reader of the catalog could try out identities.
"""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final, cast

from pydantic import BaseModel, ValidationError
from sqlalchemy.orm import Session

from app import catalog
from app.errors import ConflictError, InvalidTextError, NotFoundError, TargetError
from app.privacy.certificates import sign
from app.privacy.connections import OpenedConnection
from app.privacy.identities import Identity, check_identity
from app.privacy.messages import Message
from app.privacy.options import OpenDsrOptions
from app.privacy.outgoing import check_target
from app.schemas.opendsr import (
    API_VERSION,
    IDENTITY_FORMATS,
    IDENTITY_TYPES,
    MOST_CALLBACKS,
    MOST_IDENTITIES,
    UUID_PATTERN,
    CallbackBody,
    CancellationAnswer,
    DiscoveryAnswer,
    Identities,
    OldSubjectRequest,
    OwnExtension,
    ReceiptAnswer,
    RefusalAnswer,
    Status,
    StatusAnswer,
    SubjectRequest,
    SupportedIdentity,
)
from app.tables import ErasureRequest, PrivacyConnection

PROTOCOL: Final = "opendsr"

EXTENSION: Final = timedelta(days=45)
"""How much later a failed request is expected to be completed."""

_MOST_FAULTS: Final = 10

_FORMS: Final = {
    "regulation": "is gdpr or ccpa",
    "subject_request_id": "is a UUID of version 4 in small letters",
    "subject_request_type": "is erasure",
    "submitted_time": "is a time of RFC 3339, such as 2026-01-31T15:00:00Z",
    "subject_identities": (
        f"is a list of 1 to {MOST_IDENTITIES} objects of identity_type, identity_value and identity_format, which is "
        f"{', '.join(IDENTITY_FORMATS[:-1])} or {IDENTITY_FORMATS[-1]}"
    ),
    "api_version": "is a string such as 2.0",
    "status_callback_urls": f"is a list of at most {MOST_CALLBACKS} addresses",
    "extensions": "is an object of domains",
}
"""What is said of a field that has another form: whatever was sent, nothing of it is told."""

_NOT_JSON: Final = "The body isn't a JSON object in UTF-8, or is nested too deeply."
_NOT_SAID_JSON: Final = "The header Content-Type has to be application/json."


class RefusedError(InvalidTextError):
    """A request that OpenDSR's rules refuse.

    Attributes:
        faults: what is wrong, (reason, message); nothing of the request is in them.
    """

    def __init__(self, *faults: tuple[str, str]) -> None:
        super().__init__(faults[0][1])
        self.faults = faults


@dataclass(frozen=True, kw_only=True)
class Asked:
    """What a request asks.

    Attributes:
        id: the controller's.
        identities: of the person, by our words for types.
        regulation: that it is made under; None where an old request doesn't say so.
        submitted_at: when the person asked.
        sealed: what callbacks need.
    """

    id: str
    identities: tuple[Identity, ...]
    regulation: str | None
    submitted_at: datetime
    sealed: dict[str, Any]


def read(body: bytes, content_type: str | None, options: OpenDsrOptions, *, old: bool = False) -> Asked:
    """What a request asks, where it is one.

    Args:
        body: as it was sent.
        content_type: the header.
        options: of the connection that it came by.
        old: whether it is one of OpenGDPR, which needs no regulation.

    Raises:
        RefusedError: it has another form, asks what isn't done here, or names a callback that mustn't be called.
        InvalidTextError: an identity can't be one.
    """
    if content_type is None or content_type.partition(";")[0].strip().lower() != "application/json":
        raise RefusedError(("contentType", _NOT_SAID_JSON))
    sent = _parsed(OldSubjectRequest if old else SubjectRequest, body)
    if sent.subject_request_type != "erasure":
        raise RefusedError(("unsupported", "subject_request_type is erasure: nothing else is done here."))
    return Asked(
        id=sent.subject_request_id,
        identities=tuple(_identities(_given(sent, options), options)),
        regulation=sent.regulation,
        submitted_at=_moment(sent.submitted_time),
        sealed={"callbacks": _callbacks(sent.status_callback_urls, options)},
    )


def check_id(subject_request_id: str) -> str:
    """The id itself, where it may be one.

    Raises:
        RefusedError: it isn't a UUID of version 4 in small letters.
    """
    if re.fullmatch(UUID_PATTERN[1:-1], subject_request_id) is None:
        raise RefusedError(_fault("subject_request_id", "invalid"))
    return subject_request_id


def answer_of(row: ErasureRequest, options: OpenDsrOptions) -> str:
    """What is kept of a receipt, JSON: all but the request itself."""
    return json.dumps(
        {
            "controller_id": options.controller_id,
            "expected_completion_time": _written(row.due_at),
            "received_time": _written(row.received_at),
            "subject_request_id": row.caller_id,
        }
    )


def receipt(answer: str, body: bytes) -> bytes:
    """The receipt: what was kept of it, and the request.

    Args:
        answer: as `answer_of` made it.
        body: of the request, which is the same each time.
    """
    encoded = base64.b64encode(body).decode("ascii")
    return _json(ReceiptAnswer.model_validate({**json.loads(answer), "encoded_request": encoded}))


def status(row: ErasureRequest, connection: OpenedConnection) -> bytes:
    """How a request does."""
    return _json(StatusAnswer(**_status(row, connection)))


def check_cancellable(row: ErasureRequest) -> None:
    """Refuse to cancel a request that was begun with once, though it may wait to be tried again.

    Raises:
        ConflictError: it was.
    """
    if row.state == "pending" and row.started_at is not None:
        raise ConflictError("The request is in progress: only a pending one can be cancelled.")


def cancellation(row: ErasureRequest, connection: OpenedConnection) -> bytes:
    """That a request was cancelled."""
    assert row.finished_at is not None
    return _json(
        CancellationAnswer(
            controller_id=options_of(connection).controller_id,
            received_time=_written(row.finished_at),
            subject_request_id=row.caller_id,
            api_version=API_VERSION,
        )
    )


def messages(row: ErasureRequest, connection: OpenedConnection, sealed: dict[str, Any]) -> list[Message]:
    """What the controller is told of a change: the status, to each of the request's addresses.

    The signature comes with each attempt (`signature_headers`), so that it is the present key's.

    Args:
        row: of the request, as it is now.
        connection: that it came by.
        sealed: that of `Asked`.
    """
    values = _status(row, connection)
    return [
        Message(
            kind="opendsr_callback",
            url=url,
            body=_json(CallbackBody(**values, status_callback_url=url)).decode(),
        )
        for url in sealed.get("callbacks", ())
    ]


def signature_headers(connection: OpenedConnection, body: bytes, *, old: bool = True) -> dict[str, str]:
    """The headers that sign what is sent to a controller.

    Args:
        connection: of the controller.
        body: the bytes that are sent.
        old: whether to send the headers by OpenGDPR's names, too, as in callbacks, whose readers may know these alone.

    Returns:
        The headers; the signature is base64 on one line.
    """
    assert connection.secrets.private_key is not None  # there is no such connection without
    domain, signature = options_of(connection).domain, sign(connection.secrets.private_key, body)
    names = ("OpenDSR", "OpenGDPR") if old else ("OpenDSR",)
    return {
        header: value
        for name in names
        for header, value in ((f"X-{name}-Processor-Domain", domain), (f"X-{name}-Signature", signature))
    }


def processor_of(session: Session, host: str) -> PrivacyConnection:
    """A connection whose domain a request came to; of several the last made, all of which sign for the same domain.

    Args:
        session: any transaction.
        host: the request's header.

    Raises:
        NotFoundError: there is none.
    """
    domain = host.partition(":")[0].rstrip(".").lower()
    found = [one for one in catalog.connections_of(session, PROTOCOL) if one.options["domain"] == domain]
    if not found:
        raise NotFoundError("There is no processor of this domain.")
    return max(found, key=lambda one: one.created_at)


def discovery(row: PrivacyConnection) -> bytes:
    """What is understood by a connection. Its secrets aren't needed: this isn't signed, for trust begins here."""
    options = OpenDsrOptions.model_validate(row.options)
    return _json(
        DiscoveryAnswer(
            api_version=API_VERSION,
            supported_identities=[
                SupportedIdentity(identity_type=kind, identity_format=form)
                for kind in _known_types(options)
                for form in IDENTITY_FORMATS
            ],
            supported_subject_request_types=["erasure"],
            processor_certificate=f"https://{options.domain}/v2/certificate",
        )
    )


def refusal(code: int, domain: str, faults: Sequence[tuple[str, str]]) -> bytes:
    """A refusal in OpenDSR's shape.

    Args:
        code: the HTTP status.
        domain: what refuses it.
        faults: (reason, message) each; nothing of the request is in them.
    """
    errors = [{"domain": domain, "reason": reason, "message": message} for reason, message in faults]
    return _json(RefusalAnswer.model_validate({"error": {"code": code, "message": faults[0][1], "errors": errors}}))


def options_of(connection: OpenedConnection) -> OpenDsrOptions:
    """The options of a connection of this protocol."""
    return cast("OpenDsrOptions", connection.options)


def _parsed(form: type[OldSubjectRequest], body: bytes) -> OldSubjectRequest:
    try:
        return form.model_validate_json(body)
    except ValidationError as error:
        raise RefusedError(*_faults(error)) from None


def _faults(error: ValidationError) -> list[tuple[str, str]]:
    """What is wrong, by the fields alone: a message of pydantic's, or a key, may hold a part of the request."""
    found: dict[tuple[str, str], None] = {}
    for one in error.errors(include_url=False, include_context=False, include_input=False):
        location = one["loc"]
        if not location:
            return [("json", _NOT_JSON)]
        missing = len(location) == 1 and one["type"] == "missing"
        found[_fault(str(location[0]), "missing" if missing else "invalid")] = None
    return list(found)[:_MOST_FAULTS]


def _fault(field: str, reason: str) -> tuple[str, str]:
    return reason, f"{field} is missing." if reason == "missing" else f"{field} {_FORMS[field]}."


def _moment(time: str) -> datetime:
    try:
        return datetime.fromisoformat(time.upper()).astimezone(UTC)
    except ValueError:  # the 31st of February
        raise RefusedError(_fault("submitted_time", "invalid")) from None


def _given(sent: OldSubjectRequest, options: OpenDsrOptions) -> Identities:
    """The identities, wherever they are."""
    if sent.subject_identities is not None:
        return sent.subject_identities
    own = (sent.extensions or {}).get(options.domain)
    if own is None:
        raise RefusedError(_fault("subject_identities", "missing"))
    try:
        return OwnExtension.model_validate(own).subject_identities
    except ValidationError:
        raise RefusedError(_fault("subject_identities", "invalid")) from None


def _identities(given: Identities, options: OpenDsrOptions) -> Iterator[Identity]:
    known = _known_types(options)
    triples: Iterable[tuple[str, str, Any]]
    if isinstance(given, list):
        triples = ((one.identity_type, one.identity_value, one.identity_format) for one in given)
    else:
        triples = ((kind, one.value, one.encoding) for kind, one in given.items())
    for kind, value, form in triples:
        if kind not in known:
            raise RefusedError(("unsupported", "An identity_type isn't supported here: GET /v2/discovery lists all."))
        yield check_identity(Identity(kind=options.identity_types.get(kind, kind), value=value, form=form))


def _known_types(options: OpenDsrOptions) -> list[str]:
    """The specification's, and those that the connection has words of ours for."""
    return list(dict.fromkeys((*IDENTITY_TYPES, *options.identity_types)))


def _callbacks(urls: Sequence[str], options: OpenDsrOptions) -> list[str]:
    """The addresses, once each.

    Raises:
        RefusedError: one mustn't be called.
    """
    for number, url in enumerate(urls):
        try:
            check_target(url, options)
        except TargetError:
            raise RefusedError(
                ("target", f"status_callback_urls.{number} isn't an address that this processor may call.")
            ) from None
    return list(dict.fromkeys(urls))


def _status(row: ErasureRequest, connection: OpenedConnection) -> dict[str, Any]:
    """What status and callbacks have in common."""
    options = options_of(connection)
    done, failed = row.state == "completed", row.state == "failed"
    place = f"{options.results_base_url}/erasure-requests/{row.id}/evidence"
    return {
        "controller_id": options.controller_id,
        "expected_completion_time": _written(row.due_at + EXTENSION if failed else row.due_at),
        "subject_request_id": row.caller_id,
        "request_status": _state(row),
        "api_version": API_VERSION,
        "results_url": place if done and options.results_base_url is not None else None,
        "results_count": row.documents or 0 if done else None,
        "extensions": {options.domain: _own_status(row)},
    }


def _state(row: ErasureRequest) -> Status:
    begun = row.state in ("in_progress", "failed") or (row.state == "pending" and row.started_at is not None)
    return "in_progress" if begun else cast("Status", row.state)


def _own_status(row: ErasureRequest) -> dict[str, str]:
    reason = "not_answered" if row.state == "failed" else row.outcome if row.state == "completed" else None
    return {"status": row.state} if reason is None else {"status": row.state, "reason": reason}


def _written(moment: datetime) -> str:
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _json(answer: BaseModel) -> bytes:
    return answer.model_dump_json().encode()
