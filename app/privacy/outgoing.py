"""Calls to addresses that others chose: only to hosts that are listed, and only to addresses that are public.

A peer says where it wants to be called. Nothing but what an administrator listed is called; and since a listed name may
point anywhere, a name is resolved once an attempt, all its addresses are looked at, and the connection is made to one
of these very addresses, so that the name can't point elsewhere in between. The certificate is still verified for the
name. One address that mustn't be called refuses the whole name.

No redirect is followed, no proxy of the environment used, nothing of an answer kept but its status and `Retry-After`.
An attempt ends when its time is over, whatever the peer does meanwhile.
"""

from __future__ import annotations

import asyncio
import ipaddress
import re
import socket
import ssl
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from importlib.metadata import version
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from typing import Final, TypeAlias

import httpx

from app.errors import TargetError
from app.privacy.options import CommonOptions

Address: TypeAlias = IPv4Address | IPv6Address
Network: TypeAlias = IPv4Network | IPv6Network
Resolver: TypeAlias = Callable[[str, int], Awaitable[Sequence[str]]]
"""Addresses of a host and port; raises `OSError` where there are none."""

ATTEMPT_SECONDS: Final = 20.0

_CONNECT_SECONDS: Final = 5.0
_MOST_ADDRESSES: Final = 4  # that are tried, one after the other
_READ_BYTES: Final = 65_536
_READ_SECONDS: Final = 1.0
_LONGEST_URL: Final = 2_000
_LONGEST_WAIT: Final = timedelta(days=1)
_PORTS: Final = {"https": 443, "http": 80}

_NEVER: Final[tuple[Network, ...]] = tuple(
    ipaddress.ip_network(network)
    for network in (
        "168.63.129.16/32",  # of one cloud's hosts, though it looks public
        "192.0.0.0/24",
        "192.88.99.0/24",
        "100.64.0.0/10",
        "2001:db8::/32",
        "3fff::/20",
    )
)
"""What older versions of Python call public."""

_PUBLIC_IPV6: Final = IPv6Network("2000::/3")
_EMBEDDING: Final = (IPv6Network("64:ff9b::/96"), IPv6Network("::ffff:0:0/96"))
"""Where the last 32 bits are the IPv4 address that is really called: by NAT64, and by the system itself."""

_SIX_TO_FOUR: Final = IPv6Network("2002::/16")

_NOT_FORWARDED: Final = frozenset({
    "connection", "content-length", "expect", "host", "keep-alive", "proxy-connection", "te", "trailer",
    "transfer-encoding", "upgrade",
})  # fmt: skip
"""Headers that say how the message travels: not the peer's to choose."""

_HEADER: Final = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+")
_AGENT: Final = f"neverseen/{version('neverseen')}"


@dataclass(frozen=True, kw_only=True)
class Reply:
    """What came of an attempt.

    Attributes:
        status: that the peer answered; None where it didn't.
        error: the kind of failure where it didn't: "timeout", "dns", "connect", "tls" or "broken"; else None.
        why: the same as a sentence; empty where there was an answer.
        retry_after: how long the peer wants to be left alone, at most a day; None where it doesn't say.
    """

    status: int | None = None
    error: str | None = None
    why: str = ""
    retry_after: timedelta | None = None


def check_target(url: str, options: CommonOptions) -> None:
    """Refuse an address that mustn't be called, as far as the address itself says so.

    Args:
        url: as the peer gave it.
        options: of the connection.

    Raises:
        TargetError: the address isn't one, or its host isn't listed.
    """
    _checked(url, options)


async def resolve(host: str, port: int) -> list[str]:
    """Addresses of a host, as the system knows them.

    Raises:
        OSError: there are none.
    """
    found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(address[0]) for *_, address in found))


class Outgoing:
    """Calls what may be called."""

    def __init__(
        self,
        *,
        resolver: Resolver = resolve,
        tls: ssl.SSLContext | None = None,
        seconds: float = ATTEMPT_SECONDS,
    ) -> None:
        """Nothing is called yet.

        Args:
            resolver: that knows the addresses of names.
            tls: with the authorities that are trusted; None trusts those that httpx does.
            seconds: that an attempt may take.
        """
        self._resolver, self._seconds = resolver, seconds
        self._tls = tls or httpx.create_ssl_context(trust_env=False)

    async def send(
        self, *, method: str, url: str, headers: Mapping[str, str], body: bytes, options: CommonOptions
    ) -> Reply:
        """Call an address once.

        Args:
            method: of HTTP.
            url: where to.
            headers: beside those that say how the message travels.
            body: of the message.
            options: of the connection.

        Raises:
            TargetError: the address mustn't be called, or a header not be sent; nothing was.
        """
        target = _checked(url, options)
        request = httpx.Request(method, target, headers=_headers(headers), content=body)
        # A pool of its own: connections are pooled by address, and another name's certificate may be at the same one.
        transport = GuardedTransport(options, resolver=self._resolver, tls=self._tls)
        response: httpx.Response | None = None
        try:
            async with asyncio.timeout(self._seconds), transport:
                response = await transport.handle_async_request(request)
                await _read(response)
        except (httpx.TransportError, OSError, UnicodeError) as error:  # a timeout is an OSError
            if response is None:
                return self._unanswered(error)
        assert response is not None
        wait = retry_after(response.headers.get("retry-after"), datetime.now(UTC))
        return Reply(status=response.status_code, retry_after=wait)

    def _unanswered(self, error: Exception) -> Reply:
        match error:
            case TimeoutError():
                return Reply(error="timeout", why=f"There was no answer within {self._seconds:g} seconds.")
            case socket.gaierror() | UnicodeError():
                return Reply(error="dns", why="The name of the host has no address now.")
            case httpx.ConnectTimeout():
                return Reply(error="connect", why="The host can't be connected to: it doesn't answer.")
            case httpx.ConnectError():
                return _not_connected(error)
        return Reply(error="broken", why="The connection broke, or what was answered isn't HTTP.")


class GuardedTransport(httpx.AsyncBaseTransport):
    """A transport of httpx that resolves a name once, and connects to no address that mustn't be called."""

    def __init__(self, options: CommonOptions, *, resolver: Resolver, tls: ssl.SSLContext) -> None:
        """Nothing is connected yet.

        Args:
            options: of the connection.
            resolver: that knows the addresses of names.
            tls: with the authorities that are trusted.
        """
        self._networks = [ipaddress.ip_network(network) for network in options.allowed_networks]
        self._resolver = resolver
        self._transport = httpx.AsyncHTTPTransport(verify=tls, trust_env=False, http2=False)

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Send a request to one of its host's addresses.

        Raises:
            TargetError: one of them mustn't be called.
            OSError: there are none.
            TransportError: httpx's.
        """
        host = request.url.raw_host.decode("ascii")
        addresses = [host] if _is_address(host) else await self._resolver(host, _port(request.url))
        if not addresses:
            raise socket.gaierror(socket.EAI_NONAME, "no address")
        for address in addresses:
            _refuse(address, self._networks)
        extensions = {**request.extensions, "timeout": {"connect": _CONNECT_SECONDS}, "sni_hostname": host}
        tried = addresses[:_MOST_ADDRESSES]
        for address in tried[:-1]:
            with suppress(httpx.ConnectError, httpx.ConnectTimeout):
                return await self._send(request, address, extensions)
        return await self._send(request, tried[-1], extensions)

    async def aclose(self) -> None:
        """Close all connections."""
        await self._transport.aclose()

    async def _send(self, request: httpx.Request, address: str, extensions: dict[str, object]) -> httpx.Response:
        # Its header Host keeps the name.
        return await self._transport.handle_async_request(
            httpx.Request(
                request.method,
                request.url.copy_with(host=address),
                headers=request.headers,
                stream=request.stream,
                extensions=extensions,
            )
        )


def is_callable(address: Address, networks: Sequence[Network] = ()) -> bool:
    """Whether an address may be called: it is public, and of a single machine.

    Args:
        address: of a host.
        networks: that may be called though they aren't public.
    """
    real = _embedded(address)
    if any(one in network for one in (address, real) for network in networks):
        return True
    if isinstance(real, IPv6Address) and (real not in _PUBLIC_IPV6 or real.teredo is not None):
        return False
    if any(real in network for network in _NEVER):
        return False
    return real.is_global and not (real.is_multicast or real.is_reserved or real.is_link_local)


def retry_after(value: str | None, now: datetime) -> timedelta | None:
    """What a header Retry-After means: seconds or a date, at most a day; None where it means nothing."""
    if value is None:
        return None
    if value.isascii() and value.isdigit():
        return min(timedelta(seconds=min(int(value[:9]), _LONGEST_WAIT.total_seconds())), _LONGEST_WAIT)
    try:
        date = parsedate_to_datetime(value)
    except (ValueError, OverflowError):
        return None
    wait = (date if date.tzinfo else date.replace(tzinfo=UTC)) - now
    return min(max(wait, timedelta(0)), _LONGEST_WAIT)


def _checked(url: str, options: CommonOptions) -> httpx.URL:
    try:
        target = httpx.URL(url)
    except httpx.InvalidURL:
        raise TargetError("The address to be called isn't one.") from None
    if len(url) > _LONGEST_URL:
        raise TargetError(f"The address to be called is longer than {_LONGEST_URL:,} characters.")
    if target.scheme not in _PORTS or not target.raw_host:
        raise TargetError("An address to be called begins with https:// and a host.")
    if target.userinfo:
        raise TargetError("An address to be called holds no credentials.")
    if target.scheme == "http" and not options.allow_http:
        raise TargetError("An address to be called begins with https://; the connection's option allow_http is off.")
    if _origin(target) not in _allowed(target.scheme, options):
        raise TargetError("The host of an address to be called isn't among the connection's allowed_hosts.")
    return target


def _allowed(scheme: str, options: CommonOptions) -> set[tuple[str, int]]:
    """Hosts and ports; a listed host without a port has that of the scheme."""
    urls = (*(f"{scheme}://{host}" for host in options.allowed_hosts), *options.configured_urls())
    allowed = set()
    for url in urls:
        with suppress(httpx.InvalidURL):  # which nothing can be the same as
            allowed.add(_origin(httpx.URL(url)))
    return allowed


def _origin(url: httpx.URL) -> tuple[str, int]:
    return url.raw_host.decode("ascii").lower(), _port(url)


def _port(url: httpx.URL) -> int:
    return _PORTS[url.scheme] if url.port is None else url.port


def _headers(given: Mapping[str, str]) -> httpx.Headers:
    headers = httpx.Headers(
        {"accept": "*/*", "accept-encoding": "identity", "connection": "close", "user-agent": _AGENT}, encoding="utf-8"
    )
    for name, value in given.items():
        if not _HEADER.fullmatch(name) or not value.isprintable():
            raise TargetError("A header that the message should have can't be sent.")
        if name.lower() not in _NOT_FORWARDED:
            headers[name] = value
    return headers


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def _refuse(address: str, networks: Sequence[Network]) -> None:
    try:
        may = is_callable(ipaddress.ip_address(address), networks)
    except ValueError:
        may = False
    if not may:
        raise TargetError(
            "The host has an address that isn't public: it mustn't be called, unless its network is among the"
            " connection's allowed_networks."
        )


def _embedded(address: Address) -> Address:
    """The address that is really called."""
    if isinstance(address, IPv6Address):
        if address.scope_id is not None:
            return IPv6Address(int(address))
        if any(address in network for network in _EMBEDDING):
            return IPv4Address(int(address) & 0xFFFFFFFF)
        if address in _SIX_TO_FOUR:
            return IPv4Address(int(address) >> 80 & 0xFFFFFFFF)
    return address


async def _read(response: httpx.Response) -> None:
    """Let the peer finish, within limits; what it says doesn't matter, nor that it breaks off."""
    size = 0
    with suppress(TimeoutError, httpx.TransportError):
        async with asyncio.timeout(_READ_SECONDS):
            async for part in response.aiter_raw():
                size += len(part)
                if size >= _READ_BYTES:
                    return


def _not_connected(error: httpx.ConnectError) -> Reply:
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, ssl.SSLCertVerificationError):
            return Reply(error="tls", why=f"The host's certificate can't be trusted: {cause.verify_message}.")
        if isinstance(cause, ssl.SSLError):
            return Reply(error="tls", why="The host doesn't speak TLS as it should.")
        cause = cause.__cause__ or cause.__context__
    return Reply(error="connect", why="The host can't be connected to.")
