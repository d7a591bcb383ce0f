"""Reports: what is measured, of which sketch, for a person's request."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated

from fastapi import APIRouter, Path

from app import catalog
from app.deps import Limit, Offset, Reading, Writing
from app.errors import ConflictError, NotFoundError
from app.guard import Guarded, needs
from app.names import NAME_PATTERN
from app.openapi import WRONG_PAGE, declared
from app.schemas.predict import measurement_of
from app.schemas.reports import RemovedReportAnswer, ReportAnswer, ReportBody, ReportPage
from app.tables import Report

router = APIRouter(tags=["reports"], route_class=Guarded)

ReportName = Annotated[
    str,
    Path(pattern=NAME_PATTERN, description="Name of the report.", openapi_examples={"demo": {"value": "default"}}),
]


@router.get(
    "/reports", operation_id="list_reports", openapi_extra=needs("privacy"), responses=declared(wrong=WRONG_PAGE)
)
def list_reports(session: Reading, limit: Limit = 50, offset: Offset = 0) -> ReportPage:
    """List reports: by name, a part for each dataset."""
    page = catalog.list_reports(session, limit=limit, offset=offset)
    return ReportPage(
        items=[_answer(row) for row in page.items], total=page.total, limit=page.limit, offset=page.offset
    )


@router.put(
    "/reports/{report}",
    operation_id="set_report",
    openapi_extra=needs("admin"),
    responses=declared(
        NotFoundError("There is no sketch 'nmaes'. Known: names."),
        ConflictError("A report measures something: give a measurement, or own_documents."),
        wrong="body.confidence: Input should be less than or equal to 0.999",
        body=True,
    ),
)
def set_report(report: ReportName, body: ReportBody, session: Writing) -> ReportAnswer:
    """Say what a report measures of a sketch, in place of what it did.

    It counts for requests that concern the sketch's dataset. Its texts are kept, and are in the evidence: they
    shouldn't be about anybody in the data. Where they turn out to be an erased person's, they are taken out.
    """
    row = catalog.set_report(
        session,
        name=report,
        sketch=catalog.get_sketch(session, body.sketch),
        measurements=[asdict(measurement_of(one)) for one in body.measurements],
        own_documents=body.own_documents,
        confidence=body.confidence,
        materiality_nats=body.materiality_nats,
        materiality_probability=body.materiality_probability,
    )
    return _answer(row)


@router.delete(
    "/reports/{report}",
    operation_id="remove_report",
    openapi_extra=needs("admin"),
    responses=declared(
        NotFoundError("There is no report 'defalt'; their list has all of them."),
        wrong="path.report: String should match pattern '^[a-z0-9][a-z0-9._-]{0,63}$'",
    ),
)
def remove_report(report: ReportName, session: Writing) -> RemovedReportAnswer:
    """Remove a report, of all datasets."""
    return RemovedReportAnswer(name=report, parts=catalog.remove_report(session, report))


def _answer(row: Report) -> ReportAnswer:
    fields = {name: getattr(row, name) for name in ReportAnswer.model_fields}
    return ReportAnswer.model_validate({**fields, "dataset": row.dataset.name, "sketch": row.sketch.name})
