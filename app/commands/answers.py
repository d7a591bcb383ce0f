"""``neverseen predict --file``: answers about many deletion sets, in a table and kept as CSV or JSON lines."""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final, NamedTuple, TextIO

import typer
from rich.markup import escape
from rich.table import Table

from app.commands import console, say_erased
from app.commands.asking import Asked, label_of, service_at
from app.commands.sets import answers_of_catalog, answers_of_service, read_sets
from app.schemas.batch import BatchAnswer, BatchItem
from app.schemas.predict import DistributionAnswer, OutcomeAnswer, PredictionAnswer
from engine.terminal import progress_bar

Keep = Callable[[BatchAnswer], None]

MOST_SHOWN: Final = 20
"""Rows on the terminal."""

_FORMULA: Final = ("=", "+", "-", "@", "\t", "\r")  # what spreadsheets take for one begins so


class Row(NamedTuple):
    """A measurement without a set, or what is wrong with the set; the fields are the columns of CSV."""

    set: str
    measured: str = ""
    baseline: float | None = None
    estimate: float | None = None
    standard_error: float | None = None
    low: float | None = None
    high: float | None = None
    below_resolution: str = ""
    estimator: str = ""
    problem: str = ""


def predict_sets(asked: Asked, file: Path, *, output: Path | None, url: str | None, key: str | None) -> None:
    """Answer for each set of a file; the exit code is 1 where there is a set that couldn't be answered.

    Args:
        asked: of each.
        file: as `read_sets` takes it.
        output: a file to write, .csv or .jsonl; None for none.
        url: of the service to ask; None asks the local catalog.
        key: for it.

    Raises:
        BadParameter: several downweights, or an output of another form.
        DeletionSetError: as `read_sets`.
    """
    if len(asked.question.downweights) > 1:
        raise typer.BadParameter("--file takes one --downweight, not a curve")
    if output is not None and (output.suffix.lower() not in _WRITERS or output.resolve() == file.resolve()):
        raise typer.BadParameter("--output takes another file, that ends with .csv or .jsonl")
    items = read_sets(file)
    rows: list[Row] = []
    count, refused, version, contains_erased = 0, 0, 0, False
    with kept_in(output) as keep, progress_bar("Answering", "sets", console=console) as progress:
        for done, answer in enumerate(_answers(asked, items, url, key), start=1):
            keep(answer)
            found = list(rows_of(answer))
            rows += found[: MOST_SHOWN - len(rows)]
            count, refused, version = count + len(found), refused + (answer.problem is not None), answer.version
            contains_erased = contains_erased or answer.contains_erased
            progress(done, len(items))
    say_erased(f"{asked.sketch} v{version}", contains_erased=contains_erased)
    console.print(
        f"{asked.sketch} v{version} without each of {len(items):,} sets; losses in nats per token, log-probabilities in"
        " nats:",
        highlight=False,
    )
    if answered := [row for row in rows if not row.problem]:
        console.print(_table(answered, asked.question.confidence))
    for row in rows:
        if row.problem:
            console.print(f"{escape(row.set)}: {escape(row.problem)}", style="red", highlight=False)
    if count > len(rows):
        kept = "--output FILE keeps all" if output is None else f"{output.name} has all"
        console.print(f"and {count - len(rows):,} more; {kept}.", highlight=False)
    if refused:
        console.print(f"{refused:,} of {len(items):,} sets couldn't be answered.", highlight=False)
        raise typer.Exit(1)


def _answers(asked: Asked, items: Sequence[BatchItem], url: str | None, key: str | None) -> Iterator[BatchAnswer]:
    if url is None:
        yield from answers_of_catalog(asked, items)
        return
    with service_at(url, key) as service:
        yield from answers_of_service(service, asked, items)


def rows_of(answer: BatchAnswer) -> Iterator[Row]:
    """The rows of a set: one for each measurement, and of a distribution one for each outcome."""
    name = answer.id or ""
    if answer.problem is not None:
        yield Row(name, problem=answer.problem.detail)
    for prediction in answer.predictions or ():
        values: list[tuple[str, PredictionAnswer | OutcomeAnswer]]
        if isinstance(prediction, DistributionAnswer):
            after = prediction.measurement.prompt or "the start"
            values = [(f"next after {after}: {one.token or '(end)'}", one) for one in prediction.outcomes]
        else:
            values = [(label_of(prediction), prediction)]
        for measured, value in values:
            yield Row(
                set=name,
                measured=measured,
                baseline=value.baseline,
                estimate=value.estimate,
                standard_error=value.standard_error,
                low=value.interval[0],
                high=value.interval[1],
                below_resolution="true" if value.below_resolution else "false",
                estimator=prediction.estimator,
            )


@contextmanager
def kept_in(path: Path | None) -> Iterator[Keep]:
    """What keeps answers in a file; with another name until the end, so that a file that is there is whole."""
    if path is None:
        yield lambda answer: None
        return
    partial = path.with_name(f"{path.name}.partial")
    with partial.open("w", encoding="utf-8", newline="") as file:
        write = _WRITERS[path.suffix.lower()](file)
        try:
            yield write
        except BaseException:
            file.flush()
            console.print(f"What was answered before is in {partial.name}.", highlight=False)
            raise
    partial.replace(path)


def _as_csv(file: TextIO) -> Keep:
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(Row._fields)

    def keep(answer: BatchAnswer) -> None:
        writer.writerows([_cell(value) for value in row] for row in rows_of(answer))

    return keep


def _as_jsonl(file: TextIO) -> Keep:
    def keep(answer: BatchAnswer) -> None:
        file.write(answer.model_dump_json() + "\n")

    return keep


_WRITERS: Final[dict[str, Callable[[TextIO], Keep]]] = {".csv": _as_csv, ".jsonl": _as_jsonl}


def _cell(value: str | float | None) -> str | float | None:
    """A value as it is written: text that a spreadsheet would take for a formula begins with an apostrophe."""
    return f"'{value}" if isinstance(value, str) and value.startswith(_FORMULA) else value


def _table(rows: Sequence[Row], confidence: float) -> Table:
    table = Table("set", "measured", "baseline", "estimate", "± std. error", f"{confidence:g} interval", "estimator")
    for row in rows:
        table.add_row(
            escape(row.set),
            escape(row.measured),
            f"{row.baseline:.4f}",
            f"{row.estimate:.4f}",
            f"{row.standard_error:.4f}",
            f"{row.low:.4f} … {row.high:.4f}",
            row.estimator,
        )
    return table
