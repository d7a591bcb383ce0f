"""Transcend's server webhooks: a data silo's part of a privacy request, a job for each identifier of the person.

A webhook shows a token (JWT) that Transcend's gateway, Sombra, signed by ES384. It is made for an audience, and names
the core identifier, which is compared with the body's. It signs nothing else of the body: the identifier of the
profile, which whoever has seen a token could put there, is looked for only where it is the same one. Neither is the
type signed, nor need a token end: whoever has one can ask for the erasure of this person's data. Use TLS.

What comes of the job is reported to the gateway. `RESOLVED` says that what the service held of the person is erased.
Where the connection only predicts, or evidence can't be made, the report is `ACTION_REQUIRED`: somebody has to decide.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, cast

import httpx
import jwt
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ec import SECP384R1, EllipticCurvePublicKey
from cryptography.hazmat.primitives.serialization import load_pem_public_key
from sqlalchemy.orm import Session

from app import catalog
from app.errors import InvalidTextError, NotFoundError, UnauthorisedError, UnavailableError
from app.names import is_name
from app.privacy.connections import OpenedConnection, open_connection
from app.privacy.identities import Identity
from app.privacy.messages import Message
from app.privacy.options import TranscendOptions
from app.privacy.outgoing import GuardedTransport, Resolver, check_target, resolve
from app.schemas.transcend import TranscendWebhook
from app.secret import Secret
from app.tables import ErasureRequest

PROTOCOL: Final = "transcend"
TOKEN_HEADER: Final = "x-sombra-token"  # noqa: S105 - a header's name
NONCE_HEADER: Final = "x-transcend-nonce"
CORE: Final = "core_identifier"
"""The type of the core identifier, unless the connection's `identity_types` has another word for `coreIdentifier`."""

_KEY_PATH: Final = "/public-keys/sombra-general-signing-key"
_REPORT_PATH: Final = "/v1/data-silo"
_SCOPE: Final = "coreIdentifier"
_LEEWAY_SECONDS: Final = 30
_KEY_SECONDS: Final = 3_600
_RENEWAL_SECONDS: Final = 60  # of a key that doesn't verify a token
_RETRY_SECONDS: Final = 5  # after the gateway couldn't be asked
_FETCH_SECONDS: Final = 10
_LONGEST_KEY: Final = 16_384
_LONGEST_TOKEN: Final = 8_000
_LONGEST_NONCE: Final = 4_000


@dataclass(frozen=True, kw_only=True)
class _Kept:
    """The key of a gateway; None where it couldn't be asked."""

    key: EllipticCurvePublicKey | None
    fetched: float


class SombraKeys:
    """The public keys of gateways, each kept for an hour. For one event loop."""

    def __init__(self, *, resolver: Resolver = resolve) -> None:
        """Nothing is fetched yet.

        Args:
            resolver: that knows the addresses of names.
        """
        self._resolver = resolver
        self._tls = httpx.create_ssl_context(trust_env=False)
        self._kept: dict[str, _Kept] = {}
        self._fetching = asyncio.Lock()

    async def verified(self, token: str, connection: OpenedConnection) -> str:
        """The core identifier that a token is for.

        Args:
            token: a JWT.
            connection: whose gateway signed it.

        Raises:
            UnauthorisedError: it isn't the gateway's, or not for this.
            UnavailableError: the gateway's key can't be had now.
            TargetError: the gateway mustn't be called.
        """
        if not token or len(token) > _LONGEST_TOKEN:
            raise refused()
        options = cast("TranscendOptions", connection.options)
        try:
            return _core(token, await self._key(connection, older_than=_KEY_SECONDS), options)
        except jwt.InvalidSignatureError:  # of another key, or one that is new
            pass
        except jwt.PyJWTError:
            raise refused() from None
        try:
            return _core(token, await self._key(connection, older_than=_RENEWAL_SECONDS), options)
        except jwt.PyJWTError:
            raise refused() from None

    async def _key(self, connection: OpenedConnection, *, older_than: float) -> EllipticCurvePublicKey:
        url = cast("TranscendOptions", connection.options).sombra_url
        async with self._fetching:
            kept = self._kept.get(url)
            lasts = older_than if kept is not None and kept.key is not None else _RETRY_SECONDS
            if kept is None or time.monotonic() - kept.fetched > lasts:
                key = await self._fetch(url + _KEY_PATH, connection)
                kept = self._kept[url] = _Kept(key=key, fetched=time.monotonic())
        if kept.key is None:
            raise UnavailableError("The signing key of Transcend's gateway can't be had now.")
        return kept.key

    async def _fetch(self, url: str, connection: OpenedConnection) -> EllipticCurvePublicKey | None:
        check_target(url, connection.options)
        shown = {"Authorization": f"Bearer {connection.secrets.token}"} if connection.secrets.token else {}
        transport = GuardedTransport(connection.options, resolver=self._resolver, tls=self._tls)
        try:
            async with asyncio.timeout(_FETCH_SECONDS), transport:
                response = await transport.handle_async_request(httpx.Request("GET", url, headers=shown))
                text = await _read(response)
        except (httpx.TransportError, OSError, UnicodeError):  # a timeout is an OSError
            return None
        if response.status_code != 200:
            return None
        try:
            key = load_pem_public_key(text)
        except (ValueError, UnsupportedAlgorithm):
            return None
        return key if isinstance(key, EllipticCurvePublicKey) and isinstance(key.curve, SECP384R1) else None


async def _read(response: httpx.Response) -> bytes:
    read = b""
    async for chunk in cast("httpx.AsyncByteStream", response.stream):
        read += chunk
        if len(read) > _LONGEST_KEY:
            break
    return read


def _core(token: str, key: EllipticCurvePublicKey, options: TranscendOptions) -> str:
    claims = jwt.decode(
        token,
        key,
        algorithms=["ES384"],
        audience=options.audience,
        leeway=_LEEWAY_SECONDS,
        options={"require": ["aud"]},
    )
    value = claims.get("value")
    if claims.get("scope") != _SCOPE or not isinstance(value, str):
        raise jwt.InvalidTokenError
    return value


def refused() -> UnauthorisedError:
    """What is said of a wrong token; of a connection that isn't there nothing else is."""
    return UnauthorisedError(f"A token of this connection's gateway is needed, in the header {TOKEN_HEADER}.")


def connection_of(session: Session, secret: Secret, name: str) -> OpenedConnection:
    """The connection that an address names.

    Raises:
        UnauthorisedError: there is none to Transcend that is used.
        SealError: its secrets can't be read.
    """
    try:
        row = catalog.get_connection(session, name) if is_name(name) else None
    except NotFoundError:
        row = None
    if row is None or row.protocol != PROTOCOL or row.disabled_at is not None:
        raise refused()
    return open_connection(row, secret)


def identities(body: TranscendWebhook, core: str, connection: OpenedConnection) -> tuple[Identity, ...]:
    """The person's, as far as they are signed.

    Args:
        body: of the webhook.
        core: the core identifier that the token is for.
        connection: that it came by.

    Raises:
        UnauthorisedError: the body is for somebody else than the token.
    """
    if body.core_identifier.value != core:
        raise UnauthorisedError("The token is for another identifier than the body.")
    words = connection.options.identity_types
    kinds = [words.get(_SCOPE, CORE)]
    profile = body.extras.profile
    if profile is not None and profile.identifier == core:
        kinds.append(words.get(profile.type, profile.type))
    return tuple(Identity(kind=kind, value=core) for kind in dict.fromkeys(kinds))


def nonce(headers: Mapping[str, str]) -> str:
    """What a job is reported with.

    Raises:
        InvalidTextError: it is missing, or isn't one.
    """
    value = headers.get(NONCE_HEADER, "")
    if not 1 <= len(value) <= _LONGEST_NONCE or not (value.isascii() and value.isprintable()):
        raise InvalidTextError(f"The header {NONCE_HEADER} is 1 to {_LONGEST_NONCE:,} printable ASCII characters.")
    return value


def job(body: TranscendWebhook, nonce: str) -> bytes:
    """What tells a job from all others, and is the same when it is sent again; not to be kept in clear."""
    request, profile = body.extras.request, body.extras.profile
    of = (request.id or request.link) if request is not None else None
    told = [of or nonce, body.core_identifier.value, profile and [profile.type, profile.identifier]]
    return json.dumps(told).encode()


def asked(body: TranscendWebhook) -> bytes:
    """What a job asks."""
    profile = body.extras.profile
    told = [body.type, body.is_test, body.core_identifier.value, profile and [profile.type, profile.identifier]]
    return json.dumps(told).encode()


def messages(row: ErasureRequest, connection: OpenedConnection, sealed: dict[str, Any]) -> list[Message]:
    """What Transcend is told of a change: once, what came of the job.

    Args:
        row: as it is after the change.
        connection: to Transcend.
        sealed: the nonce, where the job was called queued.
    """
    report = _report(row)
    if report is None or "nonce" not in sealed:
        return []
    options = cast("TranscendOptions", connection.options)
    return [
        Message(
            kind="transcend_report",
            method="PUT",
            url=options.sombra_url + _REPORT_PATH,
            headers={"Authorization": f"Bearer {connection.secrets.token}", NONCE_HEADER: sealed["nonce"]},
            body=json.dumps(report),
        )
    ]


def _report(row: ErasureRequest) -> dict[str, str] | None:
    match row.state, row.outcome, row.mode:
        case "completed", "no_match", _:
            return {"status": "SKIPPED", "message": "Nothing of this person was found."}
        case "completed", _, "erase":
            return {"status": "RESOLVED", "message": f"Erased; the evidence is that of erasure request {row.id}."}
        case "completed", _, _:
            return {
                "status": "ACTION_REQUIRED",
                "message": f"Predicted, not erased; the evidence is that of erasure request {row.id}.",
            }
        case "failed", _, _:
            return {"status": "ACTION_REQUIRED", "message": f"Erasure request {row.id} failed."}
        case "cancelled", _, _:
            return {"status": "SKIPPED", "message": f"Erasure request {row.id} was cancelled."}
    return None
