"""A program: which texts does a regular expression match? JSON in, JSON out, see `matching`.

It is run in a process of its own and imports nothing but the standard library, so that it starts in some 20 ms.
"""

from __future__ import annotations

import json
import re
import sys


def answer(question: str) -> list[int] | str:
    """For each text 1 where the expression matches anywhere in it, else 0.

    Args:
        question: a JSON list: the expression, then the texts.

    Returns:
        As many numbers as there are texts; or, where the expression isn't one, why.
    """
    pattern, *texts = json.loads(question)
    try:
        expression = re.compile(pattern)
    except (re.error, OverflowError, RecursionError) as error:
        return str(error)
    return [int(expression.search(text) is not None) for text in texts]


if __name__ == "__main__":
    json.dump(answer(sys.stdin.read()), sys.stdout)
