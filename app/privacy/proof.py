"""Evidence, signed: Ed25519 over its canonical JSON (RFC 8785) without the member `signature`.

Whoever holds the file can check it without this installation and without a network. A key that comes with a signature
says that both belong together, not whose they are: for that the key has to be compared with one that was had from its
owner in another way.
"""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Literal

import rfc8785
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from pydantic import ValidationError

from app.privacy.evidence import Evidence, inconsistencies
from app.privacy.results import Part
from app.privacy.signing_key import fingerprint

PROVEN: Final = 0
NOT_PROVEN: Final = 1
NOT_KNOWN: Final = 2
"""Exit codes of a verification."""

_FORMAT: Final = "It doesn't have the form of neverseen-evidence, version 1"


class EvidenceError(ValueError):
    """A text that isn't evidence."""


class Signature(Part):
    """What shows who signed.

    Attributes:
        algorithm: Ed25519 (RFC 8032).
        public_key: base64 of its 32 bytes.
        key_fingerprint: SHA-256 of the public key's DER form, hexadecimal.
        value: base64 of the signature's 64 bytes.
    """

    algorithm: Literal["Ed25519"]
    public_key: str
    key_fingerprint: str
    value: str


class SignedEvidence(Evidence):
    """Evidence, and its signature."""

    signature: Signature


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """What came of a verification.

    Attributes:
        faults: a sentence each; none where it is intact.
        key_fingerprint: of the key that it is signed with; None where there is none.
        trusted: whether that is one of the keys to compare with; None where there were none.
        evidence: that was verified; None where it isn't intact.
    """

    faults: list[str] = field(default_factory=list)
    key_fingerprint: str | None = None
    trusted: bool | None = None
    evidence: SignedEvidence | None = None

    @property
    def intact(self) -> bool:
        """Whether it is as it was signed, and doesn't contradict itself."""
        return not self.faults

    @property
    def exit_code(self) -> int:
        """`PROVEN`, `NOT_PROVEN`, or `NOT_KNOWN` where it is intact and whose it is isn't known."""
        if not self.intact or self.trusted is False:
            return NOT_PROVEN
        return PROVEN if self.trusted else NOT_KNOWN


def sign_evidence(evidence: Evidence, key: Ed25519PrivateKey) -> str:
    """Evidence as it is filed: canonical JSON, one line."""
    content = evidence.model_dump(mode="json")
    public = key.public_key()
    signature = Signature(
        algorithm="Ed25519",
        public_key=_encoded(public.public_bytes_raw()),
        key_fingerprint=fingerprint(public),
        value=_encoded(key.sign(rfc8785.dumps(content))),
    )
    return rfc8785.dumps({**content, "signature": signature.model_dump()}).decode("utf-8")


def signed_content(text: str) -> bytes:
    """What of signed evidence the signature is over.

    Raises:
        EvidenceError: it isn't evidence.
    """
    return _parsed(text)[1]


def read_evidence(text: str) -> SignedEvidence:
    """Evidence as it was filed; whether it is as it was signed is `verify_evidence`'s part.

    Raises:
        EvidenceError: it isn't evidence.
    """
    return _parsed(text)[0]


def verify_evidence(text: str, trusted: Sequence[Ed25519PublicKey] = ()) -> Verdict:
    """Verify evidence.

    Args:
        text: of it; how it is indented doesn't matter.
        trusted: public keys that were had in another way, and of which one should have signed.
    """
    try:
        evidence, content = _parsed(text)
    except EvidenceError as error:
        return Verdict(faults=[str(error)])
    try:
        key = Ed25519PublicKey.from_public_bytes(_decoded(evidence.signature.public_key))
        value = _decoded(evidence.signature.value)
    except ValueError:
        return Verdict(faults=["The public key or the signature isn't one of Ed25519, in base64."])
    found = fingerprint(key)
    faults = []
    if evidence.signature.key_fingerprint != found:
        faults.append("The fingerprint isn't that of the public key.")
    try:
        key.verify(value, content)
    except InvalidSignature:
        faults.append("It isn't what was signed: it was changed since, or the signature was.")
    faults += inconsistencies(evidence)
    return Verdict(
        faults=faults,
        key_fingerprint=found,
        trusted=found in {fingerprint(one) for one in trusted} if trusted else None,
        evidence=None if faults else evidence,
    )


def _parsed(text: str) -> tuple[SignedEvidence, bytes]:
    """Evidence, and what of it is signed."""
    try:
        members = json.loads(text, object_pairs_hook=_once_each, parse_constant=_refused)
        evidence = SignedEvidence.model_validate_json(text, strict=True)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"])) or "the whole"
        raise EvidenceError(f"{_FORMAT}: {where}: {first['msg']}.") from None
    except (ValueError, RecursionError):
        raise EvidenceError(f"{_FORMAT}: it isn't JSON, or it names something twice.") from None
    if members != evidence.model_dump(mode="json"):
        raise EvidenceError(f"{_FORMAT}: something is missing in it, or written in another way.")
    del members["signature"]
    return evidence, rfc8785.dumps(members)


def _once_each(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) != len(pairs):
        raise ValueError("a name is there twice")
    return members


def _refused(constant: str) -> None:
    raise ValueError(f"{constant} is no number of JSON")


def _encoded(content: bytes) -> str:
    return base64.b64encode(content).decode("ascii")


def _decoded(text: str) -> bytes:
    """Bytes of the one base64 that there is of them.

    Raises:
        ValueError: it isn't that.
    """
    try:
        content = base64.b64decode(text, validate=True)
    except binascii.Error:
        raise ValueError("not base64") from None
    if _encoded(content) != text:
        raise ValueError("not the usual base64")
    return content
