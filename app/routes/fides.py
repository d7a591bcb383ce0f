"""Policy webhooks of Fides: `app.privacy.fides` says what comes of them.

A webhook waits for its request for a moment. Many may come at once: none of them holds a thread while it waits, and
what they do in threads is done in the event loop's own few, not in those of the other operations.
"""

from __future__ import annotations

import asyncio
import time
from typing import Final, cast

from fastapi import APIRouter, Request, Response

from app import catalog
from app.actors import Actor
from app.db import transaction
from app.errors import ConflictError, InvalidTextError, TargetError, UnauthorisedError
from app.guard import Handler, Peer
from app.in_time import InTime
from app.openapi import Responses, declared
from app.parts import parts_of
from app.privacy import fides
from app.privacy.connections import OpenedConnection, authenticated
from app.privacy.fides import CallbackType
from app.privacy.options import FidesOptions
from app.privacy.requests import FINAL, Received
from app.schemas.fides import FidesPostWebhook, FidesPreApprovalWebhook, FidesPreWebhook, FidesWebhook, HaltAnswer
from app.tables import ErasureRequest

_FIRST_LOOK_SECONDS: Final = 0.02
_LONGEST_PAUSE_SECONDS: Final = 0.2


class _Known(InTime):
    """A route that finds out who calls before it reads the body."""

    def get_route_handler(self) -> Handler:
        """What answers a request."""
        handler = super().get_route_handler()

        async def known(request: Request) -> Response:
            request.state.connection = await asyncio.to_thread(_connection_of, request)
            return await handler(request)

        return known


class FidesRoute(Peer, _Known):
    """A route for Fides servers."""


router = APIRouter(prefix="/integrations/fides", tags=["fides"], route_class=FidesRoute)


def _declared(callback_type: str) -> Responses:
    return declared(
        UnauthorisedError("A credential of a connection is needed, in Authorization: Bearer CREDENTIAL."),
        InvalidTextError("The webhook names no identity: nobody can be looked for."),
        TargetError("The header reply-to has to be an address of this privacy request, relative to Fides' own."),
        ConflictError("There is a request with this id already, and it asks something else."),
        wrong=f"body.callback_type: Input should be '{callback_type}'",
        body=True,
        slow=True,
    )


@router.post("/pre", operation_id="fides_pre", responses=_declared("pre"))
async def pre(body: FidesPreWebhook, request: Request) -> HaltAnswer:
    """Predict what an erasure would change, before Fides erases.

    `halt` is false when the evidence is stored. Else Fides pauses the privacy request, and is told when to go on, by
    the headers reply-to and reply-to-token.
    """
    return await _answer(request, body, "pre")


@router.post("/post", operation_id="fides_post", responses=_declared("post"))
async def post(body: FidesPostWebhook, request: Request) -> HaltAnswer:
    """Do what the connection's mode says, after Fides erased; Fides doesn't wait for it."""
    return await _answer(request, body, "post")


@router.post("/pre-approval", operation_id="fides_pre_approval", responses=_declared("pre_approval"))
async def pre_approval(body: FidesPreApprovalWebhook, request: Request) -> HaltAnswer:
    """Predict what an erasure would change, before somebody approves of it.

    Once the evidence is stored, the request is called eligible.
    """
    return await _answer(request, body, "pre_approval")


async def _answer(request: Request, body: FidesWebhook, callback_type: CallbackType) -> HaltAnswer:
    """Take a webhook's request, and wait for it where Fides listens to the answer."""
    connection: OpenedConnection = request.state.connection
    parts, actor = parts_of(request), _actor(request)
    replied = fides.reply(body, callback_type, request.headers)
    if not fides.asks_for_erasure(body):
        await asyncio.to_thread(_pass, request, body, callback_type, replied)
        return HaltAnswer(halt=False)
    received = _received(request, body, callback_type, replied)
    accepted = await asyncio.to_thread(parts.requests.submit, actor, received, _no_answer)
    if callback_type == "pre" and replied:
        return HaltAnswer(halt=await _halts(request, accepted.row, replied))
    if callback_type == "pre_approval" and not accepted.is_new:
        row = await asyncio.to_thread(parts.requests.amend, actor, connection.name, received.caller_id, {**replied})
        if row.state == "completed":  # so that no change will tell it
            await asyncio.to_thread(_reply_now, request, callback_type, replied, row.id)
    return HaltAnswer(halt=False)


def _received(request: Request, body: FidesWebhook, callback_type: CallbackType, replied: dict[str, str]) -> Received:
    connection: OpenedConnection = request.state.connection
    named = fides.identities(body, connection)
    return Received(
        source=connection.name,
        protocol=fides.PROTOCOL,
        caller_id=fides.caller_id(body, callback_type),
        body_digest=parts_of(request).secret.body_digest(fides.asked(body, callback_type, named)),
        identities=named,
        regulation=None,  # Fides has policies, which don't say it
        submitted_at=body.privacy_request.requested_at or body.timestamp,
        due_at=body.privacy_request.due_date,
        mode=fides.mode(callback_type, connection),
        report=connection.options.report,
        verify=connection.options.verify,
        # To whom a pre webhook replies isn't kept yet: until it is answered with halt, Fides doesn't wait for it.
        sealed={"callback_type": callback_type, **(replied if callback_type == "pre_approval" else {})},
    )


async def _halts(request: Request, row: ErasureRequest, replied: dict[str, str]) -> bool:
    """Whether Fides has to wait for a request; then it is told later, by what the webhook says."""
    connection: OpenedConnection = request.state.connection
    waited = await _waited(request, row)
    if not fides.halts(waited, connection):
        return False
    # It may be done by now: whichever comes first, this or the last change, the other one sees it.
    requests = parts_of(request).requests
    amended = await asyncio.to_thread(requests.amend, _actor(request), row.source, row.caller_id, {**replied})
    return fides.halts(amended, connection)


async def _waited(request: Request, row: ErasureRequest) -> ErasureRequest:
    """The row as soon as it is done, and as it is when the connection's time for that is over."""
    requests = parts_of(request).requests
    options = cast("FidesOptions", request.state.connection.options)
    until, pause = time.monotonic() + options.wait_seconds, _FIRST_LOOK_SECONDS
    while row.state not in FINAL and (left := until - time.monotonic()) > 0:
        await asyncio.sleep(min(pause, left))
        pause = min(2 * pause, _LONGEST_PAUSE_SECONDS)
        row = await asyncio.to_thread(requests.get, row.source, row.caller_id)
    return row


def _pass(request: Request, body: FidesWebhook, callback_type: CallbackType, replied: dict[str, str]) -> None:
    """Record a webhook that is no request, and let Fides go on."""
    connection: OpenedConnection = request.state.connection
    with transaction(request.app.state.database, actor=_actor(request)) as session:
        catalog.record(
            session,
            "request.pass",
            source=connection.name,
            protocol=fides.PROTOCOL,
            caller_id=fides.caller_id(body, callback_type),
            policy_action=body.policy_action,
        )
        if callback_type == "pre_approval":
            fides.reply_now(session, parts_of(request).secret, connection, callback_type, replied, None)


def _reply_now(request: Request, callback_type: CallbackType, replied: dict[str, str], row: str) -> None:
    with transaction(request.app.state.database, actor=_actor(request)) as session:
        secret = parts_of(request).secret
        fides.reply_now(session, secret, request.state.connection, callback_type, replied, row)


def _no_answer(_: ErasureRequest) -> str:
    """Nothing is kept: the answer follows from the request's state."""
    return ""


def _connection_of(request: Request) -> OpenedConnection:
    with transaction(request.app.state.database, writes=False) as session:
        return authenticated(session, parts_of(request).secret, fides.PROTOCOL, request.headers)


def _actor(request: Request) -> Actor:
    return Actor(name=f"connection:{request.state.connection.name}", request_id=request.state.request_id)
