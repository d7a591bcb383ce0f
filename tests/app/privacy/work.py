"""Requests that are taken and worked on without a service."""

from __future__ import annotations

from collections.abc import Callable

from app import catalog
from app.actors import local_actor
from app.db import Database
from app.lookup import Lookup
from app.predictor import Predictor
from app.privacy.identities import Identity
from app.privacy.requests import Received, Requests
from app.privacy.signing_key import load_signing_key
from app.privacy.work import Work
from app.privacy.worker import JobWorker
from app.secret import Secret
from app.serving import Serving
from app.settings import Settings
from app.tables import ErasureRequest
from app.verifier import Verifier
from engine.shards import Shards


def take(database: Database, secret: Secret, email: str, *, mode: str = "predict") -> ErasureRequest:
    """A request for an e-mail address, taken."""
    received = Received(
        source=catalog.NATIVE,
        protocol="native",
        caller_id="dsar-0",
        body_digest="0" * 64,
        identities=(Identity(kind="email", value=email),),
        regulation=None,
        submitted_at=None,
        due_at=None,
        mode=mode,
        report="default",
        verify=False,
        sealed={},
    )
    return Requests(database, secret).submit(local_actor(), received, lambda _: "{}").row


def job_worker(
    database: Database, settings: Settings, secret: Secret, *, shards: Shards | None = None
) -> tuple[JobWorker, Callable[[], None]]:
    """A worker that works when it is told to, and what closes it."""
    predictor = Predictor(device="cpu", resident_bytes=2**30, table_cache_bytes=2**20, shards=shards)
    lookup = Lookup(database, settings.artifacts, Serving(database, predictor, settings.artifacts))
    work = Work(
        database,
        settings,
        secret,
        lookup=lookup,
        predictor=predictor,
        verifier=Verifier(database, settings),
        signing_key=load_signing_key(settings),
    )
    return JobWorker(database, secret, work), lookup.close
