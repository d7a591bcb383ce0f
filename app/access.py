"""Who may ask: API keys, their scopes and limits.

A key is ``nvs_PREFIX_SECRET``. The catalog has the prefix, to find the key by, and a keyed hash of the whole. What it
says of a key is believed for some seconds, so that a request costs no query; a key that is revoked is refused
everywhere after as long.

Where no key was ever made, and the service listens to its own machine alone, none is needed: everybody is
"anonymous". A web page could have a browser ask in its name, so that the address that was asked for must then be this
machine's, too.
"""

from __future__ import annotations

import asyncio
import hmac
import re
import secrets
import string
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from ipaddress import ip_address
from time import monotonic
from typing import Final

from anyio import CapacityLimiter, to_thread
from starlette.datastructures import Headers

from app import catalog
from app.catalog import SCOPES, Scope
from app.db import Database, transaction
from app.errors import ForbiddenError, LimitError, NoKeyError, TooManyRequestsError, UnauthorisedError
from app.recorder import Recorder
from app.secret import Secret
from app.tables import ApiKey
from engine.measure import Measurement

BELIEVED_SECONDS: Final = 5.0
"""How long what the catalog said of a key is believed."""

_NO_KEY: Final = "A key is needed: send Authorization: Bearer KEY. `neverseen keys create` makes one."
_ONLY_PREDICTIONS: Final = "This key is for predictions only: its answers are rounded, or of listed measurements."
_USE_KEPT_EVERY: Final = timedelta(minutes=1)
_MOST_REMEMBERED: Final = 10_000
_THREADS: Final = 4
_PREFIX_LENGTH, _SECRET_BYTES = 8, 32
_KEY: Final = re.compile(r"nvs_([a-z0-9]{8})_[A-Za-z0-9_-]{43}")
_OF_PROXIES: Final = ("forwarded", "x-forwarded-for", "x-real-ip", "via")
_PREFIX_LETTERS: Final = string.ascii_lowercase + string.digits


@dataclass(frozen=True, kw_only=True)
class Caller:
    """Who asks, and what of it is allowed.

    Attributes:
        name: for the audit and the limits.
        scopes: what may be done.
        requests_per_minute: None is what the settings say.
        decimals: that numbers in answers are rounded to; None is not at all.
        measurements: the only ones that may be asked for; None is all.
    """

    name: str
    scopes: frozenset[str]
    requests_per_minute: int | None = None
    decimals: int | None = None
    measurements: frozenset[Measurement] | None = None

    @property
    def is_restricted(self) -> bool:
        """Whether it sees less than the numbers as they are, of anything it likes."""
        return self.decimals is not None or self.measurements is not None

    def may(self, scope: Scope) -> bool:
        """Whether a scope is among its own."""
        return scope in self.scopes

    def check_measurements(self, measurements: Sequence[Measurement]) -> None:
        """Refuse what isn't on the key's list.

        Raises:
            ForbiddenError: a measurement isn't.
        """
        if self.measurements is not None and not self.measurements.issuperset(measurements):
            raise ForbiddenError("This key may only ask for the measurements that it was made for.")

    def check_unrestricted(self) -> None:
        """Refuse what would go around the limits of a key's answers.

        Raises:
            ForbiddenError: the key has such limits.
        """
        if self.is_restricted:
            raise ForbiddenError(_ONLY_PREDICTIONS)


ANONYMOUS: Final = Caller(name="anonymous", scopes=frozenset(SCOPES))


@dataclass(kw_only=True)
class _Known:
    """What the catalog said of a prefix, and when."""

    hash: str
    caller: Caller
    expires_at: datetime | None
    revoked: bool
    asked: float
    use_kept: datetime | None


@dataclass
class _Allowance:
    """Requests that a caller may still make: refilled evenly, a minute's worth at most."""

    left: float
    at: float = field(default_factory=monotonic)

    def take(self, per_minute: int, requests: int) -> float:
        """Take some; 0 where they were there, else after how many seconds they will be."""
        now = monotonic()  # which never goes back
        self.left = min(per_minute, self.left + (now - self.at) * per_minute / 60)
        self.at = now
        if self.left >= requests:
            self.left -= requests
            return 0.0
        return (requests - self.left) * 60 / per_minute


class Access:
    """Admits requests. For one event loop."""

    def __init__(self, database: Database, secret: Secret, recorder: Recorder, *, requests_per_minute: int) -> None:
        """Nothing is known yet.

        Args:
            database: the catalog.
            secret: that the hashes of keys are made with.
            recorder: told which keys are used.
            requests_per_minute: of each key; 0 is no limit.
        """
        self._database, self._secret, self._recorder = database, secret, recorder
        self._requests_per_minute = requests_per_minute
        self._known: OrderedDict[str, _Known] = OrderedDict()
        self._allowances: OrderedDict[str, _Allowance] = OrderedDict()
        self._keys_exist, self._keys_asked = False, float("-inf")
        self._lock = asyncio.Lock()
        self._threads = CapacityLimiter(_THREADS)  # that no request's work can hold
        self._generation = 0

    async def admit(self, headers: Headers, scope: Scope) -> Caller:
        """Who asks with these headers, where that is allowed.

        Raises:
            UnauthorisedError: no key that is valid.
            ForbiddenError: a key without the scope.
            TooManyRequestsError: the key's requests of this minute are used up.
            SQLAlchemyError: the catalog can't be asked.
        """
        caller = await self.identify(headers)
        if not caller.may(scope):
            raise ForbiddenError(f"The key doesn't have the scope {scope}; it has {', '.join(sorted(caller.scopes))}.")
        self.charge(caller, 1)
        return caller

    async def identify(self, headers: Headers) -> Caller:
        """Who asks with these headers, whatever for; counted nowhere.

        Raises:
            UnauthorisedError: no key that is valid.
            SQLAlchemyError: the catalog can't be asked.
        """
        key = _presented(headers)
        if key is not None:
            return await self._caller(key)
        if await self._any_key() or not _is_at_this_machine(headers):
            raise UnauthorisedError(_NO_KEY)
        return ANONYMOUS

    def charge(self, caller: Caller, requests: int, *, before: int = 0) -> None:
        """Count requests of a caller.

        Args:
            caller: who makes them.
            requests: how many.
            before: how many of the same question were counted already.

        Raises:
            LimitError: a minute's requests are fewer than these.
            TooManyRequestsError: there are too many in this minute.
        """
        own = caller.requests_per_minute
        per_minute = self._requests_per_minute if own is None else own
        if not per_minute:
            return
        if before + requests > per_minute:
            raise LimitError(
                f"{before + requests:,} at once can never be answered: this key may ask {per_minute:,} a minute."
            )
        allowance = self._allowances.get(caller.name)
        if allowance is None:
            allowance = self._allowances[caller.name] = _Allowance(per_minute)
            if len(self._allowances) > _MOST_REMEMBERED:
                self._allowances.popitem(last=False)
        seconds = allowance.take(per_minute, requests)
        if seconds:
            raise TooManyRequestsError(
                f"This key may make {per_minute:,} requests a minute; {requests:,} more are too many now.",
                retry_after_seconds=int(seconds) + 1,
            )

    def forget(self, prefix: str) -> None:
        """Ask the catalog again about a key; also where an answer about it is under way. For any thread."""
        self._generation += 1
        self._known.pop(prefix, None)

    async def _caller(self, key: str) -> Caller:
        match = _KEY.fullmatch(key)
        if match is None:
            raise UnauthorisedError("This isn't a key: keys begin with nvs_ and have 56 characters.")
        prefix, generation = match[1], self._generation
        known = self._known.get(prefix)
        if known is None or monotonic() - known.asked > BELIEVED_SECONDS:
            known = await to_thread.run_sync(self._asked, prefix, limiter=self._threads)
            if known is not None and generation == self._generation:
                self._remember(prefix, known)
        hashed = self._secret.key_hash(key)
        if known is None or not hmac.compare_digest(hashed, known.hash):
            raise UnauthorisedError("This key isn't known here.")
        now = datetime.now(UTC)
        if known.revoked:
            raise UnauthorisedError("This key is revoked.")
        if known.expires_at is not None and known.expires_at <= now:
            raise UnauthorisedError("This key has expired.")
        if known.use_kept is None or now - known.use_kept >= _USE_KEPT_EVERY:
            self._recorder.mark_used(prefix)
            known.use_kept = now
        return known.caller

    def _remember(self, prefix: str, known: _Known) -> None:
        self._known[prefix] = known
        self._known.move_to_end(prefix)
        if len(self._known) > _MOST_REMEMBERED:
            self._known.popitem(last=False)

    def _asked(self, prefix: str) -> _Known | None:
        asked = monotonic()
        with transaction(self._database, writes=False) as session:
            row = catalog.find_key(session, prefix)
        if row is None:
            return None
        return _Known(
            hash=row.hash,
            caller=_caller_of(row),
            expires_at=row.expires_at,
            revoked=row.revoked_at is not None,
            asked=asked,
            use_kept=row.last_used_at,
        )

    async def _any_key(self) -> bool:
        """Whether a key was ever made, here or by another process."""
        if not self._keys_exist and monotonic() - self._keys_asked > BELIEVED_SECONDS:
            async with self._lock:
                if monotonic() - self._keys_asked > BELIEVED_SECONDS:  # else it was asked while this waited
                    asked = monotonic()
                    self._keys_exist = await to_thread.run_sync(any_key, self._database, limiter=self._threads)
                    self._keys_asked = asked
        return self._keys_exist


def any_key(database: Database) -> bool:
    """Whether a key was ever made."""
    with transaction(database, writes=False) as session:
        return catalog.any_key(session)


def check_exposure(database: Database, host: str) -> None:
    """Refuse to listen to strangers while everybody is let in.

    Raises:
        NoKeyError: the address isn't this machine's own, and there is no key yet.
    """
    if not is_loopback(host) and not any_key(database):
        raise NoKeyError(
            f"{host} can be reached from elsewhere, and no key exists yet. Make one first: "
            "neverseen keys create NAME --scope predict"
        )


@lru_cache(maxsize=1_000)
def is_loopback(host: str) -> bool:
    """Whether a host name or address is this machine's own, where nobody else reaches it."""
    if host == "localhost":
        return True
    try:
        return ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def new_key() -> tuple[str, str]:
    """A key that can't be guessed, and its prefix, by which it is called: (prefix, key)."""
    prefix = "".join(secrets.choice(_PREFIX_LETTERS) for _ in range(_PREFIX_LENGTH))
    return prefix, f"nvs_{prefix}_{secrets.token_urlsafe(_SECRET_BYTES)}"


def _presented(headers: Headers) -> str | None:
    """The key that a request shows; None where it shows none. A proxy may need Authorization for itself."""
    if "x-api-key" in headers:
        return headers["x-api-key"]
    authorization = headers.get("authorization")
    if authorization is None:
        return None
    scheme, _, key = authorization.partition(" ")
    if scheme.lower() != "bearer":
        raise UnauthorisedError("The header must be: Authorization: Bearer KEY, or X-API-Key: KEY.")
    return key.strip()


def _is_at_this_machine(headers: Headers) -> bool:
    """Whether a request without a key is for this machine's own name, and neither a proxy's nor of a foreign page.

    A browser sends a request to anybody for any page, and only keeps the answer from it.
    """
    origin = headers.get("origin")
    return (
        is_loopback(_without_port(headers.get("host", "")))
        and (origin is None or is_loopback(_without_port(origin.rpartition("/")[2])))
        and not any(name in headers for name in _OF_PROXIES)
    )


def _without_port(host: str) -> str:
    return host if host.endswith("]") else host.rpartition(":")[0] or host


def _caller_of(row: ApiKey) -> Caller:
    return Caller(
        name=f"key:{row.prefix}",
        scopes=frozenset(row.scopes),
        requests_per_minute=row.requests_per_minute,
        decimals=row.decimals,
        measurements=None if row.measurements is None else frozenset(Measurement(**one) for one in row.measurements),
    )
