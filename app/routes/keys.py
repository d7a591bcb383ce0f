"""API keys: who may ask what."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from fastapi import APIRouter, Request

from app import catalog
from app.access import new_key
from app.db import transaction
from app.deps import KeyPrefix, Limit, Offset, Reading, Writing
from app.errors import ConflictError, InvalidTextError, NotFoundError
from app.guard import Guarded, actor_of, needs
from app.openapi import WRONG_PAGE, declared
from app.parts import parts_of
from app.schemas.keys import KeyAnswer, KeyPage, NewKey, NewKeyAnswer

router = APIRouter(tags=["keys"], route_class=Guarded)


@router.get("/keys", operation_id="list_keys", openapi_extra=needs("admin"), responses=declared(wrong=WRONG_PAGE))
def list_keys(session: Reading, limit: Limit = 50, offset: Offset = 0) -> KeyPage:
    """List keys, the newest first, without the keys themselves."""
    page = catalog.list_keys(session, limit=limit, offset=offset)
    return KeyPage(
        items=[KeyAnswer.model_validate(row) for row in page.items], total=page.total, limit=limit, offset=offset
    )


@router.post(
    "/keys",
    operation_id="create_key",
    status_code=201,
    openapi_extra=needs("admin"),
    responses=declared(
        InvalidTextError("'Partner A' can't name a key: use 1 to 64 small letters, digits, dots and dashes."),
        ConflictError("Another key begins in the same way. Try again."),
        wrong="body.scopes.0: Input should be 'predict', 'catalog:read', 'catalog:write', 'privacy' or 'admin'",
        body=True,
    ),
)
def create_key(new: NewKey, session: Writing, request: Request) -> NewKeyAnswer:
    """Make a key for a caller. It is in this answer, and nowhere else: the catalog keeps a hash."""
    prefix, key = new_key()
    row = catalog.add_key(
        session,
        prefix=prefix,
        name=new.name,
        hash=parts_of(request).secret.key_hash(key),
        scopes=new.scopes,
        expires_at=None if new.expires_days is None else datetime.now(UTC) + timedelta(days=new.expires_days),
        requests_per_minute=new.requests_per_minute,
        decimals=new.decimals,
        measurements=None if new.measurements is None else [one.model_dump() for one in new.measurements],
    )
    content: dict[str, Any] = KeyAnswer.model_validate(row).model_dump()
    return NewKeyAnswer(**content, key=key)


@router.delete(
    "/keys/{prefix}",
    operation_id="revoke_key",
    response_model=KeyAnswer,
    openapi_extra=needs("admin"),
    responses=declared(
        NotFoundError("There is no key that begins with 'k7d2m9qb'; their list has all of them."),
        wrong="path.prefix: String should match pattern '^[a-z0-9]{8}$'",
    ),
)
def revoke_key(prefix: KeyPrefix, request: Request) -> KeyAnswer:
    """Revoke a key: it is refused here at once, and by other processes within seconds. Again changes nothing."""
    with transaction(request.app.state.database, actor=actor_of(request)) as session:
        answer = KeyAnswer.model_validate(catalog.revoke_key(session, prefix))
    parts_of(request).access.forget(prefix)  # once it is committed: before, it would be asked as it was
    return answer
