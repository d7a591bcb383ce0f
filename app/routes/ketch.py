"""Deletions that Ketch forwards: `app.privacy.ketch` says what comes of them.

Refusals are problems (RFC 9457), of which Ketch reads the status alone.
"""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Path, Request, Response
from fastapi.concurrency import run_in_threadpool

from app.actors import Actor
from app.db import transaction
from app.errors import ConflictError, InvalidTextError, TargetError, UnauthorisedError
from app.guard import Handler, Peer
from app.names import NAME_PATTERN
from app.openapi import declared
from app.parts import parts_of
from app.privacy import ketch
from app.privacy.connections import OpenedConnection
from app.privacy.requests import Received
from app.schemas.ketch import KetchDeleteAnswer, KetchDeleteRequest
from app.tables import ErasureRequest

ConnectionName = Annotated[
    str,
    Path(
        pattern=NAME_PATTERN,
        description="Name of the connection.",
        openapi_examples={"demo": {"value": "ketch"}},
    ),
]


class KetchRoute(Peer):
    """A route that finds out who calls before it reads the body."""

    def get_route_handler(self) -> Handler:
        """What answers a request."""
        handler = super().get_route_handler()

        async def known(request: Request) -> Response:
            request.state.connection = await run_in_threadpool(_connection_of, request)
            return await handler(request)

        return known


router = APIRouter(prefix="/integrations/ketch", tags=["ketch"], route_class=KetchRoute)


@router.post(
    "/{connection}",
    operation_id="ketch_delete",
    responses=declared(
        UnauthorisedError("The credential of this connection is needed, in the header that Ketch is set up to send."),
        InvalidTextError("The identity of type email isn't a sha1 digest: it has another length."),
        TargetError("The address isn't one that may be called."),
        ConflictError("There is a request with this id already, and it asks something else."),
        wrong="body.kind: Input should be 'DeleteRequest'",
        body=True,
        slow=True,
    ),
)
def ketch_delete(connection: ConnectionName, body: KetchDeleteRequest, request: Request) -> KetchDeleteAnswer:
    """Take a deletion, or tell how it does: the same again is answered as it is then.

    `outcome` has what was predicted. The end is told to the callbacks, too.
    """
    opened: OpenedConnection = request.state.connection
    actor = Actor(name=f"connection:{connection}", request_id=request.state.request_id)
    parts, sealed = parts_of(request), ketch.sealed(body, opened)
    received = Received(
        source=connection,
        protocol=ketch.PROTOCOL,
        caller_id=body.metadata.uid,
        body_digest=parts.secret.body_digest(ketch.asked(body)),
        identities=ketch.identities(body, opened),
        regulation=ketch.regulation(body),
        submitted_at=ketch.moment(body.request.submittedTimestamp),
        due_at=ketch.moment(body.request.dueTimestamp),
        mode=opened.options.mode,
        report=opened.options.report,
        verify=opened.options.verify,
        sealed=sealed,
    )
    accepted = parts.requests.submit(actor, received, _no_answer)
    row = accepted.row
    if not accepted.is_new:  # its callbacks may have other tokens now
        row = parts.requests.amend(actor, connection, received.caller_id, sealed)
    return ketch.answer(row, body.metadata.tenant)


def _no_answer(_: ErasureRequest) -> str:
    """Nothing is kept: the answer follows from the request's state."""
    return ""


def _connection_of(request: Request) -> OpenedConnection:
    with transaction(request.app.state.database, writes=False) as session:
        secret, name = parts_of(request).secret, request.path_params["connection"]
        return ketch.connection_of(session, secret, name, request.headers)
