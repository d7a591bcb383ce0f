"""The application: routes, errors and limits put together, and what it opens and closes.

Nothing is global: the settings, the database and all that answers questions are the application object's state.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack, asynccontextmanager, contextmanager
from importlib.metadata import version

from anyio import CapacityLimiter, to_thread
from fastapi.middleware.cors import CORSMiddleware

from app import problems
from app.access import Access, check_exposure
from app.body_limit import BodyLimit
from app.db import open_ready_database
from app.explorer import page as explorer
from app.lookup import Lookup
from app.observation import TELEMETRY
from app.openapi import DESCRIPTION, TAGS, Application
from app.parts import Parts
from app.predictor import Predictor
from app.privacy.figures import Figures
from app.privacy.requests import Requests
from app.privacy.transcend import SombraKeys
from app.privacy.worker import Workers
from app.queues import Queues
from app.recorder import Recorder
from app.reference import page as reference
from app.routes import (
    attributions,
    audit,
    batch,
    calibration,
    connections,
    datasets,
    deliveries,
    erasure_requests,
    fides,
    health,
    ketch,
    keys,
    opendsr,
    predict,
    reports,
    samples,
    sketches,
    subsets,
    transcend,
    verifications,
)
from app.secret import load_secret
from app.serving import Serving
from app.settings import Settings
from app.verifier import Verifier
from engine.shards import Shards


def create_app(settings: Settings, *, shards: Shards | None = None) -> Application:
    """The application for these settings; it opens nothing before it is started.

    Args:
        settings: all of them.
        shards: that hold the sketches; by default this process does.

    Returns:
        An ASGI application. Its start migrates a SQLite catalog, and refuses a PostgreSQL one whose schema is another;
        it refuses an address that strangers reach while there is no key.
    """
    app = Application(
        title="Neverseen",
        summary="Deletion queries: how would the model behave, had this not been in its training data?",
        description=DESCRIPTION,
        version=version("neverseen"),
        openapi_tags=TAGS,
        lifespan=_lifespan,
        telemetry=TELEMETRY,
        docs_url=None,  # ours is `reference`, which loads nothing from elsewhere
        redoc_url=None,
    )
    app.state.settings, app.state.shards = settings, shards
    app.add_middleware(BodyLimit, max_body_bytes=settings.max_body_bytes, body_seconds=settings.body_seconds)
    if settings.cors_origins:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=settings.cors_origins,
            allow_methods=["GET", "POST", "PUT", "DELETE"],
            allow_headers=["Authorization", "Content-Type", "X-API-Key", "X-Request-ID"],
            expose_headers=["X-Request-ID", "Retry-After"],
        )
    problems.install(app)
    for resource in _RESOURCES:
        app.include_router(resource.router)
    explorer.install(app)
    reference.install(app)
    return app


_RESOURCES = (
    predict,
    batch,
    attributions,
    calibration,
    samples,
    verifications,
    datasets,
    subsets,
    sketches,
    erasure_requests,
    reports,
    connections,
    deliveries,
    fides,
    opendsr,
    transcend,
    ketch,
    keys,
    audit,
    health,
)


@asynccontextmanager
async def _lifespan(app: Application) -> AsyncIterator[None]:
    opened, own = _opened(app), CapacityLimiter(1)  # a thread that no request can hold
    await to_thread.run_sync(opened.__enter__, limiter=own)
    try:
        yield
    finally:
        await to_thread.run_sync(opened.__exit__, None, None, None, limiter=own)


@contextmanager
def _opened(app: Application) -> Iterator[None]:
    """All that the application needs, from its start to its end; the last opened is the first closed."""
    settings: Settings = app.state.settings
    metrics = app.metrics
    with ExitStack() as stack:
        database = open_ready_database(settings)
        stack.callback(database.dispose)
        check_exposure(database, settings.host)
        secret = load_secret(settings)
        predictor = Predictor(
            device=settings.device,
            resident_bytes=settings.resident_bytes,
            table_cache_bytes=settings.table_cache_bytes,
            shards=app.state.shards,
        )
        serving = Serving(database, predictor, settings.artifacts)
        recorder = Recorder(database, written=metrics.recorded, failed=metrics.not_recorded)
        verifier = Verifier(database, settings)
        for thread in (recorder, serving, verifier):
            thread.start()
            stack.callback(thread.stop)
        lookup = Lookup(database, settings.artifacts, serving)
        serving.when_erased(lookup.forget)
        stack.callback(lookup.close)
        queues = Queues(most_waiting=settings.queue_length, waited=metrics.waited)
        stack.callback(queues.close)
        metrics.watch(predictor, queues)
        figures = Figures(database, secret)
        metrics.register(figures)
        workers = Workers(
            database,
            settings,
            secret,
            lookup=lookup,
            predictor=predictor,
            verifier=verifier,
            sent=figures.sent,
        )
        figures.start()
        stack.callback(figures.stop)
        if settings.privacy_worker:
            workers.start()
            stack.callback(workers.stop)
        app.state.database, app.state.predictor = database, predictor
        app.state.sombra_keys = SombraKeys()
        app.state.parts = Parts(
            settings=settings,
            access=Access(database, secret, recorder, requests_per_minute=settings.requests_per_minute),
            lookup=lookup,
            predictor=predictor,
            verifier=verifier,
            queues=queues,
            recorder=recorder,
            secret=secret,
            requests=Requests(database, secret, news=workers.wake),
            metrics=metrics,
        )
        yield
