"""The operations about persons' requests, and about the privacy backends that bring them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from functools import partial
from typing import Any, Literal
from uuid import UUID

from app.catalog import DeliveryState, RequestOrder, RequestState
from app.client.operation import Operation, Pages, body_of, got, path_of, query_of, reader
from app.schemas.connections import (
    ConnectionAnswer,
    ConnectionOptionsBody,
    ConnectionPage,
    ConnectionSecrets,
    MadeConnectionAnswer,
    NewConnection,
    Protocol,
)
from app.schemas.deliveries import DeliveryAnswer, DeliveryPage
from app.schemas.erasure_requests import (
    ErasureRequestAnswer,
    ErasureRequestPage,
    IdentityBody,
    NewErasureRequest,
    TakenAnswer,
)
from app.schemas.predict import MeasurementBody
from app.schemas.reports import RemovedReportAnswer, ReportAnswer, ReportBody, ReportPage


def create_erasure_request(
    id: str,
    *,
    identities: Sequence[IdentityBody],
    regulation: Literal["gdpr", "ccpa"] | None = None,
    submitted_at: datetime | None = None,
    due_at: datetime | None = None,
    mode: Literal["predict", "erase"] = "predict",
    report: str = "default",
    verify: bool = False,
) -> Operation[TakenAnswer]:
    """Have a person's request worked on; the same again is the same request.

    Args:
        id: yours, without an identity in it.
        identities: of the person.
        regulation: that the deadline follows from.
        submitted_at: when the person asked.
        due_at: when it has to be done; None goes by the regulation.
        mode: "erase" also forgets the person's part of the datasets.
        report: name of what is measured.
        verify: whether models are retrained, to compare.
    """
    body = body_of(
        NewErasureRequest,
        id=id,
        identities=identities,
        regulation=regulation,
        submitted_at=submitted_at,
        due_at=due_at,
        mode=mode,
        report=report,
        verify=verify,
    )
    return Operation(
        id="create_erasure_request", method="POST", path="/erasure-requests", body=body, read=reader(TakenAnswer)
    )


def list_erasure_requests(
    *,
    state: RequestState | None = None,
    late: bool = False,
    caller_id: str | None = None,
    order: RequestOrder = "newest",
    limit: int = 50,
    offset: int = 0,
) -> Operation[ErasureRequestPage]:
    """A page of the requests.

    Args:
        state: only those in it.
        late: only those that aren't done though they should be.
        caller_id: only those that their callers know by it.
        order: "newest" first, or the next "deadline", and what is done or cancelled last.
        limit: the most items.
        offset: how many to leave out before them.
    """
    return got(
        "list_erasure_requests",
        "/erasure-requests",
        ErasureRequestPage,
        state=state,
        late=str(late).lower(),
        caller_id=caller_id,
        order=order,
        limit=limit,
        offset=offset,
    )


def iterate_erasure_requests(
    *,
    state: RequestState | None = None,
    late: bool = False,
    caller_id: str | None = None,
    order: RequestOrder = "newest",
) -> Pages[ErasureRequestAnswer]:
    """All requests, as `list_erasure_requests` orders them; one that is taken meanwhile makes another come twice."""
    return partial(list_erasure_requests, state=state, late=late, caller_id=caller_id, order=order)


def get_erasure_request(request_id: UUID) -> Operation[ErasureRequestAnswer]:
    """A request, and how far it is."""
    path = path_of("/erasure-requests/{request_id}", request_id=request_id)
    return got("get_erasure_request", path, ErasureRequestAnswer)


def cancel_erasure_request(request_id: UUID) -> Operation[ErasureRequestAnswer]:
    """Cancel a request that nobody has begun with; again changes nothing."""
    path = path_of("/erasure-requests/{request_id}", request_id=request_id)
    return Operation(id="cancel_erasure_request", method="DELETE", path=path, read=reader(ErasureRequestAnswer))


def retry_erasure_request(request_id: UUID) -> Operation[ErasureRequestAnswer]:
    """Have a failed request worked on again."""
    path = path_of("/erasure-requests/{request_id}/retry", request_id=request_id)
    return Operation(
        id="retry_erasure_request", method="POST", path=path, repeat="if undone", read=reader(ErasureRequestAnswer)
    )


def get_evidence(request_id: UUID) -> Operation[str]:
    """The evidence of a completed request, as it is signed: JSON to keep as it is."""
    path = path_of("/erasure-requests/{request_id}/evidence", request_id=request_id)
    return Operation(id="get_evidence", method="GET", path=path, read=bytes.decode)


def get_evidence_page(request_id: UUID) -> Operation[str]:
    """The evidence of a completed request as a page, HTML."""
    path = path_of("/erasure-requests/{request_id}/evidence.html", request_id=request_id)
    return Operation(id="get_evidence_page", method="GET", path=path, read=bytes.decode)


def list_reports(*, limit: int = 50, offset: int = 0) -> Operation[ReportPage]:
    """A page of the reports: by name, a part for each dataset."""
    return got("list_reports", "/reports", ReportPage, limit=limit, offset=offset)


def iterate_reports() -> Pages[ReportAnswer]:
    """All reports: by name, a part for each dataset."""
    return partial(list_reports)


def set_report(
    report: str,
    *,
    sketch: str,
    measurements: Sequence[MeasurementBody] = (),
    own_documents: int = 5,
    confidence: float = 0.9,
    materiality_nats: float = 0.05,
    materiality_probability: float = 0.01,
) -> Operation[ReportAnswer]:
    """Say what a report measures of a sketch, in place of what it did.

    Args:
        report: its name.
        sketch: whose current version is asked.
        measurements: that are made.
        own_documents: losses of so many of the person's own documents, too.
        confidence: of intervals.
        materiality_nats: a change of a loss or log-probability beyond it is material.
        materiality_probability: a change of a probability beyond it is material.
    """
    body = body_of(
        ReportBody,
        sketch=sketch,
        measurements=measurements,
        own_documents=own_documents,
        confidence=confidence,
        materiality_nats=materiality_nats,
        materiality_probability=materiality_probability,
    )
    path = path_of("/reports/{report}", report=report)
    return Operation(id="set_report", method="PUT", path=path, body=body, read=reader(ReportAnswer))


def remove_report(report: str) -> Operation[RemovedReportAnswer]:
    """Remove a report, of all datasets."""
    path = path_of("/reports/{report}", report=report)
    return Operation(
        id="remove_report", method="DELETE", path=path, repeat="if undone", read=reader(RemovedReportAnswer)
    )


def list_connections(*, limit: int = 50, offset: int = 0) -> Operation[ConnectionPage]:
    """A page of the connections, by name, without their secrets."""
    return got("list_connections", "/connections", ConnectionPage, limit=limit, offset=offset)


def iterate_connections() -> Pages[ConnectionAnswer]:
    """All connections, by name, without their secrets."""
    return partial(list_connections)


def create_connection(
    name: str,
    *,
    protocol: Protocol,
    options: Mapping[str, Any] | None = None,
    secrets: ConnectionSecrets | None = None,
    credential: str | None = None,
) -> Operation[MadeConnectionAnswer]:
    """Make a connection. What its peer has to be told is in this answer, and nowhere else.

    Args:
        name: of it.
        protocol: that it speaks.
        options: of the protocol.
        secrets: of it; what is needed and left out is made.
        credential: that the peer shows; None makes one.
    """
    body = body_of(
        NewConnection,
        name=name,
        protocol=protocol,
        options=options or {},
        secrets=secrets or ConnectionSecrets(),
        credential=credential,
    )
    return Operation(
        id="create_connection",
        method="POST",
        path="/connections",
        body=body,
        repeat="if undone",
        read=reader(MadeConnectionAnswer),
    )


def get_connection(connection: str) -> Operation[ConnectionAnswer]:
    """A connection, without its secrets."""
    path = path_of("/connections/{connection}", connection=connection)
    return got("get_connection", path, ConnectionAnswer)


def change_connection(connection: str, *, options: Mapping[str, Any]) -> Operation[MadeConnectionAnswer]:
    """Change options of a connection; those that are left out stay as they are."""
    path = path_of("/connections/{connection}/options", connection=connection)
    body = body_of(ConnectionOptionsBody, options=options)
    return Operation(id="change_connection", method="PUT", path=path, body=body, read=reader(MadeConnectionAnswer))


def rotate_connection(
    connection: str, *, what: Literal["credential", "webhook_secret"] = "webhook_secret"
) -> Operation[MadeConnectionAnswer]:
    """Make another credential, or another secret that messages are signed with. It is in this answer alone.

    Args:
        connection: its name.
        what: is made anew.
    """
    return Operation(
        id="rotate_connection",
        method="POST",
        path=path_of("/connections/{connection}/rotate", connection=connection),
        query=query_of(what=what),
        repeat="if undone",
        read=reader(MadeConnectionAnswer),
    )


def disable_connection(connection: str) -> Operation[ConnectionAnswer]:
    """Let a connection neither be called nor call; again changes nothing."""
    path = path_of("/connections/{connection}/disable", connection=connection)
    return Operation(id="disable_connection", method="POST", path=path, read=reader(ConnectionAnswer))


def enable_connection(connection: str) -> Operation[ConnectionAnswer]:
    """Take that back."""
    path = path_of("/connections/{connection}/enable", connection=connection)
    return Operation(id="enable_connection", method="POST", path=path, read=reader(ConnectionAnswer))


def list_deliveries(
    *, state: DeliveryState | None = None, connection: str | None = None, limit: int = 50, offset: int = 0
) -> Operation[DeliveryPage]:
    """A page of the deliveries, the newest first.

    Args:
        state: only those in it.
        connection: only those of the connection of this name.
        limit: the most items.
        offset: how many to leave out before them.
    """
    return got(
        "list_deliveries", "/deliveries", DeliveryPage, state=state, connection=connection, limit=limit, offset=offset
    )


def iterate_deliveries(*, state: DeliveryState | None = None, connection: str | None = None) -> Pages[DeliveryAnswer]:
    """All deliveries, the newest first; one that is written meanwhile makes another come twice."""
    return partial(list_deliveries, state=state, connection=connection)


def get_delivery(delivery: str) -> Operation[DeliveryAnswer]:
    """A message to a peer, and how far it is."""
    path = path_of("/deliveries/{delivery}", delivery=delivery)
    return got("get_delivery", path, DeliveryAnswer)


def replay_delivery(delivery: str) -> Operation[DeliveryAnswer]:
    """Send a message again."""
    path = path_of("/deliveries/{delivery}/replay", delivery=delivery)
    return Operation(id="replay_delivery", method="POST", path=path, repeat="if undone", read=reader(DeliveryAnswer))
