"""Whether the process lives, and whether it can answer questions."""

from __future__ import annotations

from fastapi import APIRouter, Request, Response

from app import catalog
from app.deps import Reading, ThePredictor
from app.errors import UnavailableError
from app.in_time import InTime
from app.metrics import MEDIA_TYPE
from app.openapi import declared
from app.parts import parts_of
from app.schemas.health import FailureAnswer, HealthAnswer, ReadyAnswer, ResidentAnswer, ShardsAnswer

router = APIRouter(tags=["health"], route_class=InTime)


@router.get("/healthz", operation_id="healthz", responses=declared(catalog=False))
async def healthz() -> HealthAnswer:
    """Say that the process answers, whatever it can or can't do."""
    return HealthAnswer(status="alive")


@router.get(
    "/readyz",
    operation_id="readyz",
    responses=declared(UnavailableError("No sketch is registered yet: build one and register it.")),
)
def readyz(session: Reading, predictor: ThePredictor) -> ReadyAnswer:
    """Say which sketch versions are resident and which can't be served; refuse where none can."""
    failures = predictor.failures()
    labels = [version.label for version in catalog.current_versions(session)]
    if not labels:
        raise UnavailableError("No sketch is registered yet: build one and register it.")
    resident = predictor.resident()
    if all(label in failures for label in labels) and not resident:  # else what was current before still answers
        raise UnavailableError(
            "No sketch can be served. " + " ".join(f"{label}: {failures[label]}" for label in labels)
        )
    shards = predictor.shards()
    return ReadyAnswer(
        status="ready",
        resident=[ResidentAnswer(label=one.label, bytes=one.bytes) for one in resident],
        budget_bytes=predictor.budget_bytes,
        failed=[FailureAnswer(label=label, message=message) for label, message in failures.items()],
        shards=None if shards is None else ShardsAnswer(count=shards.count, away=shards.away),
    )


@router.get(
    "/metrics",
    operation_id="metrics",
    response_class=Response,
    responses={
        200: {"description": "Figures of this process.", "content": {"text/plain": {"schema": {"type": "string"}}}}
    },
)
async def metrics(request: Request) -> Response:
    """Show counts and times in Prometheus' text format: none of them names who asks, or what."""
    return Response(parts_of(request).metrics.text(), media_type=MEDIA_TYPE)
