"""The truth about an answer: the model retrained without what was deleted, in a process of its own.

A retrain takes seconds of arithmetic or more. It runs in one further process, of low priority, that is started when
it is needed first: requests go on being answered, and a retrain that crashes takes nothing along.
"""

from __future__ import annotations

import logging
import multiprocessing
import os
import signal
from dataclasses import dataclass
from multiprocessing.connection import Connection
from multiprocessing.context import SpawnProcess
from typing import Final, Literal

from sqlalchemy.exc import OperationalError

from app import catalog
from app.db import Database, open_database, transaction
from app.erasure import check_retrained
from app.errors import AppError, ConflictError
from app.serving import located
from app.settings import Settings
from engine.errors import ArtifactError, EngineError, StoreError
from engine.supplements import Value, retrained_values
from engine.threads import use_one_thread

logger = logging.getLogger(__name__)

_NICENESS: Final = 10
_CRASHED: Final = "Something went wrong that shouldn't; the server's log says what."


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What came of a verification.

    Attributes:
        state: "finished", "failed", or "pending" where it must be tried again, since the catalog or the store of the
            artifacts is away.
        truths: a value for each measurement, where it is finished.
        reason: why it failed.
    """

    state: Literal["finished", "failed", "pending"]
    truths: tuple[Value, ...] = ()
    reason: str = ""


def truths_of(database: Database, settings: Settings, verification: str) -> list[Value]:
    """Retrain the model without what a verification's answer deleted, and measure it.

    The retrained model is kept in the supplement of the sketch version.

    Raises:
        NotFoundError: no such verification.
        ConflictError: the sketch version is deleted, or units that it was trained on were erased.
        ArtifactError: its artifact is gone or damaged; the message begins with its label.
        StoreError: the store of the artifacts is away, or refuses.
        EngineError: what else the engine refuses.
    """
    with transaction(database, writes=False) as session:
        row = catalog.get_verification(session, verification)
        if row.version.state == "deleted":
            raise ConflictError(f"{row.version.label} is deleted: its artifact is given up.")
        artifact = located(row.version, settings.artifacts)
        documents = catalog.load_documents(session, row.version.dataset)
        measurements = catalog.measurements_of(row)
    try:
        opened = artifact.open(files=())  # a retrain needs the manifest only
        values = retrained_values(opened, documents, row.units, measurements, device=settings.device)
    except StoreError:
        raise
    except ArtifactError as error:
        raise ArtifactError(f"{artifact.label}: {error}") from error
    check_retrained(database, artifact)
    return values


class TruthProcess:
    """A process that works on one verification at a time. Not for several threads at once."""

    def __init__(self, settings: Settings) -> None:
        """Nothing is started yet.

        Args:
            settings: of the catalog and the artifacts; the process opens both itself.
        """
        self._settings = settings
        self._process: SpawnProcess | None = None
        self._pipe: Connection | None = None

    @property
    def pid(self) -> int | None:
        """The process's number; None where there is none."""
        return None if self._process is None else self._process.pid

    def begin(self, verification: str) -> None:
        """Have a verification worked on; starts the process where there is none."""
        if self._process is not None and not self._process.is_alive():
            self.end()
        if self._pipe is None:
            context = multiprocessing.get_context("spawn")  # a forked child would inherit threads' locks
            self._pipe, theirs = context.Pipe()
            self._process = context.Process(target=_work, args=(self._settings, theirs), daemon=True)
            self._process.start()
            theirs.close()  # so that the pipe ends with the process
        self._pipe.send(verification)

    def outcome(self, timeout_seconds: float) -> Outcome | None:
        """What came of it; None where that isn't known after so long. A process that died has failed."""
        assert self._pipe is not None
        assert self._process is not None
        if not self._pipe.poll(timeout_seconds):
            return None
        try:
            outcome: Outcome = self._pipe.recv()
        except (EOFError, ConnectionResetError):
            self._process.join()
            code = self._process.exitcode
            self.end()
            if code == -signal.SIGTERM:  # as where all of a service's processes are told to end
                return Outcome(state="pending")
            return Outcome(state="failed", reason=f"The process that retrained ended with exit code {code}.")
        return outcome

    def end(self) -> None:
        """End the process, whatever it does, if there is one."""
        if self._process is not None and self._pipe is not None:
            self._process.terminate()
            self._process.join()
            self._process.close()
            self._pipe.close()
        self._process = self._pipe = None


def _work(settings: Settings, jobs: Connection) -> None:
    """The process: verifications in, outcomes out, until the pipe ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to handle; it ends this process
    os.nice(_NICENESS)
    use_one_thread()
    database = open_database(settings)
    try:
        while True:
            jobs.send(_outcome(database, settings, jobs.recv()))
    except (EOFError, BrokenPipeError, ConnectionResetError):
        pass  # the parent is gone
    finally:
        database.dispose()


def _outcome(database: Database, settings: Settings, verification: str) -> Outcome:
    try:
        return Outcome(state="finished", truths=tuple(truths_of(database, settings, verification)))
    except StoreError as error:
        logger.warning("Verification %s waits: %s", verification, error)
        return Outcome(state="pending")
    except (AppError, EngineError) as error:
        return Outcome(state="failed", reason=str(error))
    except OperationalError:
        return Outcome(state="pending")
    except Exception:
        logger.exception("Verification %s failed", verification)
        return Outcome(state="failed", reason=_CRASHED)
