"""Verifications: answers compared with models retrained without what was deleted. `POST /predict` makes them."""

from __future__ import annotations

from fastapi import APIRouter, Request

from app import catalog
from app.deps import Limit, Offset, Reading, VerificationId
from app.errors import ForbiddenError, NotFoundError
from app.guard import Guarded, caller_of, needs
from app.openapi import WRONG_PAGE, declared
from app.schemas.verifications import VerificationAnswer, VerificationPage

router = APIRouter(tags=["verifications"], route_class=Guarded)


@router.get(
    "/verifications",
    operation_id="list_verifications",
    openapi_extra=needs("catalog:read"),
    responses=declared(wrong=WRONG_PAGE),
)
def list_verifications(session: Reading, request: Request, limit: Limit = 50, offset: Offset = 0) -> VerificationPage:
    """List verifications, the newest first."""
    caller_of(request).check_unrestricted()
    page = catalog.list_verifications(session, limit=limit, offset=offset)
    items = [VerificationAnswer.of(row) for row in page.items]
    return VerificationPage(items=items, total=page.total, limit=page.limit, offset=page.offset)


@router.get(
    "/verifications/{verification}",
    operation_id="get_verification",
    openapi_extra=needs("predict"),
    responses=declared(
        ForbiddenError("This key is for predictions only: its answers are rounded, or of listed measurements."),
        NotFoundError("There is no verification '00000000-0000-0000-0000-000000000000'; their list has all of them."),
        wrong="path.verification: Input should be a valid UUID, invalid length: expected length 32 for simple format,"
        " found 4",
    ),
)
def get_verification(verification: VerificationId, session: Reading, request: Request) -> VerificationAnswer:
    """Compare what was answered with the retrained model, once it is there.

    The model is retrained in the background, without what was deleted: `state` says how far that is. Until it is
    `finished`, `truth`, `error` and `inside_interval` are null.
    """
    caller_of(request).check_unrestricted()
    return VerificationAnswer.of(catalog.get_verification(session, str(verification)))
