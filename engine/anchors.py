"""Which sets to retrain beside the ordinary run.

First, where the sketch has axes, every unit alone; then, where it has pairs, every two units; then the *anchors* of the
calibration, by turns random and coherent. A coherent set holds units with a document that shares a piece of text: the
beginning, the end, or any piece of one or two characters of a randomly chosen document; all of them, or some, thinned
at random. Everything follows from the documents and a seed.
"""

from __future__ import annotations

import itertools
import math
import random

from engine.documents import Documents

LARGEST_RANDOM = 0.25
"""Of all units: the size of the largest random anchor."""

THINNEST = 0.4
"""Of a coherent set: the least share that thinning leaves."""

_TRIES = 50


def pair_count(units: int) -> int:
    """Of two different units among `units`."""
    return math.comb(units, 2)


def pairs(units: int) -> list[tuple[int, ...]]:
    """Every two units, the first one's pairs first."""
    return list(itertools.combinations(range(units), 2))


def anchor_sets(documents: Documents, *, count: int, seed: int) -> list[tuple[int, ...]]:
    """Deletion sets, by turns random and coherent; none is empty or everything.

    Args:
        documents: at least two units.
        count: A, how many sets.
        seed: of the choice.

    Returns:
        Sorted unit numbers of every set.
    """
    generator = random.Random(seed)
    return [
        _coherent_set(documents, generator) if number % 2 else _random_set(documents, generator)
        for number in range(count)
    ]


def _random_set(documents: Documents, generator: random.Random) -> tuple[int, ...]:
    largest = max(1, int(LARGEST_RANDOM * documents.unit_count))
    size = round(math.exp(generator.uniform(0, math.log(largest))))  # as many small sets as large ones
    return tuple(sorted(generator.sample(range(documents.unit_count), size)))


def _coherent_set(documents: Documents, generator: random.Random) -> tuple[int, ...]:
    for _ in range(_TRIES):
        text = generator.choice(documents.texts)
        length = min(generator.choice((1, 1, 2)), len(text))
        start = generator.randrange(len(text) - length + 1)
        place, piece = generator.choice(
            (("start", text[:length]), ("end", text[-length:]), ("inside", text[start : start + length]))
        )
        single = length == 1 and place != "end"  # a letter's own set stays free, to be evaluated on
        kept = generator.uniform(THINNEST, 1) if single or generator.random() < 1 / 2 else 1.0
        units = sorted(
            {unit for other, unit in zip(documents.texts, documents.unit_of, strict=True) if _has(other, place, piece)}
        )
        chosen = [unit for unit in units if generator.random() < kept]
        if 0 < len(chosen) < documents.unit_count:
            return tuple(chosen)
    return _random_set(documents, generator)  # every document is like every other


def _has(text: str, place: str, piece: str) -> bool:
    if place == "start":
        return text.startswith(piece)
    return text.endswith(piece) if place == "end" else piece in text
