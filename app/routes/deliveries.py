"""Deliveries: what peers were told of erasure requests, and what couldn't be told them."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated, Final

from fastapi import APIRouter, Path, Query

from app import catalog
from app.catalog import DeliveryState
from app.deps import Limit, Offset, Reading, Writing
from app.errors import ConflictError, NotFoundError
from app.guard import Guarded, needs
from app.names import NAME_PATTERN
from app.openapi import declared
from app.schemas.deliveries import DeliveryAnswer, DeliveryPage

router = APIRouter(tags=["deliveries"], route_class=Guarded)

_UNKNOWN: Final = NotFoundError(
    "There is no delivery 'msg_8d0c4a1f6b7e4c0f9a3d2e5b1c7f6a91'; their list has all of them."
)
_WRONG_ID: Final = "path.delivery: String should match pattern '^msg_[0-9a-f]{32}$'"

DeliveryId = Annotated[
    str,
    Path(
        pattern=r"^msg_[0-9a-f]{32}$",
        description="Id of the delivery.",
        openapi_examples={"demo": {"value": "msg_8d0c4a1f6b7e4c0f9a3d2e5b1c7f6a90"}},
    ),
]
StateFilter = Annotated[DeliveryState | None, Query(description="Only those in this state.")]
ConnectionFilter = Annotated[str | None, Query(pattern=NAME_PATTERN, description="Only those of this connection.")]


@router.get(
    "/deliveries",
    operation_id="list_deliveries",
    openapi_extra=needs("privacy"),
    responses=declared(
        NotFoundError("There is no connection 'privcy-desk'. Known: privacy-desk."),
        wrong="query.state: Input should be 'pending', 'delivered' or 'dead'",
    ),
)
def list_deliveries(
    session: Reading,
    state: StateFilter = None,
    connection: ConnectionFilter = None,
    limit: Limit = 50,
    offset: Offset = 0,
) -> DeliveryPage:
    """List what was told to peers, the newest first, without what was said."""
    page = catalog.list_deliveries(session, state=state, connection=connection, limit=limit, offset=offset)
    items = [DeliveryAnswer.of(row) for row in page.items]
    return DeliveryPage(items=items, total=page.total, limit=page.limit, offset=page.offset)


@router.get(
    "/deliveries/{delivery}",
    operation_id="get_delivery",
    openapi_extra=needs("privacy"),
    responses=declared(_UNKNOWN, wrong=_WRONG_ID),
)
def get_delivery(delivery: DeliveryId, session: Reading) -> DeliveryAnswer:
    """Show how a delivery goes."""
    return DeliveryAnswer.of(catalog.get_delivery(session, delivery))


@router.post(
    "/deliveries/{delivery}/replay",
    operation_id="replay_delivery",
    openapi_extra=needs("admin"),
    responses=declared(_UNKNOWN, ConflictError("The delivery waits to be sent already."), wrong=_WRONG_ID),
)
def replay_delivery(delivery: DeliveryId, session: Writing) -> DeliveryAnswer:
    """Send a delivery once more that arrived or was given up, under the same id."""
    return DeliveryAnswer.of(catalog.replay_delivery(session, delivery, now=datetime.now(UTC)))
