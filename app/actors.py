"""Who does something, for the audit: never a person whose data is asked about."""

from __future__ import annotations

import os
import pwd
from dataclasses import dataclass
from functools import cache


@dataclass(frozen=True, kw_only=True)
class Actor:
    """Who did something.

    Attributes:
        name: "key:PREFIX", "anonymous" where no key is needed, or "local:USER" for the command line, with the
            operator's login name.
        request_id: of the HTTP request; None where there was none.
    """

    name: str
    request_id: str | None = None


@cache
def local_actor() -> Actor:
    """Whoever runs this process, for what isn't a request: as the system says, not the environment."""
    try:
        user = pwd.getpwuid(os.getuid()).pw_name
    except KeyError:  # a user without a name, as in containers
        user = str(os.getuid())
    return Actor(name=f"local:{user[:64]}")
