"""Identities of persons: normalised, hashed, and never kept.

What the catalog has of an identity is HMAC-SHA-256(key, (kind, hash function, digest)), where the digest is what a
privacy backend may send in the identity's place: its SHA-256, SHA-1 or MD5. Of an identity in clear all three are
known, so that each form finds what was linked in clear; what was linked as a digest is found by the same one, and by
the identity in clear.

E-mail addresses and telephone numbers are also hashed in their usual form, as most senders do before they hash.
"""

from __future__ import annotations

import csv
import hashlib
import io
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal, cast, get_args

from app.errors import InvalidTextError
from app.secret import Secret

Form = Literal["raw", "sha256", "sha1", "md5"]
FORMS: Final[tuple[Form, ...]] = get_args(Form)

_FUNCTIONS: Final = ("sha256", "sha1", "md5")
_DIGEST: Final = {
    "sha256": re.compile("[0-9a-f]{64}"),
    "sha1": re.compile("[0-9a-f]{40}"),
    "md5": re.compile("[0-9a-f]{32}"),
}
_KIND: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")
_UNWRITABLE: Final = re.compile("[\0\ud800-\udfff]")
_LONGEST_VALUE: Final = 1_000
_COLUMNS: Final = ("subject", "identity_type", "identity_value", "identity_format")


@dataclass(frozen=True, kw_only=True, repr=False)
class Identity:
    """Something that a person is known by; never shown, not even in a traceback.

    Attributes:
        kind: what it is, "email" or "controller_customer_id".
        value: the identity, or the hexadecimal digest of it.
        form: which of the two, and of which hash function.
    """

    kind: str
    value: str
    form: Form = "raw"

    def __repr__(self) -> str:
        return f"Identity(kind={self.kind!r}, form={self.form!r})"


def check_identity(identity: Identity) -> Identity:
    """The identity itself, where it is one.

    Raises:
        InvalidTextError: its kind, form or value can't be one; the message doesn't hold the value.
    """
    if not _KIND.fullmatch(identity.kind):
        raise InvalidTextError(
            "An identity's type is 1 to 64 letters, digits, dots, dashes and underscores, such as email."
        )
    if identity.form not in FORMS:
        raise InvalidTextError(f"An identity's format is one of {', '.join(FORMS)}.")
    if identity.form != "raw":
        if not _DIGEST[identity.form].fullmatch(identity.value.strip().lower()):
            raise InvalidTextError(
                f"The identity of type {identity.kind} isn't a {identity.form} digest: it has another length, or other "
                "characters than 0 to 9 and a to f."
            )
    elif not identity.value.strip() or len(identity.value) > _LONGEST_VALUE or _UNWRITABLE.search(identity.value):
        raise InvalidTextError(
            f"The identity of type {identity.kind} is empty, longer than {_LONGEST_VALUE:,} characters, or holds NUL "
            "or half of a surrogate pair."
        )
    return identity


def identity_hashes(identity: Identity, secret: Secret) -> list[str]:
    """What the catalog knows an identity by: to store where it is linked, to look for where it is asked about.

    Args:
        identity: in clear, or as a digest.
        secret: of the installation.

    Returns:
        Keyed hashes, hexadecimal; one of a digest, three or six of an identity in clear. An identity is linked where
        one of these is.

    Raises:
        InvalidTextError: as `check_identity`.
    """
    check_identity(identity)
    if identity.form != "raw":
        return [secret.identity_hash(identity.kind, identity.form, identity.value.strip().lower())]
    return [
        secret.identity_hash(
            identity.kind, function, hashlib.new(function, form.encode(), usedforsecurity=False).hexdigest()
        )
        for form in _written(identity.kind, identity.value)
        for function in _FUNCTIONS
    ]


def _written(kind: str, value: str) -> list[str]:
    """The ways in which somebody may have written it before hashing."""
    given = value.strip()
    usual = given
    if "mail" in kind:
        usual = given.lower()
    elif "phone" in kind:
        usual = re.sub(r"[^0-9+]", "", given)
    return list(dict.fromkeys((given, usual))) if usual else [given]


@dataclass(frozen=True, kw_only=True)
class Link:
    """A line of a file of links.

    Attributes:
        line: its number, from 1.
        subject: the name of a unit: a subject's, or a document's number.
        identity: of the same person.
    """

    line: int
    subject: str
    identity: Identity


def read_links(file: Path) -> Iterator[Link]:
    """Links of a file: CSV with a header, or an object a line where its name ends in .jsonl.

    Its columns are subject, identity_type, identity_value and, where some aren't raw, identity_format.

    Raises:
        InvalidTextError: a line that isn't one; the message says which, and doesn't hold its values.
        OSError: the file can't be read.
    """
    try:
        text = file.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError:
        raise InvalidTextError(f"{file.name} isn't UTF-8.") from None
    jsonl = file.suffix in (".jsonl", ".ndjson")
    for line, row in _json_rows(text) if jsonl else _csv_rows(text):
        try:
            yield _link(line, row)
        except InvalidTextError as error:
            raise InvalidTextError(f"Line {line}: {error}") from None


def _csv_rows(text: str) -> Iterator[tuple[int, dict[str, object]]]:
    reader = csv.DictReader(io.StringIO(text, newline=""))
    missing = set(_COLUMNS[:3]) - set(reader.fieldnames or ())
    if missing:
        raise InvalidTextError(
            f"The first line has to name the columns {', '.join(_COLUMNS[:3])}; {min(missing)} isn't there."
        )
    for row in reader:
        yield reader.line_num, cast("dict[str, object]", row)


def _json_rows(text: str) -> Iterator[tuple[int, dict[str, object]]]:
    for number, line in enumerate(text.splitlines(), start=1):
        if line.strip():
            try:
                row = json.loads(line)
            except (ValueError, RecursionError):
                raise InvalidTextError(f"Line {number} isn't JSON.") from None
            if not isinstance(row, dict):
                raise InvalidTextError(f"Line {number} isn't an object.")
            yield number, row


def _link(line: int, row: dict[str, object]) -> Link:
    subject, kind, value = (row.get(column) for column in _COLUMNS[:3])
    form = row.get("identity_format") or "raw"
    if not (isinstance(subject, str) and isinstance(kind, str) and isinstance(value, str) and isinstance(form, str)):
        raise InvalidTextError("subject, identity_type, identity_value and identity_format are strings.")
    if not subject:
        raise InvalidTextError("the subject is empty.")
    identity = Identity(kind=kind, value=value, form=cast("Form", form))
    return Link(line=line, subject=subject, identity=check_identity(identity))
