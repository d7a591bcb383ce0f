"""Server webhooks of Transcend: `app.privacy.transcend` says what comes of them."""

from __future__ import annotations

import asyncio
from typing import Annotated, Final

from fastapi import APIRouter, Path, Request, Response

from app import catalog
from app.actors import Actor
from app.db import transaction
from app.errors import ConflictError, InvalidTextError, UnavailableError
from app.guard import Handler, Peer
from app.in_time import InTime
from app.names import NAME_PATTERN
from app.openapi import declared
from app.parts import parts_of
from app.privacy import transcend
from app.privacy.connections import OpenedConnection
from app.privacy.identities import Identity, identity_hashes
from app.privacy.requests import Received
from app.privacy.transcend import SombraKeys
from app.schemas.transcend import TranscendWebhook

_QUEUED, _NOTHING = "200", "204"
_ERASURE: Final = "ERASURE"


class _Known(InTime):
    """A route that verifies the token before it reads the body."""

    def get_route_handler(self) -> Handler:
        """What answers a request."""
        handler = super().get_route_handler()

        async def known(request: Request) -> Response:
            connection = await asyncio.to_thread(_connection_of, request)
            keys: SombraKeys = request.app.state.sombra_keys
            token = request.headers.get(transcend.TOKEN_HEADER, "")
            request.state.core = await keys.verified(token, connection)
            request.state.connection = connection
            return await handler(request)

        return known


class TranscendRoute(Peer, _Known):
    """A route for Transcend's gateways."""


router = APIRouter(tags=["transcend"], route_class=TranscendRoute)


@router.post(
    "/integrations/transcend/{connection}",
    operation_id="transcend_job",
    response_class=Response,
    responses={
        **declared(
            transcend.refused(),
            UnavailableError("The signing key of Transcend's gateway can't be had now."),
            InvalidTextError("Of Transcend's jobs only ERASURE is taken."),
            ConflictError("There is a request with this id already, and it asks something else."),
            wrong="body.coreIdentifier: Field required",
            body=True,
            slow=True,
        ),
        200: {"description": "Queued; what comes of it is reported."},
        204: {"description": "Nothing of this person was found, which is filed; there will be no report."},
    },
)
async def take_job(
    connection: Annotated[
        str,
        Path(
            pattern=NAME_PATTERN,
            description="Name of the connection.",
            openapi_examples={"demo": {"value": "transcend"}},
        ),
    ],
    body: TranscendWebhook,
    request: Request,
) -> Response:
    """Take a job of erasure.

    What it would change is predicted; the person's part is erased where the connection's mode says so; and Transcend
    is told when that is done.
    """
    peer: OpenedConnection = request.state.connection
    named = transcend.identities(body, request.state.core, peer)
    if body.type != _ERASURE:
        raise InvalidTextError("Of Transcend's jobs only ERASURE is taken.")
    nonce, secret = transcend.nonce(request.headers), parts_of(request).secret
    answer = _QUEUED if await asyncio.to_thread(_is_found, request, named) else _NOTHING
    received = Received(
        source=connection,
        protocol=transcend.PROTOCOL,
        caller_id=secret.body_digest(transcend.job(body, nonce)),
        body_digest=secret.body_digest(transcend.asked(body)),
        identities=named,
        regulation=None,
        submitted_at=None,
        due_at=None,
        mode="predict" if body.is_test else peer.options.mode,
        report=peer.options.report,
        verify=peer.options.verify,
        sealed={"nonce": nonce} if answer == _QUEUED else {},
    )
    actor = Actor(name=f"connection:{connection}", request_id=request.state.request_id)
    accepted = await asyncio.to_thread(parts_of(request).requests.submit, actor, received, lambda _: answer)
    return Response(status_code=int(accepted.row.answer or _QUEUED))


def _is_found(request: Request, named: tuple[Identity, ...]) -> bool:
    hashes = [one for identity in named for one in identity_hashes(identity, parts_of(request).secret)]
    with transaction(request.app.state.database, writes=False) as session:
        return bool(catalog.find_linked(session, hashes))


def _connection_of(request: Request) -> OpenedConnection:
    with transaction(request.app.state.database, writes=False) as session:
        return transcend.connection_of(session, parts_of(request).secret, request.path_params["connection"])
