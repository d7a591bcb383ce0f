"""Evidence: what is filed of a request, as a form that a program and a person can read. `proof` signs it.

Of each measured value it says what the model has (baseline), what it would have had without the person's documents
(estimate, with its interval; retrained, where the model was really trained again), and whether that is a material
change (`results`). It holds no text of the person's documents and no identity, but for the id that the caller gave.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from typing import Annotated, Any, Final, Literal, Self

from pydantic import AfterValidator, AwareDatetime, Field, model_validator

from app.privacy.results import (
    DistributionResult,
    NumberResult,
    Part,
    Result,
    any_material,
    faults_of,
    is_retrained,
    retrained_result,
)
from app.privacy.words import LIMITS, METHOD, Verdict, sentence

FORMAT: Final = "neverseen-evidence"
FORMAT_VERSION: Final = 1

Moment = Annotated[AwareDatetime, AfterValidator(lambda moment: moment.astimezone(UTC))]
Count = Annotated[int, Field(ge=0)]


class RequestFacts(Part):
    """What was asked, by whom, and when.

    Attributes:
        id: ours.
        source: the connection that it came by.
        protocol: that it came by.
        caller_id: the id that the caller gave it.
        regulation: that it was made under, as the caller said.
        submitted_at: when the person asked, as the caller said.
        received_at: when it arrived here.
        due_at: when it had to be done.
        mode: "predict", or "erase".
        report: name of what is measured.
        body_digest: keyed digest of the request.
        identities: how many were given, by their kind.
    """

    id: str
    source: str
    protocol: str
    caller_id: str
    regulation: str | None
    submitted_at: Moment | None
    received_at: Moment
    due_at: Moment
    mode: Literal["predict", "erase"]
    report: str
    body_digest: str
    identities: dict[str, Count]


class Match(Part):
    """A dataset in which the person was found.

    Attributes:
        dataset: its name.
        fingerprint: of its documents.
        units: of the person.
        documents: of the person.
        units_of: of the whole dataset.
        documents_of: of the whole dataset.
        deletion_digest: keyed digest of which units they are.
        everything: whether they are the whole dataset: there is no model without them.
        successor_of: the dataset that this one was made of, without what had been erased; the same documents are in
            both.
    """

    dataset: str
    fingerprint: str
    units: Count
    documents: Count
    units_of: Count
    documents_of: Count
    deletion_digest: str
    everything: bool = False
    successor_of: str | None = None

    @model_validator(mode="before")
    @classmethod
    def _whole(cls, values: Any) -> Any:
        if isinstance(values, dict) and "everything" not in values:
            return {**values, "everything": values.get("units") == values.get("units_of")}
        return values


class SketchFacts(Part):
    """The sketch version that was asked.

    Attributes:
        name: of the sketch.
        version: its number.
        checksum: SHA-256 of the artifact's manifest, which holds those of its files.
        built_at: when it was registered.
        parameters: numbers that the model was trained to; None where that isn't known.
        contains_erased: whether it was trained on documents that had been erased before this request.
    """

    name: str
    version: int
    checksum: str
    built_at: Moment
    parameters: int | None
    contains_erased: bool


class NotMeasured(Part):
    """What should have been measured and couldn't be.

    Attributes:
        label: for people; no text of the person's.
        reason: a sentence.
    """

    label: str
    reason: str


class DatasetReport(Part):
    """What was measured of one dataset's sketch.

    Attributes:
        dataset: its name.
        report: what is measured, by its name.
        sketch: that was asked.
        results: one a measurement.
        not_measured: those that couldn't be.
        verification: whether the model was trained again for this request.
        verification_failure: why it couldn't be.
    """

    dataset: str
    report: str
    sketch: SketchFacts
    results: tuple[Result, ...]
    not_measured: tuple[NotMeasured, ...] = ()
    verification: Literal["not_asked", "finished", "failed"] = "not_asked"
    verification_failure: str | None = None

    def with_retrained(self, values: Sequence[float | Sequence[float]]) -> Self:
        """The report with what the retrained model measures, a value a result, of distributions a list.

        Raises:
            ValueError: they aren't as many.
        """
        results = tuple(retrained_result(result, value) for result, value in zip(self.results, values, strict=True))
        return self.model_copy(update={"results": results, "verification": "finished"})

    def with_failed_verification(self, reason: str) -> Self:
        """The report, saying that the model couldn't be trained again."""
        return self.model_copy(update={"verification": "failed", "verification_failure": reason})


class Erased(Part):
    """Something that was erased, in the plural, and how many of it."""

    what: str
    count: Count


class Actions(Part):
    """What was done with the person's data here.

    Attributes:
        erased: what of it is gone.
        planned: whether it goes as soon as this is filed, rather than being gone already.
        contains_erased: sketch versions that were trained on it and remain, "names v3".
        left: further sentences on what remains.
    """

    erased: tuple[Erased, ...] = ()
    planned: bool = False
    contains_erased: tuple[str, ...] = ()
    left: tuple[str, ...] = ()


class AuditHead(Part):
    """The audit as it was: how many records, and the hash of the last."""

    length: Count
    head: str


class Evidence(Part):
    """All that is filed.

    Attributes:
        format: name of the form.
        format_version: of the form.
        verdict: over all that was measured.
        sentence: the same in words.
        outcome: whether the person was found.
        request: that was asked.
        matches: where the person was found.
        reports: what was measured.
        actions: what was done.
        audit: as it was when this was made.
        method: how it was found out, in plain words.
        limits: what it doesn't say.
        made_at: when this was made.
        software: name and version of what made it.
    """

    format: Literal["neverseen-evidence"]
    format_version: Literal[1]
    verdict: Verdict
    sentence: str
    outcome: Literal["answered", "no_match"]
    request: RequestFacts
    matches: tuple[Match, ...]
    reports: tuple[DatasetReport, ...]
    actions: Actions
    audit: AuditHead
    method: tuple[str, ...]
    limits: tuple[str, ...]
    made_at: Moment
    software: str

    @classmethod
    def make(
        cls,
        *,
        request: RequestFacts,
        matches: Sequence[Match],
        reports: Sequence[DatasetReport],
        actions: Actions,
        audit: AuditHead,
        made_at: datetime,
        software: str,
    ) -> Evidence:
        """The evidence of a request.

        Args:
            request: that was asked.
            matches: where the person was found; nowhere is `no_match`.
            reports: what was measured.
            actions: what was done.
            audit: as it is.
            made_at: this moment.
            software: version of this program.
        """
        return cls(
            format=FORMAT,
            format_version=FORMAT_VERSION,
            verdict=verdict_of(matches, reports),
            sentence=sentence_of(matches, reports),
            outcome="answered" if matches else "no_match",
            request=request,
            matches=tuple(matches),
            reports=tuple(reports),
            actions=actions,
            audit=audit,
            method=METHOD,
            limits=LIMITS,
            made_at=made_at,
            software=f"neverseen {software}",
        )


def verdict_of(matches: Sequence[Match], reports: Sequence[DatasetReport]) -> Verdict:
    """Over all that was measured; where something was found and nothing measured, no change can't be concluded."""
    if not matches:
        return "no_match"
    results = results_of(reports)
    if not results:
        return "not_estimated"
    whole = any_material(result.material for result in results)
    if whole == "yes":
        return "material"
    return "undecided" if whole == "undecided" or unmeasured_datasets(matches, reports) else "not_material"


def sentence_of(matches: Sequence[Match], reports: Sequence[DatasetReport]) -> str:
    """The verdict in words."""
    results = results_of(reports)
    return sentence(
        verdict_of(matches, reports),
        documents=persons_part(matches)[1],
        all_is_everything=all(match.everything for match in matches),
        measured=len(results),
        material=sum(result.material == "yes" for result in results),
        undecided=sum(result.material == "undecided" for result in results),
        retrained=sum(is_retrained(result) for result in results),
        unmeasured=len(unmeasured_datasets(matches, reports)),
    )


def results_of(reports: Iterable[DatasetReport]) -> list[NumberResult | DistributionResult]:
    """Of all datasets."""
    return [result for report in reports for result in report.results]


def unmeasured_datasets(matches: Sequence[Match], reports: Iterable[DatasetReport]) -> list[str]:
    """Where the person was found, and nothing measured; neither of it nor of a dataset that succeeds or precedes it."""
    measured = {report.dataset for report in reports if report.results}
    return [
        match.dataset
        for related in lineages(matches)
        if measured.isdisjoint(one.dataset for one in related)
        for match in related
    ]


def persons_part(matches: Sequence[Match]) -> tuple[int, int]:
    """How many units and documents the person has, those that a successor has taken over once."""
    related = lineages(matches)
    return (
        sum(max(match.units for match in one) for one in related),
        sum(max(match.documents for match in one) for one in related),
    )


def lineages(matches: Sequence[Match]) -> list[list[Match]]:
    """The matches, those together that succeed one another."""
    found: list[list[Match]] = []
    for match in matches:
        names = {match.dataset, match.successor_of}
        related = [
            one for one in found if any(other.dataset in names or other.successor_of == match.dataset for other in one)
        ]
        found = [one for one in found if one not in related]
        found.append([*(other for one in related for other in one), match])
    return found


def inconsistencies(evidence: Evidence) -> list[str]:
    """What of a bundle doesn't follow from the rest of it, a sentence each; none of one that `make` made."""
    faults = [
        f"The numbers of the dataset {match.dataset} contradict each other."
        for match in evidence.matches
        if match.everything != (match.units == match.units_of)
        or match.units > match.units_of
        or match.documents > match.documents_of
    ]
    matched = {match.dataset for match in evidence.matches}
    for report in evidence.reports:
        if report.dataset not in matched:
            faults.append(f"There is a report on the dataset {report.dataset}, in which nobody was found.")
        if report.verification == "finished" and not all(map(is_retrained, report.results)):
            faults.append(f"The dataset {report.dataset} is called verified, and lacks retrained values.")
        for number, result in enumerate(report.results, 1):
            faults += faults_of(result, f"Measurement {number} of the dataset {report.dataset}")
    if evidence.verdict != verdict_of(evidence.matches, evidence.reports):
        faults.append("The verdict doesn't follow from what was measured.")
    if evidence.outcome != ("answered" if evidence.matches else "no_match"):
        faults.append("The outcome doesn't follow from where the person was found.")
    return faults
