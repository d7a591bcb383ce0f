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
from datetime import UTC, datetime, timedelta
from importlib.metadata import version
from typing import Any, Final

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from sqlalchemy.orm import Session

from app import catalog
from app.actors import Actor
from app.catalog import RequestClaim
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
    RequestFacts,
    persons_part,
)
from app.privacy.notices import announce
from app.privacy.proof import sign_evidence
from app.privacy.reporting import Found, Reporter, linked
from app.secret import Secret
from app.settings import Settings
from app.tables import ErasureRequest, Report, SketchVersion
from app.verifier import Verifier
from engine.question import Distribution, Prediction

WORKER: Final = Actor(name="worker")

VERIFIED_EVERY: Final = timedelta(seconds=1)
"""Between looks at whether the retrained models are there."""

_NOT_ALL_THERE: Final = "Some of its training data have been erased since: it can't be trained again as it was."


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
        self._reporter = Reporter(secret, lookup=lookup, predictor=predictor)
        self._verifier, self._signing_key = verifier, signing_key

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
            found = self._reporter.find(session, row)
        names = {one.dataset.id: one.dataset.name for one in found}
        matches = [self._reporter.match(one, names.get(one.dataset.successor_of_id or 0)) for one in found]
        reports: list[DatasetReport] = []
        verifications: list[str | None] = []
        for one in found:
            if one.part is None or one.version is None or one.everything:
                continue
            report, predictions = self._reporter.report(one, one.part, one.version)
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
        for dataset, numbers in linked(session, row):
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

    def _verification(
        self, one: Found, part: Report, asked: SketchVersion, predictions: Sequence[Prediction | Distribution]
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
