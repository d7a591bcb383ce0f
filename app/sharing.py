"""What was retrained beside artifacts, shared by all services of an object store.

A model that is retrained for a pinned subset or a verification is written to the store by whoever retrained it. Here
the local copies follow: a thread looks every so often, not at each answer, fetches what was added elsewhere, and drops
what was removed. Where units were erased it removes models without them itself, from the store, too: it makes up for a
process that was killed between a retrain and its second look at what is erased.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Collection
from pathlib import Path
from time import monotonic
from typing import Final

from sqlalchemy.exc import SQLAlchemyError

from app import catalog
from app.artifacts import Artifacts
from app.db import Database, transaction
from app.predictor import Predictor
from engine import supplements
from engine.errors import ArtifactError, StoreError
from engine.refusals import is_passing

logger = logging.getLogger(__name__)

LOOK_SECONDS: Final = 30.0
"""From one look at the store to the next: for so long another service may not know of a retrained model."""

EVERYTHING_SECONDS: Final = 3600.0
"""The same for versions of which something was erased, and which aren't asked about."""

_PATIENCE_SECONDS: Final = 5.0
_STOP_SECONDS: Final = 1.0


class Sharing:
    """Keeps local copies of what was retrained equal to the store's, from `start` to `stop`."""

    def __init__(self, database: Database, predictor: Predictor, artifacts: Artifacts) -> None:
        """Nothing is looked at yet.

        Args:
            database: the catalog.
            predictor: that holds what is resident.
            artifacts: where they lie; without a store there is nothing to do.
        """
        self._database, self._predictor, self._artifacts = database, predictor, artifacts
        self._news, self._stopping = threading.Event(), False
        self._looked_at_everything: float | None = None
        self._erasures = 0
        self._away = False
        self._thread = threading.Thread(target=self._run, name="sharing", daemon=True)

    def start(self) -> None:
        """Look from now on."""
        if self._artifacts.url is not None:
            self._thread.start()

    def stop(self) -> None:
        """Look no more. What waits for the store is left alone: the thread ends with the process."""
        self._stopping = True
        self._news.set()
        if self._thread.is_alive():
            self._thread.join(_STOP_SECONDS)

    def erased(self) -> None:
        """Remove here what was retrained without units that are erased by now, and have the store looked at soon.

        Raises:
            SQLAlchemyError: the catalog can't be read.
            OSError: a file can't be removed; all others were.
        """
        if self._artifacts.url is None:
            return
        self._erasures += 1  # first: a look that goes on now began before
        self._looked_at_everything = None
        with transaction(self._database, writes=False) as session:
            affected = catalog.erased_artifacts(session)
        errors: list[OSError] = []
        for one in affected:
            try:
                supplements.remove(self._artifacts.path(one.location), one.units)
            except OSError as error:
                errors.append(error)
        self._news.set()
        if errors:
            raise errors[0]

    def look(self) -> None:
        """Make the copies of what is current or resident equal to the store's; from time to time, of all.

        Raises:
            SQLAlchemyError: the catalog can't be read.
            StoreError: the store refuses, or is away.
            ArtifactError, OSError: a copy can't be written; all others are equal to the store's.
        """
        assert self._artifacts.url is not None
        started, before, erasures = monotonic(), self._looked_at_everything, self._erasures
        with transaction(self._database, writes=False) as session:
            current = {version.location for version in catalog.current_versions(session)}
            erased = {one.location: one.units for one in catalog.erased_artifacts(session)}
        wanted = {self._artifacts.path(location): self._artifacts.origin(location) for location in current}
        wanted |= {artifact.path: artifact.origin for artifact in self._predictor.artifacts()}
        everything = before is None or started - before > EVERYTHING_SECONDS
        if everything:
            wanted |= {self._artifacts.path(location): self._artifacts.origin(location) for location in erased}
        gone = {self._artifacts.path(location): units for location, units in erased.items()}
        errors: list[ArtifactError | OSError] = []
        for path, url in wanted.items():
            if url is None:
                continue
            try:
                _follow(path, url, gone.get(path, frozenset()))
            except StoreError as error:
                if error.__cause__ is not None and is_passing(error.__cause__):
                    raise  # it is away for the others, too
                errors.append(error)
            except (ArtifactError, OSError) as error:
                errors.append(error)
        if errors:
            raise errors[0]
        if everything and self._erasures == erasures:  # else units were erased meanwhile
            self._looked_at_everything = started

    def _run(self) -> None:
        while not self._stopping:
            self._news.wait(LOOK_SECONDS)
            self._news.clear()
            if self._stopping:
                return
            try:
                self.look()
            except (ArtifactError, OSError, SQLAlchemyError) as error:
                if not self._away:
                    logger.warning("What was retrained elsewhere can't be seen: %s", error)
                self._away = True
            except Exception:  # the thread has to go on
                logger.exception("What was retrained elsewhere can't be seen")
            else:
                self._away = False


def _follow(path: Path, url: str, gone: Collection[int]) -> None:
    if gone:
        supplements.remove(path, gone, url=url, patience_seconds=_PATIENCE_SECONDS)
    else:
        supplements.synchronise(path, url, patience_seconds=_PATIENCE_SECONDS)
