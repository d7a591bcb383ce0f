"""``neverseen privacy verify | key | evidence``: what was filed of a request, and whether it is as it was signed."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from app import catalog
from app.commands import console, opened
from app.db import transaction
from app.errors import ConflictError
from app.privacy.page import evidence_page
from app.privacy.proof import NOT_KNOWN, PROVEN, verify_evidence
from app.privacy.signing_key import as_pem, fingerprint, load_signing_key, own_public_key, public_keys
from app.settings import Settings


def verify(
    file: Annotated[Path, typer.Argument(help="Of signed evidence, JSON.")],
    key: Annotated[
        list[Path] | None,
        typer.Option(help="Public key in PEM that should have signed it, by default this installation's; repeatable."),
    ] = None,
) -> None:
    """Verify evidence, without the catalog and without a network.

    The exit code is 0 where the evidence is intact and by a key that it was compared with; 1 where it isn't; 2 where
    that can't be told: there is no key to compare with, or the file can't be read.
    """
    if key:
        trusted = [one for path in key for one in public_keys(path.read_bytes())]
    else:
        own = own_public_key(Settings())
        trusted = [] if own is None else [own]
    try:
        text = file.read_text(encoding="utf-8")
    except UnicodeDecodeError:
        _say("Not intact. It isn't UTF-8.")
        raise typer.Exit(1) from None
    verdict = verify_evidence(text, trusted)
    if verdict.evidence is None:
        _say("Not intact.")
        for fault in verdict.faults:
            _say(fault)
        raise typer.Exit(verdict.exit_code)
    evidence, signer = verdict.evidence, verdict.key_fingerprint
    _say(f"Request {evidence.request.id}, {evidence.made_at:%Y-%m-%d %H:%M} UTC: {evidence.sentence}")
    if verdict.trusted:
        _say(f"Intact, and signed by {'the key given' if key else 'this installation'}: {signer}")
    elif key:
        _say(f"Intact, but not signed by {'the key' if len(trusted) == 1 else 'a key'} given: signed by {signer}")
    else:
        _say(f"Intact, signed by {signer}{'' if own is None else ', which is not the key of this installation'}.")
        _say(
            "Whose key that is isn't known: the file brings it along, and anybody can sign with a key of their own. "
            "Compare with one that you had from its owner: --key FILE."
        )
    # A key that this installation has now isn't the one that it had before a rotation: that isn't known to be foreign.
    raise typer.Exit(PROVEN if verdict.trusted else verdict.exit_code if key else NOT_KNOWN)


def key() -> None:
    """Print the public key that evidence is signed with, for whoever verifies it; where there is none, one is made."""
    public = load_signing_key(Settings()).public_key()
    typer.echo(as_pem(public), nl=False)
    typer.echo(f"Fingerprint: {fingerprint(public)}", err=True)


def evidence(
    request: Annotated[str, typer.Argument(help="Id of the request, ours.", metavar="ID")],
    html: Annotated[bool, typer.Option(help="The sheet for people, in place of the signed file.")] = False,
    output: Annotated[Path | None, typer.Option(help="File to write; by default standard output.")] = None,
) -> None:
    """Hand out what was filed of a request."""
    with opened() as (_, database), transaction(database, writes=False) as session:
        row = catalog.get_request_of_id(session, request)
        text, state = row.evidence, row.state
    if text is None or state != "completed":  # what is filed says that it is erased, before it is
        raise ConflictError(f"The request is {state.replace('_', ' ')}: there is no evidence yet.")
    filed = evidence_page(text) if html else text
    if output is None:
        typer.echo(filed, nl=not html)
    else:
        output.write_text(filed, encoding="utf-8")


def _say(sentence: str) -> None:
    console.print(sentence, highlight=False, markup=False, soft_wrap=True)
