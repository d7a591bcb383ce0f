"""Strangers' regular expressions: what they match, and that they can't stop the server."""

from __future__ import annotations

import json
import re
import time

import pytest

from app.catalog.matching import MAX_PATTERN_LENGTH, matching
from app.catalog.search import answer
from app.errors import PatternError

TEXTS = ["max", "xena", "zoë", "日本", 'quo"te', "back\\slash"]


@pytest.mark.parametrize("pattern", ["x", "^x", "ë$", "日", r"\w{4}", '"', r"\\", "(?i)MAX", "[[a]", "nothing"])
def test_a_match_is_pythons_search(pattern: str) -> None:
    with pytest.warns() if pattern == "[[a]" else pytest.MonkeyPatch.context():  # Python warns of a possible set
        expected = [re.search(pattern, text) is not None for text in TEXTS]
    assert matching(pattern, TEXTS) == expected


def test_no_texts_match_nothing() -> None:
    assert matching("x", []) == []


def test_an_expression_of_exponential_time_is_given_up() -> None:
    started = time.monotonic()
    with pytest.raises(PatternError, match=r"took longer than 0\.5 s"):
        matching("(a|a)*b", ["a" * 60], limit_seconds=0.5)
    assert time.monotonic() - started < 5


@pytest.mark.parametrize("pattern", ["(", "*a", "a{99999999999999999999}", "(?P<n>a)(?P<n>b)", "\\"])
def test_an_invalid_expression_is_refused(pattern: str) -> None:
    with pytest.raises(PatternError, match="Not a regular expression: "):
        matching(pattern, TEXTS)


def test_a_long_expression_is_refused() -> None:
    assert matching("a" * MAX_PATTERN_LENGTH, TEXTS) == [False] * len(TEXTS)
    with pytest.raises(PatternError, match="longer than 200 characters"):
        matching("a" * (MAX_PATTERN_LENGTH + 1), TEXTS)


def test_the_program_answers_a_list_or_a_reason() -> None:
    assert answer(json.dumps(["a$", "ba", "ab"])) == [1, 0]
    assert answer(json.dumps(["[", "ba"])) == "unterminated character set at position 0"
