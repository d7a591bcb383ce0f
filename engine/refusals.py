"""What the errors of object stores' clients mean: what passes, what must be put right, and what to say of it.

The clients are extras, and needn't be there: their classes are known by name.
"""

from __future__ import annotations

import errno
from typing import Final

from engine.errors import StoreError

_PASSING_STATUSES: Final = frozenset({408, 409, 425, 429})
_UNKNOWN_STATUSES: Final = frozenset({501, 505})
"""Of what a server doesn't know, and won't the next time."""

_PASSING_CODES: Final = frozenset({"RequestTimeout", "IncompleteBody", "BadDigest", "XAmzContentSHA256Mismatch"})
"""What S3 says with status 400 of a request that was spoilt on its way."""

_PASSING_NUMBERS: Final = frozenset(
    {errno.EPIPE, errno.ETIMEDOUT, errno.EHOSTUNREACH, errno.ENETUNREACH, errno.ENETDOWN, errno.EBUSY, errno.EREMOTEIO}
)
_PASSING_CLASSES: Final = frozenset(
    {
        "aiohttp.client_exceptions.ClientError",
        "botocore.exceptions.ConnectionError",
        "botocore.exceptions.HTTPClientError",
        "botocore.parsers.ResponseParserError",
        "google.auth.exceptions.TransportError",
        "socket.gaierror",
        "urllib3.exceptions.HTTPError",
    }
)

_CREDENTIAL_CLASSES: Final = frozenset(
    {
        "botocore.exceptions.NoCredentialsError",
        "botocore.exceptions.PartialCredentialsError",
        "botocore.exceptions.CredentialRetrievalError",
        "google.auth.exceptions.DefaultCredentialsError",
        "google.auth.exceptions.RefreshError",
    }
)

_CLIENT_PACKAGES: Final = frozenset({"aiobotocore", "aiohttp", "botocore", "gcsfs", "google", "s3fs", "urllib3"})

NO_BUCKET: Final = "there is no such bucket. Make it, or correct the URL."


class MissingError(Exception):
    """There is no such object."""


class TornError(Exception):
    """What a store has isn't what was written: as a connection that was cut, it may be better the next time."""


def is_passing(error: BaseException) -> bool:
    """Whether something may work the next time: a connection that was cut, a store that is busy."""
    if isinstance(error, TornError | ConnectionError | TimeoutError):
        return True
    code, status = _said(error)
    if status is not None:
        failed = status >= 500 and status not in _UNKNOWN_STATUSES
        return failed or status in _PASSING_STATUSES or code in _PASSING_CODES
    return bool(_classes(error) & _PASSING_CLASSES) or (isinstance(error, OSError) and error.errno in _PASSING_NUMBERS)


def is_unknown(error: BaseException) -> bool:
    """Whether a store says that it doesn't have what it was asked to do."""
    return _said(error)[1] in _UNKNOWN_STATUSES


def refusal_of(what: str, error: Exception) -> Exception | None:
    """What to raise for an error that wasn't helped by waiting; None where it isn't a store's.

    Args:
        what: can't be done, in words.
        error: of a client.

    Returns:
        A `StoreError` that says what is wrong and what to change, or a `MissingError`.
    """
    code, _ = _said(error)
    if is_passing(error):
        why = f"the store of the artifacts is away ({type(error).__name__})."
    elif code == "NoSuchBucket":
        why = NO_BUCKET
    elif isinstance(error, FileNotFoundError):
        return MissingError()
    elif isinstance(error, PermissionError) or code in {"401", "403"}:
        why = f"the store refuses it ({code or 'no right'}). Check credentials and rights."
    elif _classes(error) & _CREDENTIAL_CLASSES:
        why = "there are no credentials for the store that can be used."
    elif code is not None or type(error).__module__.partition(".")[0] in _CLIENT_PACKAGES:
        why = f"the store refuses it ({code or type(error).__name__})."
    else:
        return None
    return StoreError(f"{what}: {why}")


def _said(error: BaseException) -> tuple[str | None, int | None]:
    """Code and HTTP status of a store's refusal, where it is one."""
    for one in (error, error.__cause__):
        response = getattr(one, "response", None)
        if isinstance(response, dict) and "Error" in response:  # of botocore
            return response["Error"].get("Code"), response.get("ResponseMetadata", {}).get("HTTPStatusCode")
        status = getattr(one, "code", None)  # of gcsfs
        if isinstance(status, int):
            return str(status), status
    return None, None


def _classes(error: BaseException) -> set[str]:
    return {f"{one.__module__}.{one.__qualname__}" for one in type(error).__mro__}
