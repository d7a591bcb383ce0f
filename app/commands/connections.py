"""``neverseen privacy connections``: who may send requests, and who is told of them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any, get_args

import typer
from rich.markup import escape
from rich.table import Table

from app import catalog
from app.commands import console, opened
from app.db import transaction
from app.errors import InvalidTextError
from app.privacy.connections import (
    MadeConnection,
    change_options,
    make_connection,
    replace_certificate,
    rotate_credential,
    rotate_webhook_secret,
)
from app.privacy.options import options_of
from app.schemas.connections import PROTOCOLS, ConnectionSecrets, Protocol
from app.secret import load_secret

app = typer.Typer(help="Connect privacy backends.", no_args_is_help=True)

Name = Annotated[str, typer.Argument(help="Name of the connection.")]
Options = Annotated[
    list[str] | None,
    typer.Option(
        "--option", help="NAME=VALUE, such as url=https://…; a value that is JSON is read as JSON. Repeatable."
    ),
]
KeyFile = Annotated[Path | None, typer.Option(help="PEM file of the private key that answers are signed with.")]
CertificateFile = Annotated[Path | None, typer.Option(help="PEM file of its certificate, and then its issuers'.")]


@app.command()
def add(
    name: Name,
    protocol: Annotated[str, typer.Option(help=f"One of {', '.join(PROTOCOLS)}.")],
    option: Options = None,
    private_key: KeyFile = None,
    certificate: CertificateFile = None,
    token_file: Annotated[Path | None, typer.Option(help="File with what we show to the peer.")] = None,
) -> None:
    """Make a connection, and show once what its peer has to be told."""
    if protocol not in PROTOCOLS:
        raise typer.BadParameter(f"{protocol} isn't a protocol; they are {', '.join(PROTOCOLS)}")
    known: Protocol = next(one for one in get_args(Protocol) if one == protocol)
    secrets = ConnectionSecrets(
        private_key=None if private_key is None else private_key.read_text(encoding="ascii"),
        certificate=None if certificate is None else certificate.read_text(encoding="ascii"),
        token=None if token_file is None else token_file.read_text(encoding="utf-8").strip(),
    )
    with opened() as (settings, database):
        secret = load_secret(settings)
        with transaction(database) as session:
            made = make_connection(
                session, secret, name=name, protocol=known, options=_options(option), secrets=secrets
            )
    _say(made, "is made")


@app.command("list")
def list_() -> None:
    """Show the connections, without their secrets."""
    table = Table("connection", "protocol", "mode", "report", "state", "options")
    with opened() as (_, database), transaction(database, writes=False) as session:
        rows = catalog.list_connections(session, limit=1000, offset=0).items
    for row in rows:
        common = options_of(row.protocol, row.options)
        plain = {
            name: value
            for name, value in row.options.items()
            if name not in {"mode", "report"} and value != type(common).model_fields[name].get_default()
        }
        table.add_row(
            row.name,
            row.protocol,
            common.mode,
            common.report,
            "enabled" if row.disabled_at is None else escape(f"disabled {row.disabled_reason}"),
            escape(json.dumps(plain)),
        )
    console.print(table)


@app.command()
def change(name: Name, option: Options = None) -> None:
    """Change options of a connection; the others stay as they are."""
    with opened() as (settings, database):
        secret = load_secret(settings)
        with transaction(database) as session:
            made = change_options(session, secret, name, _options(option))
    _say(made, "is changed")


@app.command()
def rotate(
    name: Name,
    credential: Annotated[bool, typer.Option("--credential", help="Make another credential for the peer.")] = False,
    webhook_secret: Annotated[bool, typer.Option("--webhook-secret", help="Sign with another secret.")] = False,
    drop: Annotated[bool, typer.Option("--drop", help="The secret before signs no more, not even once more.")] = False,
    private_key: KeyFile = None,
    certificate: CertificateFile = None,
) -> None:
    """Put another credential, secret, or key with its certificate in place of the one before."""
    with opened() as (settings, database):
        secret = load_secret(settings)
        with transaction(database) as session:
            match credential, webhook_secret, private_key, certificate:
                case True, False, None, None:
                    made = rotate_credential(session, secret, name)
                case False, True, None, None:
                    made = rotate_webhook_secret(session, secret, name, keep=not drop)
                case False, False, Path(), Path():
                    made = replace_certificate(
                        session,
                        secret,
                        name,
                        private_key=private_key.read_text(encoding="ascii"),
                        certificate=certificate.read_text(encoding="ascii"),
                    )
                case _:
                    raise typer.BadParameter(
                        "give one of --credential, --webhook-secret, --private-key with --certificate"
                    )
    _say(made, "is changed")


@app.command()
def disable(name: Name) -> None:
    """Let a connection neither be called nor call."""
    with opened() as (_, database), transaction(database) as session:
        catalog.disable_connection(session, name, "by an administrator")
    console.print(f"Connection {name} is disabled.", highlight=False)


@app.command()
def enable(name: Name) -> None:
    """Take that back."""
    with opened() as (_, database), transaction(database) as session:
        catalog.enable_connection(session, name)
    console.print(f"Connection {name} is enabled.", highlight=False)


def _options(given: list[str] | None) -> dict[str, Any]:
    """Options of the command line: NAME=VALUE each, where VALUE is JSON or else a string.

    Raises:
        InvalidTextError: one has no "=".
    """
    options: dict[str, Any] = {}
    for one in given or ():
        name, equals, value = one.partition("=")
        if not equals:
            raise InvalidTextError(f"The option {name} has no value: write {name}=VALUE.")
        try:
            options[name.replace("-", "_")] = json.loads(value)
        except ValueError:
            options[name.replace("-", "_")] = value
    return options


def _say(made: MadeConnection, what: str) -> None:
    console.print(f"Connection {made.row.name} ({made.row.protocol}) {what}.", highlight=False)
    shown = {
        "Its peer shows this in Authorization: Bearer": made.credential,
        "Its messages are signed with this secret": made.webhook_secret,
    }
    for words, value in shown.items():
        if value is not None:
            console.print(f"{words}. It is shown now, and never again:\n", highlight=False)
            console.out(value, highlight=False)
