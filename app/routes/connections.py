"""Connections to privacy backends: who may send requests, and who is told of them."""

from __future__ import annotations

from typing import Annotated, Final, Literal

from fastapi import APIRouter, Path, Query, Request

from app import catalog
from app.deps import Limit, Offset, Reading, Writing
from app.errors import ConflictError, InvalidTextError, NotFoundError
from app.guard import Guarded, needs
from app.names import NAME_PATTERN
from app.openapi import WRONG_PAGE, declared
from app.parts import parts_of
from app.privacy import connections
from app.privacy.connections import MadeConnection
from app.schemas.connections import (
    ConnectionAnswer,
    ConnectionOptionsBody,
    ConnectionPage,
    MadeConnectionAnswer,
    NewConnection,
)

router = APIRouter(tags=["connections"], route_class=Guarded)

_UNKNOWN: Final = NotFoundError("There is no connection 'privcy-desk'. Known: privacy-desk.")
_WRONG_NAME: Final = "path.connection: String should match pattern '^[a-z0-9][a-z0-9._-]{0,63}$'"
_OPTION: Final = InvalidTextError("The option url: an address such as https://privacy.example.org/path.")

ConnectionName = Annotated[
    str,
    Path(
        pattern=NAME_PATTERN,
        description="Name of the connection.",
        openapi_examples={"demo": {"value": "privacy-desk"}},
    ),
]


@router.get(
    "/connections",
    operation_id="list_connections",
    openapi_extra=needs("admin"),
    responses=declared(wrong=WRONG_PAGE),
)
def list_connections(session: Reading, limit: Limit = 50, offset: Offset = 0) -> ConnectionPage:
    """List connections by name, without their secrets."""
    page = catalog.list_connections(session, limit=limit, offset=offset)
    items = [ConnectionAnswer.model_validate(row) for row in page.items]
    return ConnectionPage(items=items, total=page.total, limit=page.limit, offset=page.offset)


@router.post(
    "/connections",
    operation_id="create_connection",
    status_code=201,
    openapi_extra=needs("admin"),
    responses=declared(
        _OPTION,
        ConflictError("There is a connection 'privacy-desk' already; choose another name, or change that one."),
        wrong="body.protocol: Input should be 'fides', 'opendsr', 'webhook', 'transcend' or 'ketch'",
        body=True,
    ),
)
def create_connection(new: NewConnection, session: Writing, request: Request) -> MadeConnectionAnswer:
    """Make a connection. What its peer has to be told is in this answer, and nowhere else."""
    return _made(
        connections.make_connection(
            session,
            parts_of(request).secret,
            name=new.name,
            protocol=new.protocol,
            options=new.options,
            secrets=new.secrets,
            credential=new.credential,
        )
    )


@router.get(
    "/connections/{connection}",
    operation_id="get_connection",
    openapi_extra=needs("admin"),
    responses=declared(_UNKNOWN, wrong=_WRONG_NAME),
)
def get_connection(connection: ConnectionName, session: Reading) -> ConnectionAnswer:
    """Show a connection, without its secrets."""
    return ConnectionAnswer.model_validate(catalog.get_connection(session, connection))


@router.put(
    "/connections/{connection}/options",
    operation_id="change_connection",
    openapi_extra=needs("admin"),
    responses=declared(_UNKNOWN, _OPTION, wrong=_WRONG_NAME, body=True),
)
def change_connection(
    connection: ConnectionName, change: ConnectionOptionsBody, session: Writing, request: Request
) -> MadeConnectionAnswer:
    """Change options of a connection; those that are left out stay as they are."""
    return _made(connections.change_options(session, parts_of(request).secret, connection, change.options))


@router.post(
    "/connections/{connection}/rotate",
    operation_id="rotate_connection",
    openapi_extra=needs("admin"),
    responses=declared(
        _UNKNOWN,
        ConflictError("The peer of a webhook connection shows no credential of ours."),
        wrong=_WRONG_NAME,
    ),
)
def rotate_connection(
    connection: ConnectionName,
    session: Writing,
    request: Request,
    what: Annotated[
        Literal["credential", "webhook_secret"],
        Query(description="credential is refused as it was from now on; the secret before signs once more."),
    ] = "webhook_secret",
) -> MadeConnectionAnswer:
    """Make another credential, or another secret that messages are signed with. It is in this answer alone."""
    secret = parts_of(request).secret
    if what == "credential":
        return _made(connections.rotate_credential(session, secret, connection))
    return _made(connections.rotate_webhook_secret(session, secret, connection, keep=True))


@router.post(
    "/connections/{connection}/disable",
    operation_id="disable_connection",
    openapi_extra=needs("admin"),
    responses=declared(_UNKNOWN, wrong=_WRONG_NAME),
)
def disable_connection(connection: ConnectionName, session: Writing) -> ConnectionAnswer:
    """Let a connection neither be called nor call; again changes nothing."""
    return ConnectionAnswer.model_validate(catalog.disable_connection(session, connection, "by an administrator"))


@router.post(
    "/connections/{connection}/enable",
    operation_id="enable_connection",
    openapi_extra=needs("admin"),
    responses=declared(_UNKNOWN, wrong=_WRONG_NAME),
)
def enable_connection(connection: ConnectionName, session: Writing) -> ConnectionAnswer:
    """Take that back."""
    return ConnectionAnswer.model_validate(catalog.enable_connection(session, connection))


def _made(made: MadeConnection) -> MadeConnectionAnswer:
    return MadeConnectionAnswer(
        **ConnectionAnswer.model_validate(made.row).model_dump(),
        credential=made.credential,
        webhook_secret=made.webhook_secret,
    )
