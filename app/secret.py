"""The secret of an installation, and what is made with it: hashes that only its holder can make or compare.

A stranger who reads the catalog learns no key from the hashes of keys, and can't try out which units a deletion set's
digest in the audit stands for.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import secrets
import tempfile
from array import array
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from app.settings import Settings
from engine.errors import ConfigurationError

_BYTES: Final = 32


class Secret:
    """Keyed hashes for several purposes, none of which says anything about another's."""

    def __init__(self, value: bytes) -> None:
        """Derive a key for each purpose.

        Args:
            value: at least 32 bytes that are hard to guess.
        """
        self._for_keys = hmac.digest(value, b"neverseen api keys", "sha256")
        self._for_deletions = hmac.digest(value, b"neverseen deletion sets", "sha256")

    def key_hash(self, key: str) -> str:
        """The hash by which an API key is known, hexadecimal."""
        return hmac.new(self._for_keys, key.encode(), hashlib.sha256).hexdigest()

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


def load_secret(settings: Settings) -> Secret:
    """The secret of the settings; else the one in the data directory, which is made where there is none.

    Raises:
        ConfigurationError: the file holds less than a secret.
        OSError: the file can't be read or made.
    """
    if settings.secret is not None:
        return Secret(settings.secret.get_secret_value().encode())
    path = settings.data_dir / "secret"
    if not path.exists():
        _make(path)
    value = path.read_bytes().strip()
    if len(value) < _BYTES:
        raise ConfigurationError(
            f"The file `secret` in the data directory holds less than {_BYTES} characters: put the right one back."
        )
    return Secret(value)


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
