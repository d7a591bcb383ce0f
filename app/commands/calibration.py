"""``neverseen calibration``: how right the answers about a measurement would have been where the truth is known."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape
from rich.table import Table

from app import catalog
from app.commands import console, opened, predictor_of, say_erased
from app.commands.asking import Key, Url, completion_of, number_body_of, service_at
from app.db import transaction
from app.schemas.calibration import CalibrationAnswer, calibration_answer
from app.serving import artifact_of
from engine.measure import Measurement
from engine.reliability import coverage_interval


def calibration(
    sketch: Annotated[str, typer.Argument(help="Name of the sketch.")],
    text: Annotated[str | None, typer.Option(help="Measure the loss on this text.")] = None,
    completion: Annotated[
        str | None, typer.Option(help="Measure the log-probability of PROMPT:COMPLETION instead.")
    ] = None,
    version: Annotated[int | None, typer.Option(min=1, max=2**31 - 1, help="By default the current one.")] = None,
    confidence: Annotated[float, typer.Option(help="Of the intervals.")] = 0.95,
    output: Annotated[Path | None, typer.Option(help="Write all of it, with every set, as JSON here.")] = None,
    url: Url = None,
    key: Key = None,
) -> None:
    """Tell how far a version may be trusted about a measurement: its answers beside models that were retrained."""
    if (text is None) == (completion is None):
        raise typer.BadParameter("give either --text or --completion")
    measurement = Measurement(text=text) if text is not None else completion_of(completion or "")
    if url is None:
        answer = _by_catalog(sketch, measurement, version=version, confidence=confidence)
    else:
        with service_at(url, key) as service:
            answer = service.check_calibration(
                sketch, measurement=number_body_of(measurement), version=version, confidence=confidence
            )
    label = f"{answer.sketch} v{answer.version}"
    say_erased(label, contains_erased=answer.contains_erased)
    console.print(
        f"{label}: {escape(measurement.label)} measures {answer.baseline:.4f}.{_sentence(answer)}", highlight=False
    )
    if answer.sizes:
        console.print(_by_size(answer))
    if answer.derivative_norms:
        norms = (f"{one.norm:.3g} ± {one.standard_error:.1g}" for one in answer.derivative_norms)
        console.print(f"Norms of the derivatives, from order 1 on: {', '.join(norms)}.", highlight=False)
    if output is not None:
        content = answer.model_dump_json(indent=2, exclude={"elapsed_ms"})
        output.write_text(content + "\n", encoding="utf-8")


def _by_catalog(sketch: str, measurement: Measurement, *, version: int | None, confidence: float) -> CalibrationAnswer:
    with opened() as (settings, database):
        with transaction(database) as session:
            row = catalog.get_version(session, sketch, version)
            artifact = artifact_of(row, settings.artifacts)
            catalog.record(session, "calibrate", sketch=sketch, version=row.number)
        found = predictor_of(settings).reliability(artifact, measurement=measurement, confidence=confidence)
    return calibration_answer(
        found,
        sketch=sketch,
        version=row.number,
        contains_erased=row.contains_erased,
        confidence=confidence,
        elapsed_ms=0.0,
    )


def _sentence(answer: CalibrationAnswer) -> str:
    count = sum(group.anchors for group in answer.sizes)
    if not count:
        return " Nothing was retrained that its answers could be compared with."
    inside = sum(group.inside for group in answer.sizes)
    drawn = f", drawn of {answer.anchors_in_all:,}" if answer.anchors_in_all > len(answer.anchors) else ""
    return (
        f" Of {count:,} sets that the model was retrained without{drawn}, {inside:,} ({_coverage(inside, count)}) would"
        f" have been in their {answer.confidence:g} intervals, each without knowing its own. Sets that are less like"
        " what the model was retrained without are covered less often."
    )


def _coverage(inside: int, count: int) -> str:
    low, high = coverage_interval(inside, count)
    return f"{inside / count:.1%}, {low:.1%} … {high:.1%}"


def _by_size(answer: CalibrationAnswer) -> Table:
    table = Table("units", "sets", "in interval", "95%", "median width", "error", "change")
    for group in answer.sizes:
        low, high = group.coverage_interval
        table.add_row(
            f"{group.smallest:,}" if group.smallest == group.largest else f"{group.smallest:,} … {group.largest:,}",
            f"{group.anchors:,}",
            f"{group.inside / group.anchors:.1%}",
            f"{low:.1%} … {high:.1%}",
            f"{group.median_width:.4f}",
            f"{group.rms_error:.4f}",
            f"{group.rms_change:.4f}",
        )
    return table
