"""Verifications: answers that wait for the truth, and what came of them. The table is the queue.

A process that works on a verification *claims* it, and renews the claim while it works. Every change of a claimed row
is a compare-and-swap on the moment of the claim: a process whose claim was taken over, since it seemed dead, changes
nothing any more.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final, cast
from uuid import uuid4

from pydantic import TypeAdapter
from sqlalchemy import ColumnElement, CursorResult, Select, and_, func, or_, select, update
from sqlalchemy.orm import Session, joinedload

from app.catalog.datasets import erased_refusal, hold_dataset
from app.catalog.deletion import ResolvedDeletion
from app.catalog.pages import Page, page
from app.errors import BusyError, ConflictError, NotFoundError
from app.names import shown
from app.tables import Sketch, SketchVersion, Verification
from engine.measure import Measurement
from engine.question import Distribution, Prediction

MOST_WAITING: Final = 100
"""Verifications that may wait or run; with more, further ones are refused."""

STALE_AFTER: Final = timedelta(minutes=3)
"""A claim that wasn't renewed for so long is that of a dead process; so is one from as far in the future, which was
made before the clock was set back."""

_MEASUREMENT: Final = TypeAdapter(Measurement)


@dataclass(frozen=True, kw_only=True)
class Claim:
    """A row of the queue as it was seen: what a compare-and-swap compares with.

    Attributes:
        id: of the verification.
        at: the moment of the claim; None where nobody had claimed it.
    """

    id: str
    at: datetime | None


def as_json(prediction: Prediction | Distribution) -> dict[str, Any]:
    """What a verification keeps of an answer: numbers, or lists of them where it is a distribution."""
    kept: dict[str, Any] = {
        "measurement": asdict(prediction.measurement),
        "estimator": prediction.estimator,
        "degree": prediction.degree,
    }
    for name in ("baseline", "estimate", "standard_error", "interval"):
        if isinstance(prediction, Distribution):
            kept[name] = [getattr(outcome, name) for outcome in prediction.outcomes]
        else:
            kept[name] = getattr(prediction, name)
    kept["tokens"] = [o.token for o in prediction.outcomes] if isinstance(prediction, Distribution) else None
    return kept


def from_json(prediction: dict[str, Any]) -> Measurement:
    """What was measured, from what `as_json` kept."""
    return _MEASUREMENT.validate_python(prediction["measurement"])


def add_verification(
    session: Session,
    *,
    version_id: int,
    deletion: ResolvedDeletion,
    predictions: Sequence[Prediction | Distribution],
    confidence: float,
) -> Verification:
    """Queue an answer for verification.

    Args:
        session: a writing transaction.
        version_id: of the sketch version that answered.
        deletion: what was deleted.
        predictions: what was answered, at downweight 1.
        confidence: of their intervals.

    Raises:
        BusyError: too many wait already.
        ConflictError: units that the version was trained on were erased.
    """
    of = session.scalars(select(SketchVersion.dataset_id).where(SketchVersion.id == version_id)).one()
    dataset = hold_dataset(session, of)
    if dataset.erased_units:
        raise ConflictError(erased_refusal(dataset))
    waiting = session.scalar(
        select(func.count()).select_from(Verification).where(Verification.state.in_(("pending", "running")))
    )
    if waiting is not None and waiting >= MOST_WAITING:
        raise BusyError(f"{waiting} verifications wait already: try again later, or ask without verify.")
    row = Verification(
        id=str(uuid4()),
        version_id=version_id,
        units=list(deletion.units),
        document_count=deletion.documents,
        predictions=[as_json(prediction) for prediction in predictions],
        confidence=confidence,
    )
    session.add(row)
    session.flush()
    return row


def get_verification(session: Session, verification: str) -> Verification:
    """A verification, with its version, sketch and dataset.

    Raises:
        NotFoundError: there is none of this id.
    """
    row = session.scalar(_verifications().where(Verification.id == verification))
    if row is None:
        raise NotFoundError(f"There is no verification {shown(verification)}; their list has all of them.")
    return row


def list_verifications(session: Session, *, limit: int, offset: int) -> Page[Verification]:
    """Verifications, the newest first."""
    query = _verifications().order_by(Verification.created_at.desc(), Verification.id.desc())
    return page(session, query, limit=limit, offset=offset)


def measurements_of(verification: Verification) -> list[Measurement]:
    """What a verification measures, a measurement a prediction."""
    return [from_json(prediction) for prediction in verification.predictions]


def next_verification(session: Session, *, now: datetime) -> Claim | None:
    """The oldest one that nobody works on; None where there is none."""
    unclaimed: ColumnElement[bool] = or_(
        Verification.state == "pending",
        and_(
            Verification.state == "running",
            or_(Verification.claimed_at < now - STALE_AFTER, Verification.claimed_at > now + STALE_AFTER),
        ),
    )
    oldest = (
        select(Verification.id, Verification.claimed_at)
        .where(unclaimed)
        .order_by(Verification.created_at, Verification.id)
        .limit(1)
    )
    row = session.execute(oldest).first()
    return None if row is None else Claim(id=row[0], at=row[1])


def claim_verification(session: Session, seen: Claim, *, now: datetime) -> Claim | None:
    """Begin to work on a verification; None where another process was faster."""
    swapped = _swap(session, seen, state="running", started_at=now, claimed_at=now)
    return Claim(id=seen.id, at=now) if swapped else None


def renew_claim(session: Session, claim: Claim, *, now: datetime) -> Claim | None:
    """Say that the work goes on; None where the claim was taken over."""
    return Claim(id=claim.id, at=now) if _swap(session, claim, claimed_at=now) else None


def release_claim(session: Session, claim: Claim) -> bool:
    """Leave the work to whoever comes next. False: the claim was taken over."""
    return _swap(session, claim, state="pending", started_at=None, claimed_at=None)


def finish_verification(session: Session, claim: Claim, truths: Sequence[Any]) -> bool:
    """Write the truth, one value a prediction. False: the claim was taken over."""
    return _swap(session, claim, state="finished", truths=list(truths), claimed_at=None, finished_at=datetime.now(UTC))


def fail_verification(session: Session, claim: Claim, reason: str) -> bool:
    """Write why there will be no truth. False: the claim was taken over."""
    return _swap(session, claim, state="failed", failure=reason, claimed_at=None, finished_at=datetime.now(UTC))


def _swap(session: Session, seen: Claim, **values: Any) -> bool:
    # What is done has no claim either, as what is pending: the state tells them apart.
    swapped = session.execute(
        update(Verification)
        .where(
            Verification.id == seen.id,
            Verification.state == ("pending" if seen.at is None else "running"),
            Verification.claimed_at.is_not_distinct_from(seen.at),
        )
        .values(**values)
        .execution_options(synchronize_session=False)
    )
    return cast("CursorResult[Any]", swapped).rowcount == 1


def _verifications() -> Select[Verification]:
    version = joinedload(Verification.version)
    return select(Verification).options(
        version.joinedload(SketchVersion.sketch).joinedload(Sketch.dataset), version.joinedload(SketchVersion.dataset)
    )
