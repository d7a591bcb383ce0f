"""What questions are answered with: all that the application opened."""

from __future__ import annotations

from dataclasses import dataclass

from fastapi import Request

from app.access import Access
from app.lookup import Lookup
from app.metrics import Metrics
from app.predictor import Predictor
from app.privacy.requests import Requests
from app.queues import Queues
from app.recorder import Recorder
from app.secret import Secret
from app.settings import Settings
from app.verifier import Verifier


@dataclass(frozen=True, kw_only=True)
class Parts:
    """All that the application opened, for functions that answer questions."""

    settings: Settings
    access: Access
    lookup: Lookup
    predictor: Predictor
    verifier: Verifier
    queues: Queues
    recorder: Recorder
    secret: Secret
    requests: Requests
    metrics: Metrics


def parts_of(request: Request) -> Parts:
    """The parts of the application that a request came to."""
    parts: Parts = request.app.state.parts
    return parts
