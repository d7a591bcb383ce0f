"""Evidence as a page for people: one sheet of A4, in HTML, that loads nothing and runs nothing.

It shows what the signed file says, and stands in for it nowhere: who wants to verify verifies the file. Where more was
measured than fits, what is material comes first, then what is undecided, and the sheet says how much it leaves out.
"""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from jinja2 import Environment, PackageLoader, StrictUndefined

from app.privacy.evidence import DatasetReport, Match, lineages, results_of, unmeasured_datasets
from app.privacy.proof import SignedEvidence, read_evidence, signed_content
from app.privacy.results import DistributionResult, Material, Measured, NumberResult
from app.privacy.words import count

MOST_ROWS: Final = 20
"""Measurements on the sheet."""

_FEWEST_ROWS: Final = 8
_MOST_LINES: Final = 3
"""Datasets, sentences, and the like on the sheet."""

_MOST_SKETCHES: Final = 2
_LONGEST_NAME: Final = 32
_LONGEST_LABEL: Final = 56
_LONGEST_ID: Final = 80
_LONGEST_SENTENCE: Final = 110
_WIDTH: Final = 132.0
_ORDER: Final[dict[Material, int]] = {"yes": 0, "undecided": 1, "no": 2}
_UNITS: Final = {"nats per token": "nats/token", "nats": "nats", "probability": "probability"}
_MARKS: Final[dict[str, str]] = {
    "material": "Material",
    "not_material": "Not material",
    "undecided": "Undecided",
    "not_estimated": "Not estimated",
    "no_match": "Nobody found",
}

_templates = Environment(
    loader=PackageLoader("app.privacy"),
    autoescape=True,
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
    keep_trailing_newline=True,
)

_SHEET: Final = "evidence.html"


def _digest_of_style() -> str:
    assert _templates.loader is not None
    [style] = re.findall("<style>(.*?)</style>", _templates.loader.get_source(_templates, _SHEET)[0], re.DOTALL)
    return base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()


STYLE_DIGEST: Final = _digest_of_style()
"""SHA-256 of the sheet's one style sheet, base64, for the policy of a page that shows the sheet in a frame."""


@dataclass(frozen=True, kw_only=True)
class Plot:
    """An interval of the change, drawn from 0 to `width`.

    Attributes:
        low: where the interval begins.
        high: where it ends.
        estimate: where the estimate is.
        zero: where no change is.
        band: where what isn't material begins and ends.
        retrained: where the retrained value is; None where it isn't known.
    """

    low: float
    high: float
    estimate: float
    zero: float
    band: tuple[float, float]
    retrained: float | None


@dataclass(frozen=True, kw_only=True)
class Row:
    """A measurement on the sheet; all but the plot as it is read."""

    label: str
    detail: str
    unit: str
    baseline: str
    estimate: str
    interval: str
    retrained: str
    material: Material
    plot: Plot


def evidence_page(text: str) -> str:
    """The sheet of signed evidence.

    Args:
        text: of it; that it is as it was signed isn't looked at.

    Raises:
        EvidenceError: it isn't evidence.
    """
    evidence = read_evidence(text)
    rows, notes, done = _rows(evidence.reports), _notes(evidence), _done(evidence)
    matches, sketches = evidence.matches[:_MOST_LINES], evidence.reports[:_MOST_SKETCHES]
    lines = 2 * len(notes) + len(matches) - 1 + 3 * max(len(sketches) - 1, 0) + 2 * max(len(done) - 2, 0)
    room = max(MOST_ROWS - lines, _FEWEST_ROWS) if notes or lines > 1 else MOST_ROWS
    return _templates.get_template(_SHEET).render(
        evidence=evidence,
        mark=_MARKS[evidence.verdict],
        caller_id=_shown(evidence.request.caller_id, _LONGEST_ID),
        identities=_listed([count(n, _shown(kind, 30)) for kind, n in evidence.request.identities.items()]),
        submitted=None if evidence.request.submitted_at is None else _moment(evidence.request.submitted_at),
        received=_moment(evidence.request.received_at),
        due=_moment(evidence.request.due_at),
        made=_moment(evidence.made_at),
        source=_shown(evidence.request.source, _LONGEST_NAME),
        regulation=_shown(evidence.request.regulation or "", _LONGEST_NAME),
        matches=[_match(match) for match in matches],
        more_matches=len(evidence.matches) - len(matches),
        sketches=[_sketch(report) for report in sketches],
        more_sketches=len(evidence.reports) - len(sketches),
        rows=rows[:room],
        more_rows=len(rows[room:]),
        confidences=" and ".join(sorted({f"{one.confidence:.3g}" for one in results_of(evidence.reports)})),
        thresholds=" and ".join(
            sorted({f"{one.threshold:g} {_UNITS[one.unit]}" for one in results_of(evidence.reports)})
        ),
        notes=notes,
        done=done,
        plot_width=_WIDTH,
        digest=hashlib.sha256(signed_content(text)).hexdigest(),
    )


def _rows(reports: Sequence[DatasetReport]) -> list[Row]:
    """Of all measurements, those that matter most first."""
    several = len(reports) > 1
    found = [
        (result, _shown(report.dataset, _LONGEST_NAME) if several else "")
        for report in reports
        for result in report.results
    ]
    found.sort(key=lambda one: _ORDER[one[0].material])
    scales = {unit: _scale([one for one, _ in found if one.unit == unit]) for unit in {one.unit for one, _ in found}}
    return [_row(result, dataset, scales[result.unit]) for result, dataset in found]


def _row(result: NumberResult | DistributionResult, dataset: str, scale: float) -> Row:
    shown = _most_changed(result)
    detail = [dataset] if dataset else []
    if isinstance(result, DistributionResult):
        detail.append(f"{_token(result)} of {result.total_variation:.2f} moved")
    return Row(
        label=_shown(result.label, _LONGEST_LABEL),
        detail=", ".join(detail),
        unit=_UNITS[result.unit],
        baseline=f"{shown.baseline:.4f}",
        estimate=f"{shown.estimate:.4f}",
        interval=f"{shown.interval[0]:.4f} … {shown.interval[1]:.4f}",
        retrained="–" if shown.retrained is None else f"{shown.retrained:.4f}",
        material=result.material,
        plot=_plot(shown, result.threshold, scale),
    )


def _most_changed(result: NumberResult | DistributionResult) -> Measured:
    """The number itself; of a distribution the token that decides, or else whose estimate changes most."""
    if isinstance(result, NumberResult):
        return result
    return min(
        result.tokens,
        key=lambda token: (_ORDER[token.material], -abs(_best(token) - token.baseline)),
    )


def _token(result: DistributionResult) -> str:
    token = next(token for token in result.tokens if token is _most_changed(result))
    return f"“{_shown(token.token, 8)}”" if token.token else "end of text"


def _scale(results: Sequence[NumberResult | DistributionResult]) -> float:
    """The largest change that is drawn of one unit. Few absurdly wide intervals don't make all others dots."""
    reaches = sorted(_reach(_most_changed(result)) for result in results)
    threshold = max(result.threshold for result in results)
    return max(reaches[int(0.8 * (len(reaches) - 1))], 2 * threshold, 1e-12)


def _reach(value: Measured) -> float:
    ends = [end - value.baseline for end in value.interval]
    return max(abs(change) for change in (*ends, value.change, _best(value) - value.baseline))


def _best(value: Measured) -> float:
    """The retrained value where it is known, else the estimate."""
    return value.estimate if value.retrained is None else value.retrained


def _plot(value: Measured, threshold: float, scale: float) -> Plot:
    def place(change: float) -> float:
        return round(_WIDTH / 2 + min(max(change / scale, -1.0), 1.0) * (_WIDTH / 2 - 3), 2)

    return Plot(
        low=place(value.interval[0] - value.baseline),
        high=place(value.interval[1] - value.baseline),
        estimate=place(value.change),
        zero=place(0.0),
        band=(place(-threshold), place(threshold)),
        retrained=None if value.retrained is None else place(value.retrained - value.baseline),
    )


def _match(match: Match) -> dict[str, str]:
    units = f"{count(match.units, 'unit')} of {match.units_of:,}"
    of = f"{units}, {count(match.documents, 'document')} of {match.documents_of:,}"
    return {"dataset": _shown(match.dataset, _LONGEST_NAME), "of": of}


def _sketch(report: DatasetReport) -> dict[str, str]:
    sketch = report.sketch
    size = "" if sketch.parameters is None else f", {sketch.parameters:,} parameters"
    return {
        "label": f"{_shown(sketch.name, _LONGEST_NAME)} version {sketch.version}",
        "about": f"built {_moment(sketch.built_at)}{size}",
        "checksum": sketch.checksum,
    }


def _notes(evidence: SignedEvidence) -> list[str]:
    """What has to be known of these measurements in particular."""
    whole = [match.dataset for match in evidence.matches if match.everything]
    silent = [name for name in unmeasured_datasets(evidence.matches, evidence.reports) if name not in whole]
    measured = {report.dataset for report in evidence.reports if report.results}
    notes = []
    for related in lineages(evidence.matches):
        old = [match.dataset for match in related if match.dataset not in measured]
        if len(old) < len(related) and old:
            asked = _listed([match.dataset for match in related if match.dataset in measured])
            notes.append(f"The documents in {_listed(old)} are those in {asked}: one succeeds the other.")
    if whole:
        notes.append(
            f"All documents of {_listed(whole)} are this person's: a model without them doesn't exist, and is not "
            "estimated."
        )
    if silent:
        notes.append(f"Nothing was measured of {_listed(silent)}.")
    for report in evidence.reports:
        name = _shown(report.dataset, _LONGEST_NAME)
        if report.verification == "failed":
            why = _shown(report.verification_failure or "", _LONGEST_SENTENCE)
            notes.append(f"The model of {name} was to be retrained, and couldn't be: {why}")
        if report.sketch.contains_erased:
            notes.append(f"The model of {name} was trained on documents of others that have been erased since.")
        notes += [
            f"Not measured: {_shown(one.label, _LONGEST_LABEL)}. {_shown(one.reason, _LONGEST_SENTENCE)}"
            for one in report.not_measured
        ]
    return _first(notes)


def _done(evidence: SignedEvidence) -> list[str]:
    """What was done with the person's data, a sentence each."""
    actions = evidence.actions
    erased = [f"{_shown(one.what, _LONGEST_NAME)} ({one.count:,})" for one in actions.erased]
    if erased:
        when = "Erased from this service as soon as this is filed" if actions.planned else "Erased from this service"
        done = [f"{when}: {_listed(erased)}."]
    else:
        done = ["Nothing was erased: this is a prediction only." if evidence.matches else "Nothing was there to erase."]
    if actions.contains_erased:
        done.append(
            f"Trained on what was erased, and still there: {_listed(list(actions.contains_erased))}. Their numbers "
            "stay until these versions are deleted."
        )
    elif evidence.matches and not erased:
        done.append("The documents, and every model that was trained on them, are as they were.")
    return _first(done + [_shown(one, _LONGEST_SENTENCE) for one in actions.left])


def _first(sentences: list[str]) -> list[str]:
    more = len(sentences[_MOST_LINES:])
    return sentences[:_MOST_LINES] + ([f"And {more:,} more, in the file."] if more else [])


def _listed(parts: list[str]) -> str:
    """A few of them in a row."""
    shown, more = [_shown(part, _LONGEST_NAME) for part in parts[:_MOST_LINES]], len(parts[_MOST_LINES:])
    if more:
        return f"{', '.join(shown)} and {more:,} more"
    return ", ".join(shown[:-1]) + (" and " if len(shown) > 1 else "") + (shown[-1] if shown else "none")


def _shown(text: str, most: int) -> str:
    """A text on one line, shortened; what doesn't print, or turns the direction of writing, as its number."""
    printable = "".join(one if one.isprintable() else f"\\u{ord(one):04x}" for one in text)
    return printable if len(printable) <= most else f"{printable[: most - 1]}…"


def _moment(moment: datetime) -> str:
    return f"{moment:%Y-%m-%d %H:%M} UTC"
