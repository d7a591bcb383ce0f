"""``neverseen keys``: who may ask what."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Annotated

import typer
from rich.table import Table

from app import catalog
from app.access import new_key
from app.catalog import SCOPES
from app.commands import console, opened
from app.db import transaction
from app.schemas.keys import MOST_DECIMALS
from app.secret import load_secret

app = typer.Typer(help="Make, list and revoke API keys.", no_args_is_help=True)


@app.command()
def create(
    name: Annotated[str, typer.Argument(help="What the key is called.")],
    given: Annotated[
        list[str], typer.Option("--scope", help=f"What it may be used for: {', '.join(SCOPES)}; repeatable.")
    ],
    expires_days: Annotated[int | None, typer.Option(min=1, max=36_500, help="Days until it ends.")] = None,
    requests_per_minute: Annotated[
        int | None, typer.Option(min=1, max=1_000_000, help="By default NEVERSEEN_REQUESTS_PER_MINUTE.")
    ] = None,
    decimals: Annotated[
        int | None, typer.Option(min=0, max=MOST_DECIMALS, help="Round numbers in answers to so many.")
    ] = None,
    text: Annotated[
        list[str] | None, typer.Option(help="Allow the loss of this text, and nothing that isn't listed; repeatable.")
    ] = None,
) -> None:
    """Make a key, and show it once."""
    unknown = set(given) - set(SCOPES)
    if unknown:
        raise typer.BadParameter(f"{min(unknown)} isn't a scope; they are {', '.join(SCOPES)}")
    prefix, key = new_key()
    with opened() as (settings, database):
        hashed = load_secret(settings).key_hash(key)
        with transaction(database) as session:
            row = catalog.add_key(
                session,
                prefix=prefix,
                name=name,
                hash=hashed,
                scopes=[scope for scope in SCOPES if scope in given],
                expires_at=None if expires_days is None else datetime.now(UTC) + timedelta(days=expires_days),
                requests_per_minute=requests_per_minute,
                decimals=decimals,
                measurements=[{"kind": "loss", "text": one} for one in text] if text else None,
            )
    ends = "never ends" if row.expires_at is None else f"ends on {row.expires_at:%Y-%m-%d}"
    console.print(f"Key {prefix} ({name}): {', '.join(row.scopes)}; {ends}. It is shown now, and never again:\n")
    console.out(key, highlight=False)  # alone on its line, unbroken


@app.command("list")
def list_() -> None:
    """Show the keys, without the keys themselves."""
    table = Table("key", "name", "state", "scopes", "limits", "last used", "expires")
    with opened() as (_, database), transaction(database, writes=False) as session:
        for row in catalog.list_keys(session, limit=1000, offset=0).items:
            limits = {
                "{:,} a minute": row.requests_per_minute,
                "{} decimals": row.decimals,
                "{} measurements": None if row.measurements is None else len(row.measurements),
            }
            table.add_row(
                row.prefix,
                row.name,
                row.state,
                "all" if len(row.scopes) == len(SCOPES) else " ".join(row.scopes),
                ", ".join(words.format(limit) for words, limit in limits.items() if limit is not None),
                _moment(row.last_used_at),
                _moment(row.expires_at),
            )
    console.print(table)


@app.command()
def revoke(prefix: Annotated[str, typer.Argument(help="What the key begins with, behind nvs_.")]) -> None:
    """End a key: running services refuse it within seconds."""
    with opened() as (_, database), transaction(database) as session:
        row = catalog.revoke_key(session, prefix)
    console.print(f"Key {prefix} ({row.name}) is revoked.", highlight=False)


def _moment(moment: datetime | None) -> str:
    return "" if moment is None else f"{moment:%Y-%m-%d %H:%M}"
