"""Which version of a sketch questions get: the current one, from the moment when it is resident here.

A promoted version is loaded in the background, and the one that was served goes on answering until then: no question
waits for a load, nor fails where the new artifact is damaged. A thread looks for promotions, by whichever process they
were made; a question that meets one first wakes it.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Collection
from dataclasses import dataclass
from time import monotonic, perf_counter
from typing import Final

from sqlalchemy.exc import SQLAlchemyError

from app import catalog
from app.artifacts import Artifacts
from app.db import Database, transaction
from app.errors import ConflictError
from app.predictor import Artifact, Predictor
from app.sharing import Sharing
from app.tables import SketchVersion
from engine.errors import ArtifactError, ShardsAwayError

logger = logging.getLogger(__name__)

_LOOK_SECONDS: Final = 1.0
_TRY_AGAIN_SECONDS: Final = 30.0


def artifact_of(version: SketchVersion, artifacts: Artifacts) -> Artifact:
    """What the predictor must know of a version that is to be served.

    Raises:
        ConflictError: the version is retired or deleted.
    """
    if version.state != "ready":
        raise ConflictError(f"{version.label} is {version.state} and isn't served; ask the current version.")
    return located(version, artifacts)


def located(version: SketchVersion, artifacts: Artifacts) -> Artifact:
    """The artifact of a version, served or not."""
    return Artifact(
        version_id=version.id,
        label=version.label,
        path=artifacts.path(version.location),
        checksum=version.checksum,
        origin=artifacts.origin(version.location),
    )


@dataclass(frozen=True)
class _Failure:
    """A version that can't be loaded, and when that was tried last."""

    version_id: int
    at: float


class Serving:
    """Keeps the current versions resident from `start` to `stop`. Safe to use from several threads."""

    def __init__(self, database: Database, predictor: Predictor, artifacts: Artifacts) -> None:
        """Nothing is served yet.

        Args:
            database: the catalog.
            predictor: that holds what is resident.
            artifacts: where they lie.
        """
        self._database, self._predictor, self._artifacts = database, predictor, artifacts
        self._served: dict[str, int] = {}
        self._failed: dict[str, _Failure] = {}
        self._news, self._stopping = threading.Event(), False
        self._away = False
        self._erased: dict[int, int] | None = None
        self._removed: dict[int, int] = {}
        self._unforgotten: str | None = None
        self._when_erased: list[Callable[[dict[int, int]], None]] = []
        self._sharing = Sharing(database, predictor, artifacts)
        self._thread = threading.Thread(target=self._run, name="serving", daemon=True)

    def start(self) -> None:
        """Make the current versions resident, then look for promotions; a damaged one keeps no other from serving.

        Raises:
            SQLAlchemyError: the catalog can't be read.
        """
        self.look()
        self._thread.start()
        self._sharing.start()

    def stop(self) -> None:
        """Look no more."""
        self._stopping = True
        self._news.set()
        self._thread.join()
        self._sharing.stop()

    def version_for(self, sketch: str, current: int) -> int:
        """The id of the version that a question about a sketch's current one gets.

        Args:
            sketch: its name.
            current: the id of the version that is current in the catalog at this moment.
        """
        served = self._served.setdefault(sketch, current)
        if served == current:
            return current
        if self._predictor.holds(current):
            self._served[sketch] = current
            return current
        self._news.set()
        return served if self._predictor.holds(served) else current

    def when_erased(self, forget: Callable[[dict[int, int]], None]) -> None:
        """Have something called at each look once units were erased, with how many of which dataset, by its id."""
        self._when_erased.append(forget)

    def look(self) -> None:
        """Load what is current and isn't served yet, and serve it from then on; forget what was erased.

        What can't be forgotten is said in the log, keeps nothing from serving, and is tried again at the next look.

        Raises:
            SQLAlchemyError: the catalog can't be read.
        """
        with transaction(self._database, writes=False) as session:
            current = [
                (version.sketch.name, artifact_of(version, self._artifacts))
                for version in catalog.current_versions(session)
            ]
            erased = catalog.erased_of_datasets(session)
            trained_on = catalog.erased_of_versions(session)
        try:
            self._forget(erased, trained_on)
        except Exception as error:
            if self._unforgotten != str(error):  # not at each look
                logger.exception("What was erased isn't all forgotten here")
            self._unforgotten = str(error)
        else:
            self._unforgotten = None
        self._predictor.forget_failures(but={artifact.label for _, artifact in current})
        for sketch, artifact in current:
            if self._served.get(sketch) != artifact.version_id and not self._failed_lately(sketch, artifact):
                self._load(sketch, artifact)

    def _forget(self, erased: dict[int, int], trained_on: Collection[int]) -> None:
        if self._erased not in (None, erased):
            self._predictor.forget_texts()
        self._erased = erased
        if not erased:
            return
        try:
            if self._removed != erased:
                self._sharing.erased()
                self._removed = erased  # else not all files are gone
        finally:  # at each look: a question that began before it may have remembered since, and files go later
            for forget in self._when_erased:
                forget(erased)
            self._predictor.look_again(trained_on)

    def _load(self, sketch: str, artifact: Artifact) -> None:
        started = perf_counter()
        try:
            loaded = self._predictor.load(artifact)
        except (ArtifactError, ShardsAwayError) as error:
            self._failed[sketch] = _Failure(artifact.version_id, monotonic())
            logger.error("Not served: %s", error)
            return
        self._served[sketch] = artifact.version_id
        self._failed.pop(sketch, None)
        logger.info("Loaded %s: %.1f MB in %.2f s", loaded.label, loaded.bytes / 1e6, perf_counter() - started)

    def _failed_lately(self, sketch: str, artifact: Artifact) -> bool:
        failure = self._failed.get(sketch)
        return (
            failure is not None
            and failure.version_id == artifact.version_id
            and monotonic() - failure.at < _TRY_AGAIN_SECONDS
        )

    def _run(self) -> None:
        while not self._stopping:
            self._news.wait(_LOOK_SECONDS)
            self._news.clear()
            if self._stopping:
                return
            try:
                self.look()
            except SQLAlchemyError:
                if not self._away:
                    logger.warning("Promotions can't be seen: the catalog's database is away")
                self._away = True
            except Exception:  # as where memory is short: what is served goes on being so
                logger.exception("A promoted version can't be loaded")
            else:
                self._away = False
