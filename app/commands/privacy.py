"""``neverseen privacy``: erasure requests, their evidence, and what is told to whom."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated

import typer
from rich.markup import escape
from rich.table import Column, Table

from app import catalog
from app.actors import local_actor
from app.catalog import REQUEST_STATES
from app.commands import connections, console, deliveries, evidence, opened, reports
from app.db import transaction
from app.privacy.requests import Requests
from app.privacy.words import count
from app.secret import load_secret
from app.tables import ErasureRequest

app = typer.Typer(help="Erasure requests, their evidence, and who is told of them.", no_args_is_help=True)
app.add_typer(connections.app, name="connections")
app.add_typer(reports.app, name="reports")
app.add_typer(deliveries.app, name="deliveries")
app.command("evidence")(evidence.evidence)
app.command("verify")(evidence.verify)
app.command("key")(evidence.key)


@app.command("list")
def list_(
    state: Annotated[str | None, typer.Option(help=f"Only those that are {', '.join(REQUEST_STATES)}.")] = None,
    late: Annotated[bool, typer.Option("--late", help="Only those that aren't done though they should be.")] = False,
    by_deadline: Annotated[
        bool, typer.Option("--by-deadline", help="The next deadline first, and what is done or cancelled last.")
    ] = False,
    limit: Annotated[int, typer.Option(min=1, max=1000, help="The most to show.")] = 50,
) -> None:
    """Show requests, the newest first, and what is late or stuck."""
    if state is not None and state not in REQUEST_STATES:
        raise typer.BadParameter(f"{state} isn't a state; they are {', '.join(REQUEST_STATES)}")
    now = datetime.now(UTC)
    with opened() as (_, database), transaction(database, writes=False) as session:
        page = catalog.list_requests(
            session,
            now=now,
            state=state,
            late=late,
            order="deadline" if by_deadline else "newest",
            limit=limit,
            offset=0,
        )
        counts = catalog.count_requests(session, now=now)
    table = Table(Column("request", no_wrap=True), "caller's id", "state", "found", "due")
    for row in page.items:
        table.add_row(
            row.id,
            escape(row.caller_id) + ("" if row.source == catalog.NATIVE else f" ({row.source})"),
            _state(row),
            "" if row.units is None else count(row.units, "unit"),
            _due(row, now),
        )
    console.print(table)
    console.print(
        f"{count(page.total, 'request')}; {counts.late:,} late, {counts.stuck:,} stuck, "
        f"{counts.by_state['failed']:,} failed.",
        highlight=False,
    )


@app.command()
def show(request: Annotated[str, typer.Argument(help="Id of the request, ours.")]) -> None:
    """Show a request, and what was told of it."""
    now = datetime.now(UTC)
    with opened() as (_, database), transaction(database, writes=False) as session:
        row = catalog.get_request_of_id(session, request)
        sent = catalog.list_deliveries(session, request=request, limit=1000, offset=0).items
    facts = {
        "source": f"{row.source}, {row.protocol}",
        "caller's id": row.caller_id,
        "state": _state(row),
        "outcome": row.outcome,
        "found": None if row.units is None else f"{count(row.units, 'unit')}, {count(row.documents or 0, 'document')}",
        "mode": row.mode,
        "report": row.report + (", verified" if row.verify else ""),
        "regulation": row.regulation,
        "received": f"{row.received_at:%Y-%m-%d %H:%M}",
        "due": _due(row, now),
        "problem": row.failure,
        "finished": None if row.finished_at is None else f"{row.finished_at:%Y-%m-%d %H:%M}",
    }
    table = Table(show_header=False)
    for name, value in facts.items():
        if value is not None:
            table.add_row(name, value if name in {"state", "due"} else escape(value))
    console.print(table)
    for one in sent:
        last = "" if one.last_status is None else f", last answer {one.last_status}"
        console.print(
            f"{one.kind} to {one.host}: {one.state} after {one.attempts} attempts{last}", highlight=False, markup=False
        )
    if row.state == "completed":
        console.print(f"Evidence: neverseen privacy evidence {row.id}", highlight=False)


@app.command()
def retry(request: Annotated[str, typer.Argument(help="Id of the request, ours.")]) -> None:
    """Have a failed request worked on again, once what kept it from being done is mended."""
    with opened() as (settings, database):
        row = Requests(database, load_secret(settings)).retry(local_actor(), request)
    console.print(f"Request {row.id} is {row.state} again; a running service or worker takes it.", highlight=False)


@app.command()
def cancel(request: Annotated[str, typer.Argument(help="Id of the request, ours.")]) -> None:
    """Cancel a request that nobody has begun with."""
    with opened() as (settings, database):
        requests = Requests(database, load_secret(settings))
        found = requests.find(request)
        requests.cancel(local_actor(), found.source, found.caller_id)
    console.print(f"Request {found.id} is cancelled.", highlight=False)


def _state(row: ErasureRequest) -> str:
    if row.stage is not None:
        return row.stage
    return row.state.replace("_", " ") + (f" ({row.attempts} attempts)" if row.attempts else "")


def _due(row: ErasureRequest, now: datetime) -> str:
    day = f"{row.due_at:%Y-%m-%d}"
    if row.state in ("completed", "cancelled"):
        return day
    days = (row.due_at - now).days
    return f"[bold red]{day}, {-days} days late[/]" if row.due_at < now else f"{day}, in {days} days"
