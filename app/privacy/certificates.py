"""Certificates that answers are signed under: does a chain belong to a key and a domain, and how long does it last?

The signature is RSA's of PKCS#1 v1.5 with SHA-256, which is what those who verify OpenDSR's answers run. Whether a
public authority issued the chain is the verifier's question: no root is known here, and nothing is fetched.
"""

from __future__ import annotations

import base64
from datetime import UTC, datetime
from itertools import pairwise
from typing import Final

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from app.errors import ConflictError

_FEWEST_BITS: Final = 2048


def check_certificate(private_key: str, certificate: str, domain: str) -> None:
    """Refuse a key and a certificate that answers can't be signed with.

    Args:
        private_key: RSA, PEM, not encrypted.
        certificate: PEM, the key's own first, then its issuers', each the issuer of the one before.
        domain: that the certificate has to name.

    Raises:
        ConflictError: something isn't so, a part of the chain isn't valid now, or the key signed it itself.
    """
    key = _checked_key(private_key)
    chain = _chain(certificate)
    leaf = chain[0]
    if not _belongs(leaf, key):
        raise ConflictError("The private key isn't that of the first certificate: put the key's own certificate first.")
    if _issued(leaf, leaf):
        raise ConflictError("The certificate is self-signed: OpenDSR needs one that an authority issued.")
    for number, (issued, issuer) in enumerate(pairwise(chain), start=1):
        if not _issued(issued, issuer):
            raise ConflictError(
                f"Certificate {number + 1} of the chain didn't issue certificate {number}: put each issuer behind what "
                "it issued."
            )
    if not _names(leaf, domain):
        raise ConflictError(f"The certificate isn't for {domain}: the domain has to be one of its DNS names.")
    if not _may_sign(leaf):
        raise ConflictError("The certificate isn't for signatures: its key usage lacks digitalSignature.")
    now = datetime.now(UTC)
    for number, one in enumerate(chain, start=1):
        if not one.not_valid_before_utc <= now < one.not_valid_after_utc:
            raise ConflictError(
                f"Certificate {number} of the chain isn't valid now, but from {one.not_valid_before_utc:%Y-%m-%d} to "
                f"{one.not_valid_after_utc:%Y-%m-%d}."
            )


def certificate_ends_at(certificate: str) -> datetime:
    """When a chain is valid no more: the end of the first of its certificates that ends.

    Raises:
        ConflictError: it isn't a chain.
    """
    return min(one.not_valid_after_utc for one in _chain(certificate))


def sign(private_key: str, body: bytes) -> str:
    """The signature of a body, base64 on one line; the same key always gives the same one.

    Args:
        private_key: as `check_certificate` took it.
        body: what is signed; it is hashed once.
    """
    return base64.b64encode(_key(private_key).sign(body, PKCS1v15(), SHA256())).decode("ascii")


def _key(private_key: str) -> RSAPrivateKey:
    # It was checked when the connection was made; to check it again takes longer than to sign.
    key = load_pem_private_key(private_key.encode(), password=None, unsafe_skip_rsa_key_validation=True)
    assert isinstance(key, RSAPrivateKey)
    return key


def _checked_key(private_key: str) -> RSAPrivateKey:
    try:
        key = load_pem_private_key(private_key.encode(), password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm):  # a TypeError is for one with a password
        raise ConflictError("The private key can't be read: it has to be PEM, without a password.") from None
    if not isinstance(key, RSAPrivateKey) or key.key_size < _FEWEST_BITS:
        raise ConflictError(f"The private key has to be an RSA key of at least {_FEWEST_BITS} bits.")
    return key


def _chain(certificate: str) -> list[x509.Certificate]:
    try:
        return x509.load_pem_x509_certificates(certificate.encode())
    except ValueError:
        raise ConflictError("The certificate can't be read: it has to be PEM, the key's own first.") from None


def _belongs(certificate: x509.Certificate, key: RSAPrivateKey) -> bool:
    try:
        return certificate.public_key() == key.public_key()
    except (ValueError, UnsupportedAlgorithm):  # a key of a kind that isn't known
        return False


def _issued(issued: x509.Certificate, issuer: x509.Certificate) -> bool:
    try:
        issued.verify_directly_issued_by(issuer)
    except (ValueError, TypeError, InvalidSignature, UnsupportedAlgorithm):  # another name, kind of key, or signature
        return False
    return True


def _names(certificate: x509.Certificate, domain: str) -> bool:
    """Whether it is for a domain; one with a wildcard is for all that are one label longer."""
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except (x509.ExtensionNotFound, ValueError):
        return False
    wildcard = f"*.{domain.partition('.')[2]}"
    return any(name.lower() in (domain, wildcard) for name in names.get_values_for_type(x509.DNSName))


def _may_sign(certificate: x509.Certificate) -> bool:
    try:
        return certificate.extensions.get_extension_for_class(x509.KeyUsage).value.digital_signature
    except x509.ExtensionNotFound:
        return True  # then it is for everything
    except ValueError:  # an extension that is damaged, or there twice
        return False
