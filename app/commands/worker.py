"""``neverseen worker``: works on erasure requests and sends what is to be told, beside services that don't."""

from __future__ import annotations

import signal
import threading
from contextlib import ExitStack

from app.commands import opened, predictor_of
from app.logs import set_up_logging
from app.lookup import Lookup
from app.privacy.worker import Workers
from app.secret import load_secret
from app.serving import Serving
from app.verifier import Verifier


def worker() -> None:
    """Work on erasure requests, and send what is to be told, until Ctrl-C or SIGTERM.

    For services with NEVERSEEN_PRIVACY_WORKER=false; any number of workers may share a catalog.
    """
    ended = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: ended.set())
    with opened() as (settings, database), ExitStack() as stack:
        set_up_logging(settings)
        predictor = predictor_of(settings)
        serving = Serving(database, predictor, settings.artifacts)
        lookup = Lookup(database, settings.artifacts, serving)
        serving.when_erased(lookup.forget)
        stack.callback(lookup.close)
        verifier = Verifier(database, settings)
        workers = Workers(
            database, settings, load_secret(settings), lookup=lookup, predictor=predictor, verifier=verifier
        )
        for part in (serving, verifier, workers):
            part.start()
            stack.callback(part.stop)
        ended.wait()
