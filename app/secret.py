"""The secret of an installation, and what is made with it: hashes that only its holder can make, and seals.

A stranger who reads the catalog learns no key from the hashes of keys, can't try out whose identity a hash is, nor
which units a deletion set's digest in the audit stands for. What has to be read again, as a peer's token, is sealed:
encrypted and authenticated (Fernet), with a key of its own where the settings give one.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import os
import secrets
import tempfile
from array import array
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from cryptography.fernet import Fernet, InvalidToken

from app.errors import SealError
from app.settings import Settings
from engine.errors import ConfigurationError

_BYTES: Final = 32


class Secret:
    """Keyed hashes for several purposes, none of which says anything about another's, and seals."""

    def __init__(self, value: bytes, *, sealing: bytes | None = None) -> None:
        """Derive a key for each purpose.

        Args:
            value: at least 32 bytes that are hard to guess.
            sealing: the same, for what is sealed; None takes `value` for that, too.
        """
        self._for_keys = hmac.digest(value, b"neverseen api keys", "sha256")
        self._for_deletions = hmac.digest(value, b"neverseen deletion sets", "sha256")
        self._for_identities = hmac.digest(value, b"neverseen identities", "sha256")
        self._for_bodies = hmac.digest(value, b"neverseen request bodies", "sha256")
        self._for_credentials = hmac.digest(value, b"neverseen credentials", "sha256")
        self.installation = hmac.digest(value, b"neverseen installation", "sha256").hex()
        """Tells this installation from others, hexadecimal; nothing can be made with it."""
        seal_key = hmac.digest(sealing or value, b"neverseen seals", "sha256")
        self._sealing = Fernet(base64.urlsafe_b64encode(seal_key))

    def key_hash(self, key: str) -> str:
        """The hash by which an API key is known, hexadecimal."""
        return _keyed(self._for_keys, key.encode())

    def deletion_digest(self, fingerprint: str, units: Sequence[int]) -> str:
        """The digest of a deletion set, hexadecimal: the same for the same units of the same documents.

        Args:
            fingerprint: of the dataset.
            units: numbers, ascending.
        """
        digest = hmac.new(self._for_deletions, fingerprint.encode(), hashlib.sha256)
        numbers = array("Q", units)
        digest.update(numbers.tobytes())
        return digest.hexdigest()

    def identity_hash(self, kind: str, form: str, digest: str) -> str:
        """The hash by which an identity is known, hexadecimal.

        Args:
            kind: of the identity, "email".
            form: the hash function that the digest is of, "sha256".
            digest: of the identity, hexadecimal in small letters.
        """
        return _keyed(self._for_identities, json.dumps([kind, form, digest]).encode())

    def body_digest(self, body: bytes) -> str:
        """The digest of what a request says, hexadecimal; whoever has the request can't be found by trying."""
        return _keyed(self._for_bodies, body)

    def credential_hash(self, credential: str) -> str:
        """The hash by which what a peer shows is known, hexadecimal."""
        return _keyed(self._for_credentials, credential.encode())

    def seal(self, content: dict[str, Any]) -> str:
        """Encrypt an object of JSON; each time another text."""
        return self._sealing.encrypt(json.dumps(content).encode()).decode("ascii")

    def unseal(self, sealed: str) -> dict[str, Any]:
        """What was sealed.

        Raises:
            SealError: it was sealed with another key, or changed since.
        """
        try:
            content: dict[str, Any] = json.loads(self._sealing.decrypt(sealed))
        except InvalidToken:
            raise SealError(
                "What was encrypted can't be read: NEVERSEEN_ENCRYPTION_KEY, or the secret, isn't the one that it was "
                "encrypted with. Put that one back."
            ) from None
        return content


def load_secret(settings: Settings) -> Secret:
    """The secret of the settings; else the one in the data directory, which is made where there is none.

    Raises:
        ConfigurationError: the file holds less than a secret.
        OSError: the file can't be read or made.
    """
    sealing = None if settings.encryption_key is None else settings.encryption_key.get_secret_value().encode()
    if settings.secret is not None:
        return Secret(settings.secret.get_secret_value().encode(), sealing=sealing)
    path = settings.data_dir / "secret"
    if not path.exists():
        _make(path)
    value = path.read_bytes().strip()
    if len(value) < _BYTES:
        raise ConfigurationError(
            f"The file `secret` in the data directory holds less than {_BYTES} characters: put the right one back."
        )
    return Secret(value, sealing=sealing)


def _keyed(key: bytes, content: bytes) -> str:
    return hmac.new(key, content, hashlib.sha256).hexdigest()


def _make(path: Path) -> None:
    """Write a new secret, whole and for the owner only; where another process is faster, its secret stays."""
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix="secret.", suffix=".partial")  # for its owner only
    draft = Path(name)
    with os.fdopen(descriptor, "w", encoding="ascii") as file:
        file.write(secrets.token_hex(_BYTES) + "\n")
        file.flush()
        os.fsync(file.fileno())
    try:
        os.link(draft, path)
    except FileExistsError:
        pass
    finally:
        draft.unlink()
