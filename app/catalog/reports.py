"""Reports: what is measured, of which sketch, for a person's request. A report has a part for each dataset."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Select, delete, select
from sqlalchemy.orm import Session, joinedload

from app.catalog.audit import record
from app.catalog.pages import Page, page
from app.errors import ConflictError, NotFoundError
from app.names import check_name, shown
from app.tables import Dataset, Report, Sketch


def set_report(
    session: Session,
    *,
    name: str,
    sketch: Sketch,
    measurements: list[dict[str, Any]],
    own_documents: int,
    confidence: float,
    materiality_nats: float,
    materiality_probability: float,
) -> Report:
    """Write what a report measures for the dataset of a sketch, in place of what it did.

    Args:
        session: a writing transaction.
        name: of the report.
        sketch: whose current version is asked; with its dataset.
        measurements: as the engine has them.
        own_documents: losses of so many of the person's own documents are measured, too.
        confidence: of intervals.
        materiality_nats: a change of a loss or log-probability beyond it is material.
        materiality_probability: a change of a probability beyond it is.

    Raises:
        ConflictError: nothing is to be measured.
        InvalidTextError: the name can't be stored.
    """
    check_name(name, "report")
    if not measurements and not own_documents:
        raise ConflictError("A report measures something: give a measurement, or own_documents.")
    row = session.get(Report, (name, sketch.dataset_id)) or Report(name=name, dataset_id=sketch.dataset_id)
    row.sketch, row.measurements, row.own_documents = sketch, measurements, own_documents
    row.confidence, row.materiality_nats = confidence, materiality_nats
    row.materiality_probability = materiality_probability
    session.add(row)
    session.flush()
    record(
        session,
        "report.set",
        report=name,
        dataset=sketch.dataset.name,
        sketch=sketch.name,
        measurements=len(measurements),
    )
    return row


def get_report(session: Session, name: str) -> list[Report]:
    """The parts of a report, by dataset; none where there is no such report."""
    query = _reports().where(Report.name == name).order_by(Report.dataset_id)
    return list(session.scalars(query))


def list_reports(session: Session, *, limit: int, offset: int) -> Page[Report]:
    """The parts of all reports, by name and dataset."""
    return page(session, _reports().order_by(Report.name, Report.dataset_id), limit=limit, offset=offset)


def remove_report(session: Session, name: str, dataset: str | None = None) -> int:
    """Remove a report, or what it measures for one dataset; how many parts that were.

    Raises:
        NotFoundError: there is no such part.
    """
    parts = delete(Report).where(Report.name == name)
    if dataset is not None:
        parts = parts.where(Report.dataset_id.in_(select(Dataset.id).where(Dataset.name == dataset)))
    removed = len(session.execute(parts.returning(Report.dataset_id)).all())
    if not removed:
        of = "" if dataset is None else f" for the dataset {shown(dataset)}"
        raise NotFoundError(f"There is no report {shown(name)}{of}; their list has all of them.")
    record(session, "report.remove", report=name, dataset=dataset)
    return removed


def _reports() -> Select[Report]:
    return select(Report).options(joinedload(Report.dataset), joinedload(Report.sketch))
