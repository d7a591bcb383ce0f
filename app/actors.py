"""Who does something: a name for the audit that is no person's, and the request that it came with."""

from __future__ import annotations

import getpass
from dataclasses import dataclass
from functools import cache


@dataclass(frozen=True, kw_only=True)
class Actor:
    """Who did something.

    Attributes:
        name: "key:PREFIX", "anonymous" where no key is needed, or "local:USER" for the command line.
        request_id: of the HTTP request; None where there was none.
    """

    name: str
    request_id: str | None = None


@cache
def local_actor() -> Actor:
    """Whoever runs this process, for what isn't a request."""
    try:
        user = getpass.getuser()
    except (KeyError, OSError):  # a user without a name, as in containers
        user = "unknown"
    return Actor(name=f"local:{user[:64]}")
