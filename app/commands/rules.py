"""What the options --contains, --matches, --document and --unit choose, for the commands that take them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, TypeVar

import typer

from app.catalog import ByDocuments, ByUnits, Containing, Matching, SubsetRule

Rule = TypeVar("Rule")

Contains = Annotated[str | None, typer.Option(help="Units with a document that contains this.")]
Matches = Annotated[str | None, typer.Option(help="Units with a document that this expression matches.")]
DocumentNumbers = Annotated[list[int] | None, typer.Option("--document", help="Document number; repeatable.")]
UnitNames = Annotated[list[str] | None, typer.Option("--unit", help="Name of a unit; repeatable.")]


def rules_of(
    *, contains: str | None, matches: str | None, documents: list[int] | None, units: list[str] | None
) -> list[SubsetRule]:
    """The rules that were given."""
    rules: list[SubsetRule] = []
    if contains is not None:
        rules.append(Containing(contains))
    if matches is not None:
        rules.append(Matching(matches))
    if documents:
        rules.append(ByDocuments(documents))
    if units:
        rules.append(ByUnits(units))
    return rules


def exactly_one(rules: Sequence[Rule], options: str) -> Rule:
    """The rule, where there is one and no other.

    Args:
        rules: that were given.
        options: that give one, for the message.

    Raises:
        BadParameter: there are none, or several.
    """
    if len(rules) != 1:
        raise typer.BadParameter(f"give exactly one of {options}")
    return rules[0]
