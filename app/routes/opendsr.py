"""OpenDSR 2.0 below /v2, and OpenGDPR 1.0, its former name, below /v1, for the controllers of OpenDSR connections.

Answers are signed, but for what discovery says, and refusals. What the protocol refuses has the protocol's shape: 400,
401 and 404. What the service refuses whatever it is asked stays a problem (RFC 9457), as 413 of a body that is too
large, or 503.
"""

from __future__ import annotations

from typing import Annotated, Any, Final

from fastapi import APIRouter, Depends, Path, Request, Response
from starlette.requests import ClientDisconnect

from app.actors import Actor
from app.db import transaction
from app.errors import ConflictError, InvalidTextError, NotFoundError, UnauthorisedError
from app.guard import Handler, Peer
from app.openapi import Responses, declared
from app.parts import parts_of
from app.privacy import opendsr
from app.privacy.connections import OpenedConnection, authenticated, open_connection
from app.privacy.requests import Received
from app.problems import MEDIA_TYPE
from app.schemas.opendsr import (
    CancellationAnswer,
    DiscoveryAnswer,
    OldSubjectRequest,
    ReceiptAnswer,
    RefusalAnswer,
    StatusAnswer,
    SubjectRequest,
)

_JSON: Final = "application/json"
_PEM: Final = "application/pem-certificate-chain"  # RFC 8555
_NO_CACHE: Final = {"Pragma": "no-cache"}  # beside Cache-Control, which every answer of the service has
_REFUSALS: Final[dict[type[Exception], tuple[int, str, str]]] = {
    UnauthorisedError: (401, "Authentication", "unauthorised"),
    NotFoundError: (404, "Request", "notFound"),
    ConflictError: (400, "Request", "conflict"),
    InvalidTextError: (400, "Validation", "invalid"),
}
"""What the protocol has a shape for: status, domain and reason."""


class OpenDsrRoute(Peer):
    """A route whose refusals have OpenDSR's shape."""

    def get_route_handler(self) -> Handler:
        """What answers a request."""
        handler = super().get_route_handler()

        async def answered(request: Request) -> Response:
            try:
                return await handler(request)
            except tuple(_REFUSALS) as error:
                return _refused(request, error)

        return answered


def _refused(request: Request, error: Exception) -> Response:
    code, domain, reason = next(_REFUSALS[one] for one in type(error).__mro__ if one in _REFUSALS)
    faults = error.faults if isinstance(error, opendsr.RefusedError) else [(reason, str(error))]
    request.state.problem = f"opendsr-{code}"  # for those who observe
    shown = {"WWW-Authenticate": "Bearer"} if code == 401 else {}
    return Response(
        opendsr.refusal(code, domain, faults), status_code=code, media_type=_JSON, headers={**_NO_CACHE, **shown}
    )


router = APIRouter(tags=["opendsr"], route_class=OpenDsrRoute)


def the_connection(request: Request) -> OpenedConnection:
    """The connection of whoever asks; before the body is read."""
    with transaction(request.app.state.database, writes=False) as session:
        return authenticated(session, parts_of(request).secret, opendsr.PROTOCOL, request.headers)


async def raw_body(request: Request) -> bytes:
    """The body as it was sent, which is what a receipt holds."""
    try:
        return await request.body()
    except ClientDisconnect:
        raise InvalidTextError("The body didn't arrive.") from None


Connection = Annotated[OpenedConnection, Depends(the_connection)]
Body = Annotated[bytes, Depends(raw_body)]
SubjectRequestId = Annotated[
    str,
    Path(
        description="Id of the request, the controller's.",
        openapi_examples={"demo": {"value": "a7551968-d5d6-44b2-9831-815ac9017798"}},
    ),
]

_SIGNED: Final = {
    "X-OpenDSR-Processor-Domain": {
        "description": "The domain that signs.",
        "required": True,
        "schema": {"type": "string"},
    },
    "X-OpenDSR-Signature": {
        "description": "Of the body's bytes: RSA, PKCS#1 v1.5 with SHA-256, base64.",
        "required": True,
        "schema": {"type": "string", "pattern": "^[A-Za-z0-9+/]+={0,2}$"},
    },
}
_OLD_SIGNED: Final = {**_SIGNED, **{name.replace("OpenDSR", "OpenGDPR"): one for name, one in _SIGNED.items()}}
_WHAT: Final = {
    400: "What OpenDSR refuses",
    401: "No valid credential of a connection",
    404: "Unknown request, or domain",
}
_SERVICES: Final = {
    "description": "What the service refuses whatever it is asked",
    "content": {MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}}},
}


def _takes(form: type[OldSubjectRequest]) -> dict[str, Any]:
    """The declaration of a body, which is read as it was sent, and checked only then."""
    schema = {"$ref": f"#/components/schemas/{form.__name__}"}
    return {"requestBody": {"required": True, "content": {_JSON: {"schema": schema}}}}


def _answers(status: int, *refused: int, old: bool = False, signed: bool = True, body: bool = False) -> Responses:
    """The declaration of what is answered."""
    responses: Responses = {**declared(body=body, slow=body), "default": _SERVICES}
    if signed:
        responses[status] = {"headers": _OLD_SIGNED if old else _SIGNED}
    return responses | {code: {"model": RefusalAnswer, "description": _WHAT[code]} for code in refused}


@router.get(
    "/v2/discovery",
    operation_id="opendsr_discovery",
    response_model=DiscoveryAnswer,
    responses=_answers(200, 404, signed=False),
)
def discovery(request: Request) -> Response:
    """Tell what this processor understands, and where its certificate is: the one of the domain that is asked."""
    with transaction(request.app.state.database, writes=False) as session:
        row = opendsr.processor_of(session, request.headers.get("host", ""))
    return Response(opendsr.discovery(row), media_type=_JSON)


@router.get(
    "/v2/certificate",
    operation_id="opendsr_certificate",
    response_class=Response,
    responses={
        **_answers(200, 404, signed=False),
        200: {
            "description": "The certificate, and its issuers'.",
            "content": {_PEM: {"schema": {"type": "string", "examples": ["-----BEGIN CERTIFICATE-----\n…\n"]}}},
        },
    },
)
def certificate(request: Request) -> Response:
    """Show the certificate that answers are verified with, PEM, its issuers' behind it."""
    with transaction(request.app.state.database, writes=False) as session:
        row = opendsr.processor_of(session, request.headers.get("host", ""))
    return Response(open_connection(row, parts_of(request).secret).secrets.certificate, media_type=_PEM)


@router.post(
    "/v2/requests",
    operation_id="opendsr_create_request",
    status_code=201,
    response_model=ReceiptAnswer,
    openapi_extra=_takes(SubjectRequest),
    responses=_answers(201, 400, 401, body=True),
)
def create_request(request: Request, connection: Connection, body: Body) -> Response:
    """Take a person's request, and answer with a signed receipt. The same again is answered with the same receipt."""
    return _receipt(request, connection, body, old=False)


@router.get(
    "/v2/requests/{subject_request_id}",
    operation_id="opendsr_get_request",
    response_model=StatusAnswer,
    responses=_answers(200, 400, 401, 404),
)
def get_request(request: Request, connection: Connection, subject_request_id: SubjectRequestId) -> Response:
    """Tell how a request does, signed."""
    return _status(request, connection, subject_request_id, old=False)


@router.get(
    "/v2/status/{subject_request_id}",
    operation_id="opendsr_get_status",
    response_model=StatusAnswer,
    responses=_answers(200, 400, 401, 404),
)
def get_status(request: Request, connection: Connection, subject_request_id: SubjectRequestId) -> Response:
    """Tell how a request does, by the other address that the specification has for it."""
    return _status(request, connection, subject_request_id, old=False)


@router.delete(
    "/v2/requests/{subject_request_id}",
    operation_id="opendsr_cancel_request",
    status_code=202,
    response_model=CancellationAnswer,
    responses=_answers(202, 400, 401, 404),
)
def cancel_request(request: Request, connection: Connection, subject_request_id: SubjectRequestId) -> Response:
    """Cancel a request that is pending, signed; again changes nothing."""
    return _cancellation(request, connection, subject_request_id, old=False)


@router.post(
    "/v1/opengdpr_requests",
    operation_id="opengdpr_create_request",
    status_code=201,
    response_model=ReceiptAnswer,
    deprecated=True,
    openapi_extra=_takes(OldSubjectRequest),
    responses=_answers(201, 400, 401, old=True, body=True),
)
def create_old_request(request: Request, connection: Connection, body: Body) -> Response:
    """Take a person's request by OpenGDPR 1.0, which needs no regulation."""
    return _receipt(request, connection, body, old=True)


@router.get(
    "/v1/opengdpr_requests/{subject_request_id}",
    operation_id="opengdpr_get_request",
    response_model=StatusAnswer,
    deprecated=True,
    responses=_answers(200, 400, 401, 404, old=True),
)
def get_old_request(request: Request, connection: Connection, subject_request_id: SubjectRequestId) -> Response:
    """Tell how a request does by OpenGDPR 1.0."""
    return _status(request, connection, subject_request_id, old=True)


@router.delete(
    "/v1/opengdpr_requests/{subject_request_id}",
    operation_id="opengdpr_cancel_request",
    status_code=202,
    response_model=CancellationAnswer,
    deprecated=True,
    responses=_answers(202, 400, 401, 404, old=True),
)
def cancel_old_request(request: Request, connection: Connection, subject_request_id: SubjectRequestId) -> Response:
    """Cancel a request that is pending by OpenGDPR 1.0."""
    return _cancellation(request, connection, subject_request_id, old=True)


def _receipt(request: Request, connection: OpenedConnection, body: bytes, *, old: bool) -> Response:
    parts, options = parts_of(request), opendsr.options_of(connection)
    asked = opendsr.read(body, request.headers.get("content-type"), options, old=old)
    received = Received(
        source=connection.name,
        protocol=opendsr.PROTOCOL,
        caller_id=asked.id,
        body_digest=parts.secret.body_digest(body),
        identities=asked.identities,
        regulation=asked.regulation,
        submitted_at=asked.submitted_at,
        due_at=None,
        mode=options.mode,
        report=options.report,
        verify=options.verify,
        sealed=asked.sealed,
    )
    accepted = parts.requests.submit(_actor(request, connection), received, lambda row: opendsr.answer_of(row, options))
    assert accepted.row.answer is not None
    return _signed(connection, opendsr.receipt(accepted.row.answer, body), 201, old=old)


def _status(request: Request, connection: OpenedConnection, name: str, *, old: bool) -> Response:
    row = parts_of(request).requests.get(connection.name, opendsr.check_id(name))
    return _signed(connection, opendsr.status(row, connection), 200, old=old)


def _cancellation(request: Request, connection: OpenedConnection, name: str, *, old: bool) -> Response:
    requests = parts_of(request).requests
    opendsr.check_cancellable(requests.get(connection.name, opendsr.check_id(name)))
    row = requests.cancel(_actor(request, connection), connection.name, name)
    return _signed(connection, opendsr.cancellation(row, connection), 202, old=old)


def _signed(connection: OpenedConnection, body: bytes, code: int, *, old: bool) -> Response:
    headers = opendsr.signature_headers(connection, body, old=old)
    return Response(body, status_code=code, media_type=_JSON, headers=headers)


def _actor(request: Request, connection: OpenedConnection) -> Actor:
    return Actor(name=f"connection:{connection.name}", request_id=request.state.request_id)
