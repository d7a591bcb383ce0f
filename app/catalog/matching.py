"""Regular expressions of strangers, in a process of their own.

Python's expressions can take exponential time ("(a|a)*b"), can't be interrupted, and hold the interpreter meanwhile:
in the server's own process one of them would stop it. The program is `search`. It takes a core for up to three seconds:
how many run at once is for the caller to bound (`app.searching`).
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from app.errors import PatternError

MAX_PATTERN_LENGTH: Final = 200

_LIMIT_SECONDS: Final = 3.0
_PROGRAM: Final = Path(__file__).with_name("search.py")


def matching(pattern: str, texts: Sequence[str], *, limit_seconds: float = _LIMIT_SECONDS) -> list[bool]:
    """For each text, whether the expression matches anywhere in it.

    Args:
        pattern: Python's syntax (module re), at most `MAX_PATTERN_LENGTH` characters.
        texts: of any number and length.
        limit_seconds: after which the search is given up.

    Raises:
        PatternError: an expression that is too long, invalid, or takes too much time.
    """
    if len(pattern) > MAX_PATTERN_LENGTH:
        raise PatternError(f"The regular expression is longer than {MAX_PATTERN_LENGTH} characters.")
    try:
        searched = subprocess.run(  # noqa: S603 - the program is ours; the stranger's expression is its input
            [sys.executable, "-I", "-S", "-W", "ignore", _PROGRAM],
            input=json.dumps([pattern, *texts]),
            capture_output=True,
            encoding="ascii",
            timeout=limit_seconds,
            check=True,
        )
    except subprocess.TimeoutExpired:
        raise PatternError(
            f"The regular expression took longer than {limit_seconds:g} s; repeat nothing that itself repeats."
        ) from None
    answer: list[int] | str = json.loads(searched.stdout)
    if isinstance(answer, str):
        raise PatternError(f"Not a regular expression: {answer}.")
    return [bool(found) for found in answer]
