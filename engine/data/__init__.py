"""The data that come with the package; their provenance is in README.md beside them."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.resources import files
from typing import Literal, TypeAlias

from engine.documents import Documents, parse_documents

SUBJECTS = 200
"""Made-up subjects of `census_subjects`."""

TASTE = 0.8
"""The share of a subject's further names that are drawn to its taste."""

_SUBJECTS_SEED = 1990


def census_names() -> Documents:
    """The 5,163 first names of the 1990 US Census lists, shuffled once and for all."""
    return parse_documents(files(__name__).joinpath("census_names.txt").read_text(encoding="utf-8"))


def census_subjects() -> Documents:
    """The first 1,000 of `census_names`, given to 200 made-up subjects who have a taste in names.

    Texts and training order are those of ``census_names().first(1000)``: only the units differ. The rule is in
    README.md beside this file. It draws by ``random.Random.random`` alone, whose numbers Python keeps the same in all
    versions.
    """
    generator = random.Random(_SUBJECTS_SEED)
    sizes = [1 + 300 // (rank + 11) for rank in range(SUBJECTS)]
    numbers = sorted(range(SUBJECTS), key=lambda _: generator.random())
    texts = census_names().texts[: sum(sizes)]
    owners: dict[str, str] = {}
    remaining = list(texts)
    for size, number in zip(sizes, numbers, strict=True):
        for text in _names_of_a_subject(generator, remaining, size):
            owners[text] = f"subject-{number:03d}"
    return Documents.from_records((text, owners[text]) for text in texts)


def _names_of_a_subject(generator: random.Random, remaining: list[str], size: int) -> list[str]:
    """Take a subject's names from those that remain: most are like the first, or like a later one once none is left."""
    names: list[str] = []
    liked: list[str] = []
    taste, model = _initial, ""
    while len(names) < size:
        follows = generator.random() < TASTE
        names.append(_drawn(generator, liked if liked and follows else remaining))
        remaining.remove(names[-1])
        if not liked:
            taste = _initial if generator.random() < 1 / 2 else _ending
            model = names[-1]
        liked = [text for text in remaining if taste(text) == taste(model)]
    return names


def _drawn(generator: random.Random, texts: Sequence[str]) -> str:
    return texts[int(generator.random() * len(texts))]


def _initial(text: str) -> str:
    return text[0]


def _ending(text: str) -> str:
    return text[-2:]


BundledName: TypeAlias = Literal["census-names", "census-subjects"]


@dataclass(frozen=True, kw_only=True)
class Bundled:
    """Data that come with the package, and what they are, for people."""

    load: Callable[[], Documents]
    description: str


BUNDLED: dict[BundledName, Bundled] = {
    "census-names": Bundled(load=census_names, description="First names of the 1990 US Census lists, public domain"),
    "census-subjects": Bundled(
        load=census_subjects, description="First names of the 1990 US Census lists, given to made-up subjects"
    ),
}
"""By the names that they have in a catalog."""
