"""Which sets to retrain beside the ordinary run.

First, where the sketch has axes, every unit alone; then, where it has pairs, every two units; then the *anchors* of the
calibration, by turns random and coherent. A coherent set holds units with a document that shares a piece of text: the
beginning, the end, or any piece of one or two characters of a randomly chosen document; all of them, or some, thinned
at random. Everything follows from the documents and a seed.

An anchor tells something only if it is the one of its set, and if its set isn't answered exactly anyway (`telling`): a
twin would be foretold by its own truth, and what is exact by nature has no error to learn from.
"""

from __future__ import annotations

import functools
import itertools
import math
import random
from collections.abc import Sequence
from typing import Final

from engine.documents import Documents

DRAWING: Final = 2
"""Which way of drawing anchors this is: another gives other sets from the same seed. Of the first, some were twins."""

LARGEST_RANDOM = 0.25
"""Of all units: the size of the largest random anchor, where there are enough of such."""

THINNEST = 0.4
"""Of a coherent set: the least share that thinning leaves."""

_TRIES: Final = 50


def exact_size(*, pairs: bool) -> int:
    """Sets of so many units, or fewer, are answered exactly where there are axes."""
    return 2 if pairs else 1


def pair_count(units: int) -> int:
    """Of two different units among `units`."""
    return math.comb(units, 2)


def pairs(units: int) -> list[tuple[int, ...]]:
    """Every two units, the first one's pairs first."""
    return list(itertools.combinations(range(units), 2))


def telling(sets: Sequence[tuple[int, ...]], *, exact: int) -> list[int]:
    """Which of some anchors tell something: of those that are equal the first, and of more than `exact` units."""
    first = {units: number for number, units in reversed(list(enumerate(sets))) if len(units) > exact}
    return sorted(first.values())


def anchor_sets(documents: Documents, *, count: int, seed: int, exact: int) -> list[tuple[int, ...]]:
    """Deletion sets, by turns random and coherent; none is empty or everything.

    All of them tell something (`telling`), unless there are so few units that no other set is found. Where nothing
    coherent is found any more, a random set takes the turn, at last one of any size.

    Args:
        documents: at least two units.
        count: A, how many sets.
        seed: of the choice.
        exact: sets of so many units, or fewer, are answered exactly anyway.

    Returns:
        Sorted unit numbers of every set.
    """
    generator, units = random.Random(seed), documents.unit_count
    smallest = max(1, min(exact + 1, units - 1))
    largest = max(smallest, int(LARGEST_RANDOM * units))
    by_chance = functools.partial(_random_set, units, generator, smallest, largest)
    of_any_size = functools.partial(_random_set, units, generator, smallest, units - 1)
    coherent = functools.partial(_coherent_set, documents, generator)
    at_random = _TRIES * [by_chance] + _TRIES * [of_any_size]
    turns = itertools.cycle([at_random, _TRIES * [coherent] + at_random])
    known: set[tuple[int, ...]] = set()
    sets = []
    for tries in itertools.islice(turns, count):
        for draw in tries:
            drawn = draw()
            if exact < len(drawn) < units and drawn not in known:
                break
        known.add(drawn)
        sets.append(drawn)
    return sets


def _random_set(units: int, generator: random.Random, smallest: int, largest: int) -> tuple[int, ...]:
    size = round(math.exp(generator.uniform(math.log(smallest), math.log(largest))))  # as many small sets as large ones
    return tuple(sorted(generator.sample(range(units), size)))


def _coherent_set(documents: Documents, generator: random.Random) -> tuple[int, ...]:
    """A draw, which may turn out to be nothing or everything."""
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
    return tuple(unit for unit in units if generator.random() < kept)


def _has(text: str, place: str, piece: str) -> bool:
    if place == "start":
        return text.startswith(piece)
    return text.endswith(piece) if place == "end" else piece in text
