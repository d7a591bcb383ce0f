"""Files of deletion sets, and the answers about them, one by one, from the local catalog or from a service.

CSV has a column `set` and one of `document`, `unit`, `subset`; the rows of a set need not stand together. JSON lines
are the sets of ``POST /predict/batch``: ``{"id": "a", "delete": {"units": ["ann", "bob"]}}``.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, Final

from pydantic import ValidationError

from app import catalog
from app.catalog import BySubset
from app.client import InvalidRequestError, Neverseen
from app.commands import opened, predictor_of, record_question
from app.commands.asking import Asked
from app.db import transaction
from app.errors import LimitError, NotFoundError, problem_type
from app.problems import problem
from app.schemas.batch import MOST_DELETIONS, BatchAnswer, BatchItem
from app.schemas.predict import DeletedAnswer
from app.serving import artifact_of
from engine.errors import DeletionSetError

_MOST_PIECE_BYTES: Final = 2**22
"""Of what is sent to a service at once: a quarter of the body that it takes by default."""

_TOO_MANY_AT_ONCE: Final = problem(problem_type(LimitError), "").type
_DELETED: Final = {"document": "documents", "unit": "units", "subset": "subset"}
_LONGEST_NUMBER: Final = 18


def read_sets(path: Path) -> list[BatchItem]:
    """The deletion sets of a file, each with an id, in the order in which they appear first.

    Raises:
        DeletionSetError: it can't be read, or holds something else; the message names the line.
    """
    read = {".csv": _read_csv, ".jsonl": _read_jsonl, ".ndjson": _read_jsonl}.get(path.suffix.lower())
    if read is None:
        raise DeletionSetError(f"{path.name} must end with .csv or .jsonl, which tells its form.")
    try:
        content = path.read_bytes()
    except OSError as error:
        raise DeletionSetError(f"{path.name} can't be read: {error.strerror}.") from error
    try:
        decoded = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise _wrong(content.count(b"\n", 0, error.start) + 1, "Not UTF-8; save the file as UTF-8.") from error
    items = read(decoded)
    if not items:
        raise DeletionSetError(f"{path.name} holds no deletion set.")
    return items


def answers_of_catalog(asked: Asked, items: Sequence[BatchItem]) -> Iterator[BatchAnswer]:
    """Answer for each set from the local catalog, as a service does for the sets of a batch.

    Raises:
        NotFoundError: an unknown sketch or version.
        QuestionError, ArtifactError: as `Predictor.predict`, where it isn't the set that is wrong.
    """
    with opened() as (settings, database):
        with transaction(database, writes=False) as session:
            row = catalog.get_version(session, asked.sketch, asked.version)
            artifact, dataset = artifact_of(row, settings.artifacts), row.dataset
            membership = catalog.hold_membership(session, dataset)
        predictor = predictor_of(settings)
        for index, item in enumerate(items):
            delete = item.delete.resolvable()
            try:
                if isinstance(delete, BySubset):
                    with transaction(database, writes=False) as session:
                        without = catalog.resolve_units(session, dataset, delete)
                else:
                    without = catalog.resolve_named(membership, delete)
                predictions = asked.predict(predictor, artifact, without.units)
            except (NotFoundError, DeletionSetError) as error:
                said = problem(problem_type(type(error)), str(error))
                yield BatchAnswer(
                    index=index,
                    id=item.id,
                    version=row.number,
                    contains_erased=row.contains_erased,
                    deleted=None,
                    predictions=None,
                    problem=said,
                )
            else:
                with transaction(database) as session:
                    record_question(session, settings, "predict", row, without)
                deleted = DeletedAnswer(units=len(without.units), documents=without.documents)
                yield BatchAnswer(
                    index=index,
                    id=item.id,
                    version=row.number,
                    contains_erased=row.contains_erased,
                    deleted=deleted,
                    predictions=predictions,
                    problem=None,
                )


def answers_of_service(service: Neverseen, asked: Asked, items: Sequence[BatchItem]) -> Iterator[BatchAnswer]:
    """Answer for each set from a service, which gets as many at once as it takes; one version answers all of them.

    Raises:
        NeverseenError: the service refuses all of it, or is away.
    """
    version, question, most, done = asked.version, asked.question, MOST_DELETIONS, 0
    while done < len(items):
        piece = _piece(islice(items, done, done + most))
        try:
            for answer in service.predict_batch(
                asked.sketch,
                deletions=piece,
                measurements=asked.bodies(),
                version=version,
                estimator=question.estimator,
                degree=question.degree,
                downweight=question.downweights,
                confidence=question.confidence,
                average=question.average,
            ):
                version = answer.version
                yield answer.model_copy(update={"index": done})
                done += 1
        except InvalidRequestError as error:
            # Each set counts as a request of the key, and these may be more than it may ever make at once.
            if len(piece) == 1 or error.problem.type != _TOO_MANY_AT_ONCE:
                raise
            most = len(piece) // 2


def _piece(items: Iterator[BatchItem]) -> list[BatchItem]:
    """As many of the items as make a body of a moderate size, at least one."""
    piece: list[BatchItem] = []
    left = _MOST_PIECE_BYTES
    for item in items:
        left -= len(item.model_dump_json())
        if piece and left < 0:
            break
        piece.append(item)
    return piece


def _read_csv(content: str) -> list[BatchItem]:
    reader = csv.DictReader(io.StringIO(content, newline=""), strict=True)
    sets: dict[str, tuple[int, list[int | str]]] = {}  # with the line of the first row
    read = 0  # lines of whole rows
    try:
        columns = list(reader.fieldnames or ())
        named = [name for name in columns if name in _DELETED]
        if columns.count("set") != 1 or len(named) != 1:
            raise _wrong(1, f"The columns 'set' and one of 'document', 'unit', 'subset' are needed, not {columns}.")
        [column] = named
        read = reader.line_num
        for row in reader:
            read = reader.line_num
            if None in row or None in row.values():
                raise _wrong(read, f"The row doesn't have the header's {len(columns)} columns.")
            name, cell = row["set"].strip(), row[column].strip()
            if not name or not cell:
                raise _wrong(read, f"Nothing is written in the column {column if name else 'set'!r}.")
            _, members = sets.setdefault(name, (read, []))
            if column == "subset" and members:
                raise _wrong(read, "This set deletes a subset already; another one makes another set.")
            members.append(_document(cell, read) if column == "document" else cell)
    except csv.Error as error:
        raise _wrong(read + 1, f"Not CSV: {error}.") from error
    return [
        _item({"id": name, "delete": {_DELETED[column]: members[0] if column == "subset" else members}}, line)
        for name, (line, members) in sets.items()
    ]


def _read_jsonl(content: str) -> list[BatchItem]:
    items: dict[str, BatchItem] = {}
    for line, text in enumerate(content.split("\n"), start=1):
        if not text.strip():
            continue
        try:
            json.loads(text)
        except (ValueError, RecursionError) as error:
            reason = error.msg if isinstance(error, json.JSONDecodeError) else "too deeply nested, or a huge number"
            raise _wrong(line, f"Not JSON: {reason}.") from error
        item = _item(text, line)
        name = str(len(items) + 1) if item.id is None else item.id
        if name in items:
            raise _wrong(line, "A line before has the same id.")
        items[name] = item.model_copy(update={"id": name})
    return list(items.values())


def _document(cell: str, line: int) -> int:
    if not (cell.isascii() and cell.isdecimal() and len(cell) <= _LONGEST_NUMBER):
        raise _wrong(line, "A document is a whole number from 0.")
    return int(cell)


def _item(content: dict[str, Any] | str, line: int) -> BatchItem:
    """A deletion set of its fields, or of JSON."""
    try:
        if isinstance(content, str):
            return BatchItem.model_validate_json(content)
        return BatchItem.model_validate(content)
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False, include_input=False)[0]
        place = ".".join(map(str, first["loc"]))
        message = f"{place}: {first['msg']}" if place else 'An object {"id": …, "delete": {…}} is needed'
        raise _wrong(line, f"{message.replace('Value error, ', '')}.") from error


def _wrong(line: int, message: str) -> DeletionSetError:
    return DeletionSetError(f"Line {line}: {message}")
