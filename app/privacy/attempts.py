"""What an attempt to deliver a message comes to: delivered, tried again later, or given up.

    2xx                delivered
    410                given up; a webhook wants no more messages, so its connection is disabled
    anything else      tried again: after 5 s, 5 min, 30 min, 2 h, 5 h, 10 h, 14 h, 20 h, 24 h, each ± 10 %
    Retry-After        not before that
    mustn't be called  given up

Fides is answered while it still records that it waits for the answer, and says 400 until it has: so these are tried
again at once, then less and less often, as long as its tokens live.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from itertools import repeat
from typing import Final, Literal

from app.privacy.outgoing import Reply

Result = Literal["delivered", "failed", "refused"]

_MINUTE: Final = 60
_HOUR: Final = 60 * _MINUTE
_JITTER: Final = 0.1

_DELAYS: Final = (5, 5 * _MINUTE, 30 * _MINUTE, *(hours * _HOUR for hours in (2, 5, 10, 14, 20, 24)))
_FIDES_DELAYS: Final = (
    *(0.05, 0.1, 0.2, 0.5, 1, 2, 5, 15, 30, 60),
    *(minutes * _MINUTE for minutes in (2, 5, 10, 20, 30)),
    *repeat(_HOUR, 58),  # its tokens are over after 60 hours
)
_DELAYS_OF: Final[dict[str, tuple[float, ...]]] = {"fides_resume": _FIDES_DELAYS, "fides_pre_approval": _FIDES_DELAYS}

_FIDES_REFUSALS: Final = {
    400: (13, "refused: already resumed, or never paused"),
    401: (1, "refused: the token is over"),
    403: (1, "refused: the token is over"),
}
_REFUSALS_OF: Final[dict[str, dict[int, tuple[int, str]]]] = {
    "fides_resume": _FIDES_REFUSALS,
    "fides_pre_approval": _FIDES_REFUSALS,
    "transcend_report": {409: (3, "refused: it can't be changed any more")},
}
"""Statuses that mean that it is no use after so many attempts, and why."""


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What is written of an attempt.

    Attributes:
        result: what it is counted as.
        wait: until it is tried again; None where it isn't.
        status: that the peer answered; None where it didn't.
        error: the kind of failure, a word; None where it was delivered.
        why: the same in words.
        gone: whether the peer says that nobody listens there any more.
    """

    result: Result
    wait: timedelta | None = None
    status: int | None = None
    error: str | None = None
    why: str = ""
    gone: bool = False


def judged(kind: str, attempt: int, reply: Reply, *, jitter: float) -> Outcome:
    """What an attempt comes to.

    Args:
        kind: of the message.
        attempt: its number, from 1.
        reply: of the peer.
        jitter: random, from -1 to 1.
    """
    status = reply.status
    if status is None:
        return failed(kind, attempt, error=reply.error or "broken", why=reply.why, jitter=jitter)
    if 200 <= status < 300:
        return Outcome(result="delivered", status=status)
    error = f"http_{status}"
    if status == 410:
        return Outcome(result="failed", status=status, error=error, why="It answered 410: gone.", gone=True)
    most, refused = _REFUSALS_OF.get(kind, {}).get(status, (None, ""))
    if most is not None and attempt >= most:
        return Outcome(result="failed", status=status, error=error, why=refused)
    redirects = ": redirects aren't followed" if 300 <= status < 400 else ""
    return failed(
        kind,
        attempt,
        error=error,
        why=f"It answered {status}{redirects}.",
        jitter=jitter,
        status=status,
        at_least=reply.retry_after,
    )


def failed(
    kind: str,
    attempt: int,
    *,
    error: str,
    why: str,
    jitter: float,
    status: int | None = None,
    at_least: timedelta | None = None,
) -> Outcome:
    """An attempt that came to nothing, and that is followed by another one unless it was the last.

    Args:
        kind: of the message.
        attempt: its number, from 1.
        error: the kind of failure.
        why: the same in words.
        jitter: random, from -1 to 1.
        status: that the peer answered.
        at_least: how long it wants to be left alone.
    """
    delays = _DELAYS_OF.get(kind, _DELAYS)
    if attempt > len(delays):
        why = f"Given up after {attempt} attempts. {why}"
        return Outcome(result="failed", status=status, error=error, why=why)
    wait = timedelta(seconds=delays[attempt - 1] * (1 + _JITTER * jitter))
    return Outcome(result="failed", status=status, error=error, why=why, wait=max(wait, at_least or timedelta(0)))
