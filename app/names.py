"""What datasets, subsets and sketches may be called, and how foreign text is quoted in a message."""

from __future__ import annotations

import re
import reprlib
from typing import Final

from app.errors import InvalidTextError

NAME_PATTERN: Final = r"^[a-z0-9][a-z0-9._-]{0,63}$"
"""Names are parts of addresses and of command lines, so nothing in them needs quoting."""

_quoting = reprlib.Repr()
_quoting.maxstring = _quoting.maxother = 60
_quoting.maxlong = 24


def is_name(name: str) -> bool:
    """Whether something may be called so. What may not needn't be looked up; a database might not even take it."""
    return re.fullmatch(NAME_PATTERN[1:-1], name) is not None


def check_name(name: str, what: str) -> str:
    """The name itself, where it may be one.

    Args:
        name: of a dataset, subset or sketch.
        what: is named, for the message: "dataset".

    Raises:
        InvalidTextError: it doesn't follow `NAME_PATTERN`.
    """
    if not is_name(name):
        raise InvalidTextError(
            f"{shown(name)} can't name a {what}: use 1 to 64 small letters, digits, dots, dashes and underscores,"
            " beginning with a letter or a digit."
        )
    return name


def check_printable(text: str, what: str) -> str:
    """The text itself, where every database can store it: no NUL, no line break, no half of a surrogate pair.

    Raises:
        InvalidTextError: it holds an unprintable character.
    """
    unprintable = next((character for character in text if not character.isprintable()), None)
    if unprintable is not None:
        raise InvalidTextError(f"The {what} holds the unprintable character {unprintable!r}.")
    return text


def shown(value: object) -> str:
    """A value quoted for a message: shortened, and escaped where it isn't printable."""
    return _quoting.repr(value)
