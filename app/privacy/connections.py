"""Connections to privacy backends: made, changed and opened, and found by what their peers show.

What they may be told to do are their options (`options`), which an administrator may read. Secrets are sealed in the
catalog (`app.secret`), and a peer's credential is there as a keyed hash only, by which its connection is found.
"""

from __future__ import annotations

import base64
import binascii
import secrets as random
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from sqlalchemy.orm import Session

from app import catalog
from app.errors import ConflictError, InvalidTextError, UnauthorisedError
from app.privacy.certificates import check_certificate
from app.privacy.options import CommonOptions, OpenDsrOptions, options_of
from app.schemas.connections import ConnectionSecrets, Protocol
from app.secret import Secret
from app.tables import PrivacyConnection

_SHOWING: Final = ("fides", "opendsr", "ketch")
"""Protocols whose peers show a credential of ours."""

_SIGNED: Final = ("webhook", "opendsr")
"""Protocols whose messages are signed by Standard Webhooks."""

_CREDENTIAL_BYTES: Final = 32
_NO_CREDENTIAL: Final = "A credential of a connection is needed, in Authorization: Bearer CREDENTIAL."


@dataclass(frozen=True, kw_only=True)
class OpenedConnection:
    """A connection with its secrets, in memory only.

    Attributes:
        name: of it.
        protocol: that it speaks.
        options: of its protocol's class.
        secrets: of it.
        disabled: whether it may be called, and call, no more.
    """

    name: str
    protocol: str
    options: CommonOptions
    secrets: ConnectionSecrets
    disabled: bool


def new_credential() -> str:
    """What a peer may show, hard to guess."""
    return f"nvc_{random.token_urlsafe(_CREDENTIAL_BYTES)}"


def new_webhook_secret() -> str:
    """A secret of Standard Webhooks."""
    return "whsec_" + base64.b64encode(random.token_bytes(32)).decode("ascii")


@dataclass(frozen=True, kw_only=True, repr=False)
class MadeConnection:
    """A connection that was made or changed, and what its peer has to be told, which is never shown again.

    Attributes:
        row: of it.
        credential: that the peer shows; None where it shows none, or where it is as it was.
        webhook_secret: that messages are signed with; None as the credential.
    """

    row: PrivacyConnection
    credential: str | None = None
    webhook_secret: str | None = None


def make_connection(
    session: Session,
    secret: Secret,
    *,
    name: str,
    protocol: Protocol,
    options: Mapping[str, Any],
    secrets: ConnectionSecrets,
    credential: str | None = None,
) -> MadeConnection:
    """Write a connection; what it needs of credentials and secrets, and isn't given, is made.

    Args:
        session: a writing transaction.
        secret: of the installation.
        name: of it.
        protocol: that it speaks.
        options: of the protocol.
        secrets: of it.
        credential: that the peer shows; None makes one, where the protocol has one.

    Raises:
        ConflictError: the name or the credential is another's, or secrets are missing or unusable.
        InvalidTextError: the name can't be stored, or an option isn't known or has a wrong form.
    """
    checked = options_of(protocol, options)
    made_secret = None
    if protocol in _SIGNED and not secrets.webhook_secrets:
        made_secret = new_webhook_secret()
        secrets = secrets.model_copy(update={"webhook_secrets": [made_secret]})
    check_secrets(protocol, checked, secrets)
    if isinstance(checked, OpenDsrOptions):
        _check_domain(session, secret, checked.domain, secrets.certificate)
    made_credential = None
    if protocol in _SHOWING and credential is None:
        credential = made_credential = new_credential()
    row = catalog.add_connection(
        session,
        name=name,
        protocol=protocol,
        options=checked.model_dump(mode="json"),
        sealed=secret.seal(secrets.model_dump(mode="json")),
        credential_hash=None if credential is None else secret.credential_hash(credential),
    )
    return MadeConnection(row=row, credential=made_credential, webhook_secret=made_secret)


def rotate_credential(session: Session, secret: Secret, name: str) -> MadeConnection:
    """Give a peer another credential; the one before is refused from now on.

    Raises:
        NotFoundError: there is no such connection.
        ConflictError: its protocol has none.
    """
    row = catalog.get_connection(session, name)
    if row.protocol not in _SHOWING:
        raise ConflictError(f"The peer of a {row.protocol} connection shows no credential of ours.")
    credential = new_credential()
    row = catalog.change_connection(session, name, credential_hash=secret.credential_hash(credential))
    return MadeConnection(row=row, credential=credential)


def rotate_webhook_secret(session: Session, secret: Secret, name: str, *, keep: bool) -> MadeConnection:
    """Sign messages with another secret.

    Args:
        session: a writing transaction.
        secret: of the installation.
        name: of the connection.
        keep: whether the newest one before signs, too, until the next rotation: so that the peer may change over.

    Raises:
        NotFoundError: there is no such connection.
        ConflictError: its messages aren't signed so.
    """
    row = catalog.get_connection(session, name)
    if row.protocol not in _SIGNED:
        raise ConflictError(f"Messages of a {row.protocol} connection aren't signed with a secret.")
    opened, made = open_connection(row, secret), new_webhook_secret()
    before = opened.secrets.webhook_secrets[:1] if keep else []
    secrets = opened.secrets.model_copy(update={"webhook_secrets": [made, *before]})
    row = catalog.change_connection(session, name, sealed=secret.seal(secrets.model_dump(mode="json")))
    return MadeConnection(row=row, webhook_secret=made)


def replace_certificate(
    session: Session, secret: Secret, name: str, *, private_key: str, certificate: str
) -> MadeConnection:
    """Sign answers with another key, as before the certificate ends; those of all connections of its domain.

    Raises:
        NotFoundError: there is no such connection.
        ConflictError: it isn't one of OpenDSR, or key and certificate aren't usable.
    """
    row = catalog.get_connection(session, name)
    opened = open_connection(row, secret)
    if row.protocol != "opendsr":
        raise ConflictError("Only OpenDSR connections have a certificate.")
    replaced = {"private_key": private_key, "certificate": certificate}
    check_secrets(row.protocol, opened.options, opened.secrets.model_copy(update=replaced))
    for one in _of_domain(session, secret, _domain(opened)):
        secrets = one.secrets.model_copy(update=replaced)
        catalog.change_connection(session, one.name, sealed=secret.seal(secrets.model_dump(mode="json")))
    return MadeConnection(row=catalog.get_connection(session, name))


def change_options(session: Session, secret: Secret, name: str, options: Mapping[str, Any]) -> MadeConnection:
    """Change some options of a connection.

    Raises:
        NotFoundError: there is no such connection.
        ConflictError: its secrets don't do for them.
        InvalidTextError: an option isn't known or has a wrong form.
    """
    row = catalog.get_connection(session, name)
    checked = options_of(row.protocol, {**row.options, **options})
    if isinstance(checked, OpenDsrOptions) and checked.domain != row.options["domain"]:
        secrets = open_connection(row, secret).secrets
        check_secrets(row.protocol, checked, secrets)
        _check_domain(session, secret, checked.domain, secrets.certificate)
    return MadeConnection(row=catalog.change_connection(session, name, options=checked.model_dump(mode="json")))


def check_secrets(protocol: str, options: CommonOptions, secrets: ConnectionSecrets) -> None:
    """Refuse secrets that don't do for a protocol.

    Raises:
        ConflictError: something is missing, or key and certificate aren't usable.
        InvalidTextError: a webhook's secret isn't one.
    """
    if not all(24 <= _decoded_length(one) <= 64 for one in secrets.webhook_secrets):
        raise InvalidTextError("A secret of Standard Webhooks is whsec_ and the base64 of 24 to 64 bytes.")
    if protocol == "transcend" and secrets.token is None:
        raise ConflictError("A Transcend connection needs the token of its API key.")
    if isinstance(options, OpenDsrOptions):
        if secrets.private_key is None or secrets.certificate is None:
            raise ConflictError("An OpenDSR connection needs a private key and its certificate: answers are signed.")
        check_certificate(secrets.private_key, secrets.certificate, options.domain)


def _check_domain(session: Session, secret: Secret, domain: str, certificate: str | None) -> None:
    """Refuse a second certificate for a domain: whoever verifies answers fetches one, by the domain alone."""
    for one in _of_domain(session, secret, domain):
        if one.secrets.certificate != certificate:
            raise ConflictError(
                f"Answers of {domain} are signed under another certificate already, that of {one.name!r}: use"
                " the same, or replace that one."
            )


def _of_domain(session: Session, secret: Secret, domain: str) -> list[OpenedConnection]:
    opened = [open_connection(row, secret) for row in catalog.connections_of(session, "opendsr")]
    return [one for one in opened if _domain(one) == domain]


def _domain(connection: OpenedConnection) -> str:
    assert isinstance(connection.options, OpenDsrOptions)
    return connection.options.domain


def open_connection(row: PrivacyConnection, secret: Secret) -> OpenedConnection:
    """A connection with its secrets.

    Raises:
        SealError: they were sealed with another key.
    """
    return OpenedConnection(
        name=row.name,
        protocol=row.protocol,
        options=options_of(row.protocol, row.options),
        secrets=ConnectionSecrets.model_validate(secret.unseal(row.sealed)),
        disabled=row.disabled_at is not None,
    )


def authenticated(
    session: Session, secret: Secret, protocol: str, headers: Mapping[str, str], *, header: str = "Authorization"
) -> OpenedConnection:
    """The connection whose credential a request shows.

    The credential is looked up by its keyed hash, so that nothing of it can be found out by timing.

    Args:
        session: any transaction.
        secret: of the installation.
        protocol: that the request speaks.
        headers: of the request.
        header: that shows the credential: alone, behind "Bearer", or as the password of "Basic".

    Raises:
        UnauthorisedError: none that is valid for this protocol.
        SealError: as `open_connection`.
    """
    for shown in _credentials(headers.get(header, "")):
        row = catalog.find_by_credential(session, secret.credential_hash(shown))
        if row is not None and row.protocol == protocol and row.disabled_at is None:
            return open_connection(row, secret)
    raise UnauthorisedError(_NO_CREDENTIAL)


def _credentials(value: str) -> list[str]:
    """What may be meant: the value as a whole, or what stands behind its scheme."""
    scheme, _, rest = value.partition(" ")
    found = [value] if value else []
    if scheme.lower() == "bearer" and rest.strip():
        found.append(rest.strip())
    if scheme.lower() == "basic":
        try:
            decoded = base64.b64decode(rest.strip(), validate=True).decode("utf-8")
        except (binascii.Error, ValueError):
            return found
        password = decoded.partition(":")[2]
        if password:
            found.append(password)
    return found


def _decoded_length(webhook_secret: str) -> int:
    try:
        return len(base64.b64decode(webhook_secret.removeprefix("whsec_"), validate=True))
    except binascii.Error:
        return 0
