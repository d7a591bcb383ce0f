"""The bundled data: the names given to made-up subjects follow the rule that their README states."""

from __future__ import annotations

import itertools
import random
from collections import Counter

from engine.data import BUNDLED, census_names, census_subjects
from engine.documents import Documents

FINGERPRINT = "826b67f898119056fa52a1f2f9118a91194946a8f709d5a340145d6b9b35c1c0"


def names_by_subject(documents: Documents) -> dict[str, list[str]]:
    names: dict[str, list[str]] = {name: [] for name in documents.unit_names}
    for text, unit in zip(documents.texts, documents.unit_of, strict=True):
        names[documents.unit_names[unit]].append(text)
    return names


def test_the_subjects_are_the_same_on_every_run_and_machine() -> None:
    assert census_subjects().fingerprint == FINGERPRINT
    assert census_subjects() == census_subjects()


def test_texts_and_order_are_those_of_the_first_names() -> None:
    documents = census_subjects()
    assert documents.texts == census_names().texts[:1000]
    assert documents.has_subjects
    assert set(documents.unit_names) == {f"subject-{number:03d}" for number in range(200)}


def test_a_few_subjects_have_many_names_and_most_have_few() -> None:
    sizes = sorted((len(names) for names in names_by_subject(census_subjects()).values()), reverse=True)
    assert sizes[:5] == [28, 26, 24, 22, 21]
    assert sum(2 <= size <= 5 for size in sizes) == 150
    assert min(sizes) == 2


def test_training_order_interleaves_the_subjects() -> None:
    unit_of = census_subjects().unit_of
    assert sum(one == other for one, other in itertools.pairwise(unit_of)) < 20  # by chance: 10


def test_subjects_have_a_taste() -> None:
    def alike(names: list[str]) -> int:
        """How many of the names share the most frequent initial or ending."""
        return max(max(Counter(part).values()) for part in ([n[0] for n in names], [n[-2:] for n in names]))

    documents = census_subjects()
    names = names_by_subject(documents).values()
    shuffled = list(documents.texts)
    random.Random(0).shuffle(shuffled)
    foreign = iter(shuffled)
    by_chance = [[next(foreign) for _ in own] for own in names]
    assert sum(map(alike, names)) > 800
    assert sum(map(alike, by_chance)) < 500


def test_the_readme_states_the_rule() -> None:
    """Its three steps, once more and written otherwise."""
    draw = random.Random(1990).random
    sizes = [1 + 300 // (rank + 11) for rank in range(200)]
    keys = [draw() for _ in range(200)]
    numbers = sorted(range(200), key=keys.__getitem__)
    free = list(census_names().first(1000).texts)
    expected: dict[str, list[str]] = {}
    for size, number in zip(sizes, numbers, strict=True):
        own = expected[f"subject-{number:03d}"] = []
        to_taste: list[str] = []
        part = slice(0, 1)
        wanted = ""
        while len(own) < size:
            choice = to_taste if draw() < 0.8 and to_taste else free
            name = choice[int(draw() * len(choice))]
            if not to_taste:
                part = slice(0, 1) if draw() < 0.5 else slice(-2, None)
                wanted = name[part]
            own.append(name)
            free.remove(name)
            to_taste = [text for text in free if text[part] == wanted]
    assert {subject: set(names) for subject, names in names_by_subject(census_subjects()).items()} == {
        subject: set(names) for subject, names in expected.items()
    }


def test_bundled_data_are_loaded_by_name() -> None:
    assert {name: BUNDLED[name].load().unit_count for name in BUNDLED} == {"census-names": 5163, "census-subjects": 200}
