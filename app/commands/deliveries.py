"""``neverseen privacy deliveries``: what was told to peers, and what couldn't be; some of it sent once more."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated

import typer
from rich.table import Table

from app import catalog
from app.catalog import DELIVERY_STATES
from app.commands import console, opened
from app.db import transaction

app = typer.Typer(help="List and replay what is told to peers.")

_SHOWN: tuple[str, ...] = (
    "id",
    "request_id",
    "number",
    "connection",
    "kind",
    "host",
    "state",
    "attempts",
    "last_status",
    "last_error",
    "created_at",
    "next_at",
    "finished_at",
)

State = Annotated[str | None, typer.Option(help=f"Only those in this state: {', '.join(DELIVERY_STATES)}.")]
Connection = Annotated[str | None, typer.Option(help="Only those of this connection.")]
Limit = Annotated[int, typer.Option(min=1, max=1000, help="The most to show.")]
DeliveryId = Annotated[str, typer.Argument(help="Id of the delivery, msg_….")]


@app.callback(invoke_without_command=True)
def deliveries(context: typer.Context) -> None:
    """List and replay what is told to peers."""
    if context.invoked_subcommand is None:
        list_()


@app.command("list")
def list_(state: State = None, connection: Connection = None, limit: Limit = 50) -> None:
    """Show deliveries, the newest first."""
    if state is not None and state not in DELIVERY_STATES:
        raise typer.BadParameter(f"{state} isn't a state; they are {', '.join(DELIVERY_STATES)}")
    table = Table("delivery", "connection", "kind", "host", "state", "attempts", "last", "next")
    with opened() as (_, database), transaction(database, writes=False) as session:
        page = catalog.list_deliveries(session, state=state, connection=connection, limit=limit, offset=0)
        for row in page.items:
            table.add_row(
                row.id,
                row.connection,
                row.kind,
                row.host,
                row.state,
                str(row.attempts),
                row.last_error or ("" if row.last_status is None else str(row.last_status)),
                f"{row.next_at:%Y-%m-%d %H:%M:%S}" if row.state == "pending" else "",
            )
    console.print(table)
    if page.total > len(page.items):
        console.print(f"{page.total - len(page.items):,} more.", highlight=False)


@app.command()
def show(delivery: DeliveryId) -> None:
    """Show how a delivery goes."""
    with opened() as (_, database), transaction(database, writes=False) as session:
        row = catalog.get_delivery(session, delivery)
    for name in _SHOWN:
        value = getattr(row, name)
        text = "" if value is None else f"{value:%Y-%m-%d %H:%M:%S}" if isinstance(value, datetime) else str(value)
        console.print(f"{name.replace('_', ' '):<12} {text}", highlight=False, markup=False, soft_wrap=True)


@app.command()
def replay(
    delivery: Annotated[str | None, typer.Argument(help="Id of the delivery, msg_….")] = None,
    all_dead: Annotated[bool, typer.Option("--all-dead", help="All that were given up.")] = False,
    connection: Annotated[str | None, typer.Option(help="With --all-dead: only those of this connection.")] = None,
) -> None:
    """Send once more what arrived or was given up, under the same id; running services do so within a second."""
    if (delivery is None) == (not all_dead) or (connection is not None and not all_dead):
        raise typer.BadParameter("give the id of a delivery, or --all-dead")
    with opened() as (_, database), transaction(database) as session:
        if delivery is not None:
            row = catalog.replay_delivery(session, delivery, now=datetime.now(UTC))
            told = f"Delivery {row.id} to {row.host} waits to be sent."
        else:
            count = catalog.replay_dead(session, connection=connection, now=datetime.now(UTC))
            told = f"{count:,} deliveries wait to be sent."
    console.print(told, highlight=False, soft_wrap=True)
