"""What is done for an erasure request, a step at a time; between steps a process may die, and another one goes on.

    resolve    identities → units, by their keyed hashes
    predict    the report, of each dataset where the person was found
    verify     where that is wanted: the models are retrained in the background (`app.verifier`), and waited for
    file       the evidence, signed; in the same transaction the person's part is erased, where the request says so
    forget     what was erased is made unreadable on the disk, too (`app.erasure`); only then the request is completed

Nothing of a document's text and no identity goes into what is filed, recorded or told.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from importlib.metadata import version
from typing import Any, Final

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from sqlalchemy.orm import Session

from app import catalog
from app.actors import Actor
from app.catalog import RequestClaim, ResolvedDeletion
from app.db import Database, transaction
from app.erasure import scrub
from app.lookup import Lookup
from app.predictor import Predictor
from app.privacy.evidence import (
    Actions,
    AuditHead,
    DatasetReport,
    Erased,
    Evidence,
    Match,
    NotMeasured,
    RequestFacts,
    SketchFacts,
    persons_part,
)
from app.privacy.notices import announce
from app.privacy.proof import sign_evidence
from app.privacy.results import result_of
from app.secret import Secret
from app.settings import Settings
from app.tables import Dataset, ErasureRequest, Report, SketchVersion
from app.verifier import Verifier
from engine.errors import QuestionError
from engine.measure import Measurement
from engine.model import ModelConfiguration
from engine.question import Distribution, Prediction

WORKER: Final = Actor(name="worker")

VERIFIED_EVERY: Final = timedelta(seconds=1)
"""Between looks at whether the retrained models are there."""

_WITHHELD: Final = "A measurement of the report can't be made of this sketch; its text is one of the person's."
_NOT_ALL_THERE: Final = "Some of its training data have been erased since: it can't be trained again as it was."


@dataclass(frozen=True, kw_only=True)
class _Found:
    """The person's part of a dataset.

    Attributes:
        dataset: its row, of no session.
        deletion: the units.
        texts: of the person's documents, in training order.
        names: of the units, where they are subjects'.
        part: what the report measures of this dataset; None where it has no part for it, or its sketch another dataset.
        version: of the sketch that is asked; None as `part`.
    """

    dataset: Dataset
    deletion: ResolvedDeletion
    texts: list[str]
    names: list[str]
    part: Report | None
    version: SketchVersion | None

    @property
    def everything(self) -> bool:
        """Whether no training data would be left."""
        return len(self.deletion.units) == self.dataset.unit_count

    def holds(self, measurement: Measurement) -> bool:
        """Whether the text of a measurement holds one of the person's texts, or their name."""
        measured = measurement.text or measurement.prompt + measurement.completion
        return any(one in measured for one in (*self.texts, *self.names))


class Work:
    """Does what is to be done for requests. For one thread."""

    def __init__(
        self,
        database: Database,
        settings: Settings,
        secret: Secret,
        *,
        lookup: Lookup,
        predictor: Predictor,
        verifier: Verifier,
        signing_key: Ed25519PrivateKey,
    ) -> None:
        """Nothing is done yet.

        Args:
            database: the catalog.
            settings: of the installation.
            secret: of the installation.
            lookup: that knows which versions are served.
            predictor: that answers.
            verifier: that retrains models, in this process or another.
            signing_key: of the evidence.
        """
        self._database, self._settings, self._secret = database, settings, secret
        self._lookup, self._predictor, self._verifier = lookup, predictor, verifier
        self._signing_key = signing_key

    def advance(self, row: ErasureRequest, claim: RequestClaim) -> None:
        """Do the next steps for a claimed request, until it is done or has to wait.

        Args:
            row: as it was claimed.
            claim: on it; once it is lost, nothing is changed any more.

        Raises:
            BusyError: something is in the way that will pass; the request stays as it is.
            AppError, EngineError, OSError, SQLAlchemyError: it can't be done now, or not at all.
        """
        if row.stage is None:
            self._predict(row, claim)
        elif row.stage == "verifying":
            self._look_at_verifications(row, claim)
        else:
            self._complete(claim)

    def _predict(self, row: ErasureRequest, claim: RequestClaim) -> None:
        with transaction(self._database, writes=False) as session:
            found = self._find(session, row)
        names = {one.dataset.id: one.dataset.name for one in found}
        matches = [self._match(one, names.get(one.dataset.successor_of_id or 0)) for one in found]
        reports: list[DatasetReport] = []
        verifications: list[str | None] = []
        for one in found:
            if one.part is None or one.version is None or one.everything:
                continue
            report, predictions = self._report(one, one.part, one.version)
            reports.append(report)
            if row.verify:
                verifications.append(self._verification(one, one.part, one.version, predictions))
                if one.version.contains_erased:
                    reports[-1] = report.with_failed_verification(_NOT_ALL_THERE)
        if any(verifications):
            draft = {
                "matches": [match.model_dump(mode="json") for match in matches],
                "reports": [report.model_dump(mode="json") for report in reports],
            }
            self._verifier.wake()
            with transaction(self._database, actor=WORKER) as session:
                catalog.change_request(
                    session,
                    claim,
                    stage="verifying",
                    draft=draft,
                    verifications=verifications,
                    **_counts(matches),
                    **_released(VERIFIED_EVERY),
                )
            return
        self._file(row, claim, matches, reports)

    def _look_at_verifications(self, row: ErasureRequest, claim: RequestClaim) -> None:
        assert row.draft is not None
        matches = [Match.model_validate(one) for one in row.draft["matches"]]
        reports = [DatasetReport.model_validate(one) for one in row.draft["reports"]]
        verified = []
        with transaction(self._database, writes=False) as session:
            for report, name in zip(reports, row.verifications or (), strict=True):
                if name is None:
                    verified.append(report)
                    continue
                verification = catalog.get_verification(session, name)
                match verification.state:
                    case "finished":
                        verified.append(report.with_retrained(verification.truths or []))
                    case "failed":
                        verified.append(report.with_failed_verification(verification.failure or ""))
                    case _:
                        verified.clear()
                        break
        if len(verified) == len(reports):
            self._file(row, claim, matches, verified)
            return
        with transaction(self._database, actor=WORKER) as session:
            catalog.change_request(session, claim, **_released(VERIFIED_EVERY))

    def _file(
        self, row: ErasureRequest, claim: RequestClaim, matches: Sequence[Match], reports: Sequence[DatasetReport]
    ) -> None:
        """Write the evidence and, where that is asked, erase: both or neither."""
        erases = row.mode == "erase" and bool(matches)
        with transaction(self._database, actor=WORKER) as session:
            held = catalog.change_request(session, claim, claimed_at=datetime.now(UTC))
            if held is None:
                return
            now = datetime.now(UTC)
            actions = self._erase(session, held, now) if erases else Actions()
            length, head = session.execute(catalog.CHAIN_FOR_UPDATE).one()
            evidence = Evidence.make(
                request=_facts(row),
                matches=list(matches),
                reports=list(reports),
                actions=actions,
                audit=AuditHead(length=length, head=head),
                made_at=now,
                software=version("neverseen"),
            )
            text = sign_evidence(evidence, self._signing_key)
            filed = catalog.change_request(
                session,
                claim,
                stage="forgetting" if erases else None,
                evidence=text,
                outcome=evidence.outcome,
                draft=None,
                verifications=None,
                **_counts(matches),
            )
            assert filed is not None
            catalog.record(
                session,
                "request.file",
                request=row.id,
                source=row.source,
                protocol=row.protocol,
                body_digest=row.body_digest,
                received_at=row.received_at.isoformat(),
                deletions=" ".join(match.deletion_digest for match in matches),
                versions=" ".join(f"{one.sketch.name}:{one.sketch.version}" for one in reports),
                outcome=evidence.outcome,
                verdict=evidence.verdict,
                evidence_digest=hashlib.sha256(text.encode()).hexdigest(),
            )
            if not erases:
                self._completed(session, claim)
        if erases:
            self._complete(claim)

    def _erase(self, session: Session, row: ErasureRequest, now: datetime) -> Actions:
        units, documents, links = 0, 0, 0
        touched: set[int] = set()
        for dataset, numbers in self._linked(session, row):
            links += catalog.count_links(session, dataset, numbers)
            forgotten = catalog.forget_units(session, dataset, numbers, now=now)
            units, documents = units + forgotten.units, documents + forgotten.documents
            touched.update(forgotten.dataset_ids)
        counts = {"units": units, "documents": documents, "identity links": links}
        return Actions(
            erased=tuple(Erased(what=what, count=count) for what, count in counts.items()),
            contains_erased=tuple(catalog.labels_trained_on(session, touched)),
        )

    def _complete(self, claim: RequestClaim) -> None:
        scrub(self._database, self._settings)
        with transaction(self._database, actor=WORKER) as session:
            self._completed(session, claim)

    def _completed(self, session: Session, claim: RequestClaim) -> None:
        done = catalog.change_request(
            session,
            claim,
            state="completed",
            stage=None,
            claim=None,
            claimed_at=None,
            finished_at=datetime.now(UTC),
            failure=None,
            identities=None,
        )
        if done is not None:
            catalog.record(session, "request.complete", request=done.id, outcome=done.outcome)
            announce(session, self._secret, done)
            done.sealed = None
            session.flush()

    def _find(self, session: Session, row: ErasureRequest) -> list[_Found]:
        parts = {part.dataset_id: part for part in catalog.get_report(session, row.report)}
        found = []
        for dataset, units in self._linked(session, row):
            texts = catalog.texts_of_units(session, dataset, units)
            part, served = parts.get(dataset.id), None
            if part is not None:
                asked = self._lookup.find_version(part.sketch.name, None)
                if asked.dataset.id == dataset.id:
                    served = catalog.get_version_of_id(session, asked.artifact.version_id)
            found.append(
                _Found(
                    dataset=dataset,
                    deletion=ResolvedDeletion(units=units, documents=len(texts)),
                    texts=texts,
                    names=catalog.names_of_units(session, dataset, units) if dataset.has_subjects else [],
                    part=part if served is not None else None,
                    version=served,
                )
            )
        return found

    def _linked(self, session: Session, row: ErasureRequest) -> list[tuple[Dataset, list[int]]]:
        """Where the person is found: datasets and units; nothing of what was erased already."""
        hashes = [one for identity in row.identities or () for one in identity["hashes"]]
        return [
            (catalog.get_dataset_of_id(session, dataset), units)
            for dataset, units in catalog.find_linked(session, hashes).items()
        ]

    def _match(self, one: _Found, successor_of: str | None) -> Match:
        return Match(
            dataset=one.dataset.name,
            fingerprint=one.dataset.fingerprint,
            units=len(one.deletion.units),
            documents=one.deletion.documents,
            units_of=one.dataset.unit_count,
            documents_of=one.dataset.document_count,
            deletion_digest=self._secret.deletion_digest(one.dataset.fingerprint, one.deletion.units),
            successor_of=successor_of,
        )

    def _report(
        self, one: _Found, part: Report, asked: SketchVersion
    ) -> tuple[DatasetReport, list[Prediction | Distribution]]:
        """What a report says of a dataset, and the predictions that it says it of."""
        artifact = self._lookup.find_version(part.sketch.name, asked.number).artifact
        wanted: list[tuple[int | None, Measurement]] = [(None, Measurement(**one)) for one in part.measurements]
        wanted += [(number, Measurement(text=text)) for number, text in enumerate(one.texts[: part.own_documents], 1)]
        can, cannot = [], []
        for own, measurement in wanted:
            withheld = own is None and one.holds(measurement)
            try:
                self._predictor.check(artifact, [measurement])
            except QuestionError as error:
                label = f"own document {own}" if own else "withheld" if withheld else measurement.label
                cannot.append(NotMeasured(label=label, reason=_WITHHELD if own or withheld else str(error)))
            else:
                can.append((own, withheld, measurement))
        predictions = self._predictor.predict(
            artifact,
            units=one.deletion.units,
            measurements=[measurement for *_, measurement in can],
            degree="auto",
            downweights=[1.0],
            confidence=part.confidence,
        )
        results = tuple(
            result_of(
                prediction,
                threshold_nats=part.materiality_nats,
                threshold_probability=part.materiality_probability,
                confidence=part.confidence,
                own=own,
                withheld=withheld,
            )
            for (own, withheld, _), prediction in zip(can, predictions, strict=True)
        )
        report = DatasetReport(
            dataset=one.dataset.name,
            report=part.name,
            sketch=SketchFacts(
                name=asked.sketch.name,
                version=asked.number,
                checksum=asked.checksum,
                built_at=asked.created_at,
                parameters=ModelConfiguration(**asked.configuration["model"]).parameter_count,
                contains_erased=asked.contains_erased,
            ),
            results=results,
            not_measured=tuple(cannot),
        )
        return report, predictions

    def _verification(
        self, one: _Found, part: Report, asked: SketchVersion, predictions: Sequence[Prediction | Distribution]
    ) -> str | None:
        """Have the predictions verified, where that can be done; the verification's id."""
        if not predictions or asked.contains_erased:
            return None
        with transaction(self._database, actor=WORKER) as session:
            return catalog.add_verification(
                session,
                version_id=asked.id,
                deletion=one.deletion,
                predictions=predictions,
                confidence=part.confidence,
            ).id


def _facts(row: ErasureRequest) -> RequestFacts:
    return RequestFacts(
        id=row.id,
        source=row.source,
        protocol=row.protocol,
        caller_id=row.caller_id,
        regulation=row.regulation,
        submitted_at=row.submitted_at,
        received_at=row.received_at,
        due_at=row.due_at,
        mode=row.mode,
        report=row.report,
        body_digest=row.body_digest,
        identities=dict(Counter(identity["type"] for identity in row.identities or ())),
    )


def _counts(matches: Sequence[Match]) -> dict[str, Any]:
    units, documents = persons_part(matches)
    return {"units": units, "documents": documents}


def _released(wait: timedelta) -> dict[str, Any]:
    return {"claim": None, "claimed_at": None, "next_at": datetime.now(UTC) + wait}
