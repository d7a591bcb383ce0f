"""Documents: what a model is trained on, in training order, and the units that can be deleted.

A *unit* is the smallest thing that can be deleted: one document, or all the documents of one subject. Characters are
the tokens: the vocabulary is the sorted set of characters of all documents, and one further token, BOS, opens and
closes every document.

This module reads text (a document a line), CSV and JSONL. It doesn't clean or deduplicate, and shuffles only when
told: order is part of the data.
"""

from __future__ import annotations

import csv
import hashlib
import io
import json
import random
import unicodedata
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Literal, TypeAlias

from engine.errors import DocumentsError, UnknownCharacterError

Format: TypeAlias = Literal["auto", "text", "csv", "jsonl"]
Record: TypeAlias = tuple[str, str | None]  # a document's text and its subject

_UNPRINTABLE = frozenset({"Cc", "Cs", "Zl", "Zp"})  # control characters, surrogates, line and paragraph separators
_LONGEST_SUBJECT = 200

_FORMAT_OF_SUFFIX: dict[str, Format] = {".csv": "csv", ".jsonl": "jsonl", ".ndjson": "jsonl"}


@dataclass(frozen=True, kw_only=True)
class Documents:
    """Documents in training order and the unit that each belongs to.

    Attributes:
        texts: the documents; a document's number is its index. n of them.
        unit_of: the unit number of every document; n entries below m. Units are numbered by first appearance.
        unit_names: the name of every unit: its subject, or the document's number where there are no subjects. m of
            them.
        has_subjects: whether units are subjects.
    """

    texts: tuple[str, ...]
    unit_of: tuple[int, ...]
    unit_names: tuple[str, ...]
    has_subjects: bool

    @classmethod
    def from_records(cls, records: Iterable[Record]) -> Documents:
        """Collect (text, subject) records; either all have a subject or none has.

        Raises:
            DocumentsError: no record, an empty text, a control character, or subjects in some records only.
        """
        texts: list[str] = []
        subjects: list[str | None] = []
        for number, (text, subject) in enumerate(records):
            _check_text(text, f"Document {number}")
            texts.append(text)
            subjects.append(subject)
        if not texts:
            raise DocumentsError("There is no document: a data set needs at least one.")
        if all(subject is None for subject in subjects):
            numbers = range(len(texts))
            return cls(
                texts=tuple(texts),
                unit_of=tuple(numbers),
                unit_names=tuple(map(str, numbers)),
                has_subjects=False,
            )
        unit_numbers: dict[str, int] = {}
        unit_of = []
        for number, subject in enumerate(subjects):
            if subject and len(subject) > _LONGEST_SUBJECT:
                raise DocumentsError(f"The subject of document {number} has over {_LONGEST_SUBJECT} characters.")
            if not subject:
                raise DocumentsError(f"Document {number} has no subject, and others have: give every document one.")
            unit_of.append(unit_numbers.setdefault(subject, len(unit_numbers)))
        return cls(texts=tuple(texts), unit_of=tuple(unit_of), unit_names=tuple(unit_numbers), has_subjects=True)

    def __len__(self) -> int:
        return len(self.texts)

    @property
    def unit_count(self) -> int:
        """m, the number of units."""
        return len(self.unit_names)

    @cached_property
    def vocabulary(self) -> str:
        """The characters that occur, sorted: a token is a position in this string, BOS is its length."""
        return "".join(sorted(set().union(*self.texts)))

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 (hex) of texts, order and units: equal exactly where a training run would be."""
        content = json.dumps([self.texts, self.unit_of, self.unit_names, self.has_subjects], ensure_ascii=True)
        return hashlib.sha256(content.encode()).hexdigest()

    def shuffled(self, seed: int, *, limit: int | None = None) -> Documents:
        """The documents in the order that Python's ``random.Random(seed).shuffle`` gives, the first `limit` of them."""
        order = list(range(len(self)))
        random.Random(seed).shuffle(order)
        return self._select(order[:limit])

    def first(self, limit: int) -> Documents:
        """The first `limit` documents."""
        return self._select(range(min(limit, len(self))))

    def _select(self, numbers: Iterable[int]) -> Documents:
        subject = (lambda i: self.unit_names[self.unit_of[i]]) if self.has_subjects else (lambda i: None)
        return Documents.from_records((self.texts[i], subject(i)) for i in numbers)


def tokens(text: str, vocabulary: str) -> list[int]:
    """Token ids of a text between two BOS, ``len(text) + 2`` of them.

    Raises:
        UnknownCharacterError: a character that isn't in the vocabulary.
    """
    bos = len(vocabulary)
    ids = []
    for position, character in enumerate(text):
        token = vocabulary.find(character)
        if token < 0:
            raise UnknownCharacterError(
                f"The character {character!r} at position {position} isn't in the model's vocabulary {vocabulary!r}."
            )
        ids.append(token)
    return [bos, *ids, bos]


def read_documents(path: Path, *, format: Format = "auto") -> Documents:
    """Documents of a file: text (a document a line), CSV or JSONL with `text` and optional `subject`.

    Args:
        path: the file, UTF-8.
        format: "auto" goes by the ending: .csv, .jsonl or .ndjson, anything else is text.

    Raises:
        DocumentsError: an unreadable file, or malformed content, with its line.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise DocumentsError(f"The file {path.name} can't be read: {error.strerror}.") from error
    try:
        decoded = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise DocumentsError("The file isn't UTF-8 here; save it as UTF-8.", line=line) from error
    return parse_documents(
        decoded, format=_FORMAT_OF_SUFFIX.get(path.suffix.lower(), "text") if format == "auto" else format
    )


def parse_documents(content: str, *, format: Format = "auto") -> Documents:
    """Documents of a text in one of the formats of `read_documents` ("auto" means text).

    Raises:
        DocumentsError: malformed content, with its line.
    """
    parse = {"csv": _parse_csv, "jsonl": _parse_jsonl}.get(format, _parse_text)
    return Documents.from_records(parse(content))


def _parse_text(content: str) -> Iterator[Record]:
    for line, text in enumerate(content.split("\n"), start=1):
        if text.strip():  # a blank line separates, it is no document
            _check_text(text.strip(), "The document", line)
            yield text.strip(), None


def _parse_csv(content: str) -> Iterator[Record]:
    reader = csv.DictReader(io.StringIO(content, newline=""), strict=True)
    read = 0  # lines of whole rows: where a row is broken, the reader's own count may stand before or behind it
    try:
        columns = reader.fieldnames or []
        if "text" not in columns:
            raise DocumentsError(f"A column named 'text' is needed; the header has {list(columns)}.", line=1)
        read = reader.line_num
        for row in reader:
            read = reader.line_num
            if None in row or None in row.values():
                raise DocumentsError(f"The row doesn't have the header's {len(columns)} columns.", line=read)
            yield _record(row["text"], row.get("subject"), read)
    except csv.Error as error:
        raise DocumentsError(f"Not CSV: {error}.", line=read + 1) from error


def _parse_jsonl(content: str) -> Iterator[Record]:
    for line, text in enumerate(content.split("\n"), start=1):
        if not text.strip():
            continue
        try:
            row = json.loads(text)
        except (ValueError, RecursionError) as error:
            reason = error.msg if isinstance(error, json.JSONDecodeError) else "too deeply nested, or a huge number"
            raise DocumentsError(f"Not JSON: {reason}.", line=line) from error
        if not isinstance(row, dict) or not isinstance(row.get("text"), str):
            raise DocumentsError("Each line must be an object with a string 'text'.", line=line)
        if not isinstance(row.get("subject"), str | None):
            raise DocumentsError("'subject' must be a string.", line=line)
        yield _record(row["text"], row.get("subject"), line)


def _record(text: str, subject: str | None, line: int) -> Record:
    _check_text(text, "'text'", line)
    if subject is not None:
        _check_text(subject, "'subject'", line)
    return text, subject


def _check_text(text: str, what: str, line: int | None = None) -> None:
    if not text:
        raise DocumentsError(f"{what} is empty.", line=line)
    control = next((c for c in text if unicodedata.category(c) in _UNPRINTABLE), None)
    if control is not None:
        # PostgreSQL can't store NUL, a text file can't give a line break back, and a lone surrogate isn't UTF-8.
        raise DocumentsError(f"{what} holds the unprintable character {control!r}.", line=line)
