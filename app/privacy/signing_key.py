"""The key that evidence is signed with: Ed25519, one of an installation, made at its first use.

A public key is known by its fingerprint, the SHA-256 of its DER form, which `openssl` tells as well:

    openssl pkey -pubin -in key.pem -outform DER | sha256sum
"""

from __future__ import annotations

import hashlib
import os
import re
import tempfile
from pathlib import Path
from typing import Final

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
    load_pem_public_key,
)

from app.settings import Settings
from engine.errors import ConfigurationError

SIGNING_KEY: Final = "signing-key.pem"

_PUBLIC: Final = re.compile(b"-----BEGIN PUBLIC KEY-----.+?-----END PUBLIC KEY-----", re.DOTALL)


def load_signing_key(settings: Settings) -> Ed25519PrivateKey:
    """The installation's key; made in the data directory where there is none and no other file is set.

    Raises:
        ConfigurationError: the file that is set isn't there, or holds no Ed25519 key.
        OSError: the file can't be read or made.
    """
    path = settings.signing_key_file
    if not path.exists():
        if path != settings.data_dir / SIGNING_KEY:
            raise ConfigurationError(
                "There is no file as NEVERSEEN_SIGNING_KEY_FILE names it: make it with `openssl genpkey -algorithm "
                "ed25519`, or put the right one back."
            )
        _make(path)
    return _read(path)


def own_public_key(settings: Settings) -> Ed25519PublicKey | None:
    """The public part of the installation's key; None where it has none yet, and none is made.

    Raises:
        ConfigurationError: the file holds no Ed25519 key.
        OSError: the file can't be read.
    """
    return _read(settings.signing_key_file).public_key() if settings.signing_key_file.exists() else None


def public_keys(pem: bytes) -> list[Ed25519PublicKey]:
    """The public keys of a PEM file, which may hold several, such as those before a rotation.

    Raises:
        ConfigurationError: it holds none, or one that isn't Ed25519.
    """
    blocks = _PUBLIC.findall(pem)
    if not blocks:
        raise ConfigurationError("There is no public key in the file: it begins with -----BEGIN PUBLIC KEY-----.")
    keys = []
    for block in blocks:
        try:
            key = load_pem_public_key(block)
        except (ValueError, UnsupportedAlgorithm):
            key = None
        if not isinstance(key, Ed25519PublicKey):
            raise ConfigurationError("A public key in the file isn't one of Ed25519.")
        keys.append(key)
    return keys


def as_pem(key: Ed25519PublicKey) -> str:
    """A public key as PEM, for whoever verifies."""
    return key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode("ascii")


def fingerprint(key: Ed25519PublicKey) -> str:
    """What a public key is known by, hexadecimal."""
    return hashlib.sha256(key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)).hexdigest()


def _read(path: Path) -> Ed25519PrivateKey:
    try:
        key = load_pem_private_key(path.read_bytes(), password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm):  # TypeError: it is encrypted
        key = None
    if not isinstance(key, Ed25519PrivateKey):
        raise ConfigurationError(
            "The file of the signing key holds no private key of Ed25519 (PEM, not encrypted): put the right one back."
        )
    return key


def _make(path: Path) -> None:
    """Write a new key, whole and for the owner only; where another process is faster, its key stays."""
    pem = Ed25519PrivateKey.generate().private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f"{path.name}.", suffix=".partial")  # its owner's only
    draft = Path(name)
    with os.fdopen(descriptor, "wb") as file:
        file.write(pem)
        file.flush()
        os.fsync(file.fileno())
    try:
        os.link(draft, path)
    except FileExistsError:
        pass
    finally:
        draft.unlink()
