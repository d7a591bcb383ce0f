"""Everything that the application refuses, and the one table that gives each refusal, the engine's too, its status.

A message says what is wrong, where, and what to change; it holds no file-system path and no person's identity. How an
error is turned into an answer is `problems`' part.
"""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass
from typing import Final

from sqlalchemy.exc import OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError

from engine.errors import (
    ArtifactError,
    ConfigurationError,
    DegreeError,
    DeletionSetError,
    DocumentsError,
    DownweightError,
    QuestionError,
    ShardsAwayError,
    StoreError,
    TextLengthError,
    UnknownCharacterError,
    WorkerError,
)


class AppError(Exception):
    """Root of all errors that the application raises on purpose."""


class NotFoundError(AppError):
    """A name that the catalog doesn't know."""


class ConflictError(AppError):
    """A request that contradicts what the catalog holds, or that another one overtook."""


class InvalidTextError(AppError):
    """A name or text that can't be stored."""


class PatternError(AppError):
    """A regular expression that is invalid, or takes too long."""


class UnavailableError(AppError):
    """A part that is needed is away; it may come back."""


class BusyError(UnavailableError):
    """More work waits than is taken on."""


class DeadlineError(UnavailableError):
    """A request that took longer than it may."""


class UnauthorisedError(AppError):
    """A request without a key that is valid."""


class ForbiddenError(AppError):
    """A request that its key doesn't allow."""


class TooManyRequestsError(AppError):
    """More requests of a key than it may make in this time."""

    def __init__(self, message: str, *, retry_after_seconds: int) -> None:
        super().__init__(message)
        self.retry_after_seconds = retry_after_seconds


class LimitError(AppError):
    """A question that is larger than the settings allow."""


class SealError(AppError):
    """An encrypted value that can't be read."""


class TargetError(AppError):
    """An address that mustn't be called."""


class NoKeyError(AppError):
    """A service that would listen to strangers while nobody has a key."""


class SchemaError(UnavailableError):
    """A database whose schema isn't the one that this version of the application needs."""


@dataclass(frozen=True, kw_only=True)
class ProblemType:
    """What all problems of one class have in common.

    Attributes:
        status: of the HTTP answer.
        slug: the last part of the problem's type, stable for programs to compare.
        title: the same in words.
    """

    status: int
    slug: str
    title: str


PROBLEM_TYPES: Final[dict[type[Exception], ProblemType]] = {
    QuestionError: ProblemType(status=400, slug="question", title="Question that can't be answered"),
    UnknownCharacterError: ProblemType(status=400, slug="unknown-character", title="Character outside the vocabulary"),
    TextLengthError: ProblemType(status=400, slug="text-length", title="Text of a wrong length"),
    DegreeError: ProblemType(status=400, slug="degree", title="Degree that the sketch doesn't have"),
    DownweightError: ProblemType(status=400, slug="downweight", title="Downweight outside [0, 1]"),
    DeletionSetError: ProblemType(status=400, slug="deletion-set", title="Deletion set that isn't one"),
    DocumentsError: ProblemType(status=400, slug="documents", title="Malformed documents"),
    ConfigurationError: ProblemType(status=400, slug="configuration", title="Configuration that can't be built"),
    ArtifactError: ProblemType(status=500, slug="artifact", title="Damaged artifact"),
    StoreError: ProblemType(status=503, slug="store-away", title="Store of the artifacts not available now"),
    WorkerError: ProblemType(status=500, slug="worker", title="Build that ended early"),
    ShardsAwayError: ProblemType(status=503, slug="shards-away", title="Too much of the sketch is away now"),
    NotFoundError: ProblemType(status=404, slug="not-found", title="Unknown name"),
    ConflictError: ProblemType(status=409, slug="conflict", title="Conflict"),
    InvalidTextError: ProblemType(status=400, slug="invalid-text", title="Text that can't be stored"),
    PatternError: ProblemType(status=400, slug="pattern", title="Unusable regular expression"),
    UnavailableError: ProblemType(status=503, slug="unavailable", title="Not available now"),
    BusyError: ProblemType(status=503, slug="busy", title="Too much to do now"),
    DeadlineError: ProblemType(status=503, slug="deadline", title="Not done in time"),
    UnauthorisedError: ProblemType(status=401, slug="unauthorised", title="No valid key"),
    ForbiddenError: ProblemType(status=403, slug="forbidden", title="Not allowed with this key"),
    TooManyRequestsError: ProblemType(status=429, slug="too-many-requests", title="Too many requests of a key"),
    LimitError: ProblemType(status=400, slug="limit", title="Question larger than is allowed"),
    SealError: ProblemType(status=500, slug="seal", title="Encrypted value that can't be read"),
    TargetError: ProblemType(status=400, slug="target", title="Address that mustn't be called"),
    NoKeyError: ProblemType(status=503, slug="no-key", title="No key exists yet"),
    SchemaError: ProblemType(status=503, slug="schema", title="Database schema of another version"),
}

VALIDATION: Final = ProblemType(status=422, slug="validation", title="Request of the wrong form")
NO_SUCH_ADDRESS: Final = ProblemType(status=404, slug="no-such-address", title="No such address")
NO_SUCH_METHOD: Final = ProblemType(status=405, slug="no-such-method", title="No such method")
TOO_LARGE: Final = ProblemType(status=413, slug="too-large", title="Body too large")
TOO_SLOW: Final = ProblemType(status=408, slug="too-slow", title="Request that didn't arrive in time")
HEAD_TOO_LARGE: Final = ProblemType(status=431, slug="head-too-large", title="Head too large")
NOT_HTTP: Final = ProblemType(status=400, slug="not-http", title="Not an HTTP request")
TOO_MANY_CONNECTIONS: Final = ProblemType(status=503, slug="connections", title="Too many connections")
INTERNAL: Final = ProblemType(status=500, slug="internal", title="Internal error")
CATALOG_AWAY: Final = ProblemType(status=503, slug="catalog-away", title="Catalog not available now")
CATALOG_FULL: Final = ProblemType(status=503, slug="catalog-full", title="No space left for the catalog")

PROBLEM_TYPES_OF_LIBRARIES: Final[dict[type[Exception], tuple[ProblemType, str]]] = {
    OperationalError: (CATALOG_AWAY, "The catalog's database can't be reached or is busy; try again."),
    PoolTimeoutError: (CATALOG_AWAY, "All connections to the catalog's database are in use; try again."),
}
"""Errors of libraries, with what to say in place of their messages, which hold SQL and addresses."""

_DISK_FULL: Final = "53100"  # PostgreSQL's code

FULL: Final = "There is no space left for the catalog's database; nothing was changed. Free some, then try again."


def library_problem(error: Exception) -> tuple[ProblemType, str]:
    """The problem type of a library's error, and what to say in place of its message.

    Raises:
        KeyError: the error's class isn't in the table.
    """
    if isinstance(error, OperationalError) and is_full(error):
        return CATALOG_FULL, FULL
    for ancestor in type(error).__mro__:
        if ancestor in PROBLEM_TYPES_OF_LIBRARIES:
            return PROBLEM_TYPES_OF_LIBRARIES[ancestor]
    raise KeyError(error)


def is_full(error: OperationalError) -> bool:
    """Whether the database says that its disk is full; SQLite needs some space even to read, for the file -shm."""
    code, state = (getattr(error.orig, name, None) for name in ("sqlite_errorcode", "sqlstate"))
    return code in (sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR_SHMSIZE) or state == _DISK_FULL


def problem_type(error: type[Exception]) -> ProblemType:
    """The problem type of an error's class: its own, or that of its nearest ancestor.

    Raises:
        KeyError: neither the class nor an ancestor is in the table.
    """
    for ancestor in error.__mro__:
        if ancestor in PROBLEM_TYPES:
            return PROBLEM_TYPES[ancestor]
    raise KeyError(error)
