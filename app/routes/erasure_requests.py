"""Erasure requests: a person's request, from its arrival to the evidence that is filed."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated, Final, Literal
from uuid import UUID

from fastapi import APIRouter, Path, Query, Request, Response

from app import catalog
from app.deps import Limit, Offset, Reading
from app.errors import ConflictError, InvalidTextError, NotFoundError
from app.guard import Guarded, actor_of, caller_of, needs
from app.openapi import LOCATED, WRONG_PAGE, declared
from app.parts import parts_of
from app.privacy.identities import Identity
from app.privacy.page import evidence_page
from app.privacy.requests import Received
from app.schemas.erasure_requests import (
    ErasureRequestAnswer,
    ErasureRequestPage,
    NewErasureRequest,
    TakenAnswer,
)
from app.tables import ErasureRequest

router = APIRouter(tags=["erasure requests"], route_class=Guarded)

_UNKNOWN: Final = NotFoundError("There is no erasure request '0b8d3c52-6f3e-4c6b-9a55-3d6f1c2f0e12'.")
_WRONG_ID: Final = "path.request_id: Input should be a valid UUID, invalid length: expected length 32 for simple format"
_EVIDENCE: Final = {"format": "neverseen-evidence", "format_version": 1, "verdict": "not_material"}
_PAGE_HEADERS: Final = {
    "Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'"
}

RequestId = Annotated[
    UUID,
    Path(
        description="Id of the request, ours.",
        openapi_examples={"demo": {"value": "0b8d3c52-6f3e-4c6b-9a55-3d6f1c2f0e11"}},
    ),
]
State = Annotated[
    Literal["pending", "in_progress", "completed", "cancelled", "failed"] | None,
    Query(description="Only those in this state."),
]
Late = Annotated[bool, Query(description="Only those that aren't done though they should be.")]
Order = Annotated[
    Literal["newest", "deadline"],
    Query(
        description="`newest`: the last that arrived comes first. `deadline`: the next deadline does, and what is done "
        "or cancelled comes last."
    ),
]
CallerId = Annotated[str | None, Query(max_length=200, description="Only those that their callers know by this id.")]


@router.post(
    "/erasure-requests",
    operation_id="create_erasure_request",
    status_code=201,
    response_model=TakenAnswer,
    openapi_extra=needs("privacy"),
    responses={
        **declared(
            InvalidTextError("The identity of type email isn't a sha256 digest: it has another length."),
            ConflictError("There is a request with this id already, and it asks something else."),
            wrong="body.regulation: Input should be 'gdpr' or 'ccpa'",
            body=True,
        ),
        **LOCATED,
    },
)
def create_erasure_request(new: NewErasureRequest, request: Request) -> Response:
    """Take a person's request: what would the model do without their data?

    The work is done in the background: `GET /erasure-requests/{id}` says how far it is, and events tell webhooks. The
    identities are hashed with a key, and stored in no other way. The same `id` with the same body is the same request.
    """
    caller_of(request).check_unrestricted()
    parts = parts_of(request)
    accepted = parts.requests.submit(
        actor_of(request),
        Received(
            source=catalog.NATIVE,
            protocol="native",
            caller_id=new.id,
            body_digest=parts.secret.body_digest(new.model_dump_json().encode()),
            identities=tuple(Identity(kind=one.type, value=one.value, form=one.format) for one in new.identities),
            regulation=new.regulation,
            submitted_at=new.submitted_at,
            due_at=new.due_at,
            mode=new.mode,
            report=new.report,
            verify=new.verify,
            sealed={},
        ),
        lambda row: TakenAnswer.model_validate(row).model_dump_json(),
    )
    place = request.app.url_path_for("get_erasure_request", request_id=accepted.row.id)
    return Response(
        accepted.row.answer, status_code=201, media_type="application/json", headers={"Location": str(place)}
    )


@router.get(
    "/erasure-requests",
    operation_id="list_erasure_requests",
    openapi_extra=needs("privacy"),
    responses=declared(wrong=WRONG_PAGE),
)
def list_erasure_requests(
    session: Reading,
    request: Request,
    state: State = None,
    late: Late = False,
    caller_id: CallerId = None,
    order: Order = "newest",
    limit: Limit = 50,
    offset: Offset = 0,
) -> ErasureRequestPage:
    """List requests, the newest first, or the next deadline."""
    page = catalog.list_requests(
        session,
        now=datetime.now(UTC),
        state=state,
        late=late,
        caller_id=caller_id,
        order=order,
        limit=limit,
        offset=offset,
    )
    items = [_answer(row, request) for row in page.items]
    return ErasureRequestPage(items=items, total=page.total, limit=page.limit, offset=page.offset)


@router.get(
    "/erasure-requests/{request_id}",
    operation_id="get_erasure_request",
    openapi_extra=needs("privacy"),
    responses=declared(_UNKNOWN, wrong=_WRONG_ID),
)
def get_erasure_request(request_id: RequestId, session: Reading, request: Request) -> ErasureRequestAnswer:
    """Tell how far a request is."""
    return _answer(catalog.get_request_of_id(session, str(request_id)), request)


@router.delete(
    "/erasure-requests/{request_id}",
    operation_id="cancel_erasure_request",
    response_model=ErasureRequestAnswer,
    openapi_extra=needs("privacy"),
    responses=declared(
        _UNKNOWN,
        ConflictError("The request is in progress: only a pending one can be cancelled."),
        wrong=_WRONG_ID,
    ),
)
def cancel_erasure_request(request_id: RequestId, request: Request) -> ErasureRequestAnswer:
    """Cancel a request that nobody has begun with; again changes nothing."""
    requests = parts_of(request).requests
    found = requests.find(str(request_id))
    return _answer(requests.cancel(actor_of(request), found.source, found.caller_id), request)


@router.post(
    "/erasure-requests/{request_id}/retry",
    operation_id="retry_erasure_request",
    response_model=ErasureRequestAnswer,
    openapi_extra=needs("privacy"),
    responses=declared(
        _UNKNOWN,
        ConflictError("The request is completed, and only a failed one is tried again."),
        wrong=_WRONG_ID,
    ),
)
def retry_erasure_request(request_id: RequestId, request: Request) -> ErasureRequestAnswer:
    """Have a failed request worked on again, once what kept it from being done is mended."""
    return _answer(parts_of(request).requests.retry(actor_of(request), str(request_id)), request)


@router.get(
    "/erasure-requests/{request_id}/evidence",
    operation_id="get_evidence",
    response_class=Response,
    openapi_extra=needs("privacy"),
    responses={
        200: {
            "description": "The signed evidence, canonical JSON (RFC 8785).",
            "content": {"application/json": {"schema": {"type": "object", "examples": [_EVIDENCE]}}},
        },
        **declared(_UNKNOWN, ConflictError("The request is pending: there is no evidence yet."), wrong=_WRONG_ID),
    },
)
def get_evidence(request_id: RequestId, session: Reading) -> Response:
    """Fetch the evidence of a completed request, as it is signed.

    `neverseen privacy verify FILE` verifies it, without this service.
    """
    return Response(_evidence(catalog.get_request_of_id(session, str(request_id))), media_type="application/json")


@router.get(
    "/erasure-requests/{request_id}/evidence.html",
    operation_id="get_evidence_page",
    response_class=Response,
    openapi_extra=needs("privacy"),
    responses={
        200: {
            "description": "The evidence as a page of its own.",
            "content": {"text/html": {"schema": {"type": "string", "examples": ["<!doctype html>…"]}}},
        },
        **declared(_UNKNOWN, ConflictError("The request is pending: there is no evidence yet."), wrong=_WRONG_ID),
    },
)
def get_evidence_page(request_id: RequestId, session: Reading) -> Response:
    """Fetch the evidence as a page to read and to print."""
    text = _evidence(catalog.get_request_of_id(session, str(request_id)))
    return Response(evidence_page(text), media_type="text/html", headers=_PAGE_HEADERS)


def _evidence(row: ErasureRequest) -> str:
    if row.evidence is None or row.state != "completed":
        raise ConflictError(f"The request is {row.state.replace('_', ' ')}: there is no evidence yet.")
    return row.evidence


def _answer(row: ErasureRequest, request: Request) -> ErasureRequestAnswer:
    evidence = None
    if row.state == "completed":
        evidence = str(request.app.url_path_for("get_evidence", request_id=row.id))
    fields = {name: getattr(row, name) for name in ErasureRequestAnswer.model_fields if hasattr(row, name)}
    late = row.state not in ("completed", "cancelled") and row.due_at < datetime.now(UTC)
    return ErasureRequestAnswer.model_validate({**fields, "problem": row.failure, "late": late, "evidence": evidence})
