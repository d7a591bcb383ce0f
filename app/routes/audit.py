"""The audit: what was asked and changed, by whom, when."""

from __future__ import annotations

from fastapi import APIRouter

from app import catalog
from app.catalog import Page
from app.deps import Limit, Offset, Reading
from app.guard import Guarded, needs
from app.openapi import WRONG_PAGE, declared
from app.schemas.audit import AuditPage
from app.tables import AuditRecord

router = APIRouter(tags=["audit"], route_class=Guarded)


@router.get(
    "/audit",
    operation_id="list_audit_records",
    response_model=AuditPage,
    openapi_extra=needs("admin"),
    responses=declared(wrong=WRONG_PAGE),
)
def list_audit_records(session: Reading, limit: Limit = 50, offset: Offset = 0) -> Page[AuditRecord]:
    """List the records of the audit by their number; each names the hash of the one before."""
    return catalog.list_records(session, limit=limit, offset=offset)
