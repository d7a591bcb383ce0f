"""The application: routes, errors and limits put together, and what it opens and closes.

Nothing is global: the settings, the database and all that answers questions are the application object's state.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib.metadata import version

from fastapi import FastAPI
from starlette.concurrency import run_in_threadpool

from app import problems
from app.body_limit import BodyLimit
from app.db import open_ready_database
from app.lookup import Lookup
from app.openapi import DESCRIPTION, TAGS, Application
from app.predictor import Predictor
from app.queues import Queues
from app.routes import attributions, datasets, health, predict, samples, sketches, subsets, verifications
from app.serving import load_current
from app.settings import Settings
from app.verifier import Verifier


def create_app(settings: Settings) -> FastAPI:
    """The application for these settings; it opens nothing before it is started.

    Args:
        settings: all of them.

    Returns:
        An ASGI application. Its start migrates a SQLite catalog, and refuses a PostgreSQL one whose schema is another.
    """
    app = Application(
        title="Neverseen",
        summary="Deletion queries: how would the model behave, had this not been in its training data?",
        description=DESCRIPTION,
        version=version("neverseen"),
        openapi_tags=TAGS,
        lifespan=_lifespan,
    )
    app.state.settings = settings
    app.add_middleware(BodyLimit, max_body_bytes=settings.max_body_bytes)
    problems.install(app)
    for part in (predict, attributions, samples, verifications, datasets, subsets, sketches, health):
        app.include_router(part.router)
    return app


@asynccontextmanager
async def _lifespan(app: FastAPI) -> AsyncIterator[None]:
    settings: Settings = app.state.settings
    database = await run_in_threadpool(open_ready_database, settings)
    try:
        predictor = Predictor(
            device=settings.device,
            resident_bytes=settings.resident_bytes,
            table_cache_bytes=settings.table_cache_bytes,
        )
        await run_in_threadpool(load_current, database, predictor, settings.artifacts_dir)
        verifier, queues = Verifier(database, settings), Queues()
        lookup = Lookup(database, settings.artifacts_dir)
        app.state.database, app.state.lookup, app.state.queues = database, lookup, queues
        app.state.predictor, app.state.verifier = predictor, verifier
        verifier.start()
        try:
            yield
        finally:
            await run_in_threadpool(verifier.stop)
            await run_in_threadpool(queues.close)
            lookup.close()
    finally:
        database.dispose()
