"""Work of several threads done together: each piece once, in few batches, and errors for those who asked."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

import pytest

from engine.batching import Batches
from engine.cache import ByteCache


def batches(
    make: Callable[[list[str]], list[str]], *, budget: int = 100, wait_seconds: float = 0.05
) -> Batches[str, str]:
    return Batches(ByteCache(budget, size=len), make, wait_seconds=wait_seconds)


def together(count: int, work: Callable[[int], None]) -> None:
    """Run the work in so many threads that begin at the same time."""
    barrier = threading.Barrier(count)

    def begin(number: int) -> None:
        barrier.wait()
        work(number)

    threads = [threading.Thread(target=begin, args=(number,)) for number in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def test_what_one_caller_asks_for_is_one_batch_each_key_once() -> None:
    made: list[list[str]] = []
    asked = batches(lambda keys: made.append(keys) or [key.upper() for key in keys])  # type: ignore[func-returns-value]
    assert asked.get(["a", "b", "a"]) == ["A", "B", "A"]
    assert asked.get(["b", "c"]) == ["B", "C"]
    assert made == [["a", "b"], ["c"]]


def test_what_comes_at_the_same_time_is_one_batch() -> None:
    made: list[list[str]] = []
    asked = batches(lambda keys: made.append(keys) or [key.upper() for key in keys], wait_seconds=2)  # type: ignore[func-returns-value]
    found: dict[int, list[str]] = {}
    together(8, lambda number: found.update({number: asked.get([f"own {number}", "shared"])}))
    assert found == {number: [f"OWN {number}", "SHARED"] for number in range(8)}
    assert len(made) == 1
    assert sorted(made[0]) == sorted(["shared", *(f"own {number}" for number in range(8))])


def test_what_comes_while_a_batch_is_made_is_the_next_one_and_what_is_being_made_is_waited_for() -> None:
    entered, go_on = threading.Event(), threading.Event()
    made: list[list[str]] = []

    def make(keys: list[str]) -> list[str]:
        made.append(keys)
        if keys == ["slow"]:
            entered.set()
            assert go_on.wait(30)
        return [key.upper() for key in keys]

    asked = batches(make, wait_seconds=0)
    found: dict[int, list[str]] = {}
    wanted = [["slow"], ["slow"], ["a", "slow"], ["b"]]
    threads = [
        threading.Thread(target=lambda number=number, keys=keys: found.update({number: asked.get(keys)}))
        for number, keys in enumerate(wanted)
    ]
    threads[0].start()
    assert entered.wait(30)
    for thread in threads[1:]:
        thread.start()
    while len(asked._open) < 2:  # noqa: SLF001 - till both are in the next batch
        time.sleep(0.001)
    go_on.set()
    for thread in threads:
        thread.join()
    assert found == {number: [key.upper() for key in keys] for number, keys in enumerate(wanted)}
    assert made[0] == ["slow"]
    assert sorted(made[1]) == ["a", "b"]
    assert len(made) == 2


def test_an_error_is_raised_for_all_who_waited_and_the_next_time_it_is_tried_again() -> None:
    tries: list[list[str]] = []

    def make(keys: list[str]) -> list[str]:
        tries.append(keys)
        if len(tries) == 1:
            raise LookupError("no")
        return keys

    asked = batches(make, wait_seconds=2)
    errors: list[str] = []

    def ask(number: int) -> None:
        with pytest.raises(LookupError) as error:
            asked.get([str(number)])
        errors.append(str(error.value))

    together(3, ask)
    assert errors == ["no"] * 3
    assert asked.get(["0"]) == ["0"]
    assert len(tries) == 2


def test_what_the_cache_does_not_keep_is_answered_all_the_same() -> None:
    asked = batches(lambda keys: [key * 9 for key in keys], budget=3)
    assert asked.get(["a"]) == ["aaaaaaaaa"]
    assert asked.get(["a"]) == ["aaaaaaaaa"]


def test_what_can_not_be_kept_is_an_error_for_all_who_waited() -> None:
    def size(value: str) -> int:
        raise ValueError(value)

    asked = Batches(ByteCache[str, str](100, size=size), lambda keys: keys, wait_seconds=2)
    errors: list[str] = []

    def ask(number: int) -> None:
        with pytest.raises(ValueError, match="own") as error:
            asked.get([f"own {number}"])
        errors.append(str(error.value))

    together(3, ask)
    assert len(errors) == 3
    assert not asked._promised  # noqa: SLF001


def test_what_was_made_just_now_is_not_made_again_nor_promised_twice() -> None:
    """Many threads ask for few keys again and again, from a cache that keeps nothing for long."""
    asked = batches(lambda keys: [key.upper() for key in keys], budget=2, wait_seconds=0)

    def ask(number: int) -> None:
        for turn in range(300):
            keys = [chr(ord("a") + (number + turn + step) % 5) for step in range(3)]
            assert asked.get(keys) == [key.upper() for key in keys]

    failed: list[BaseException] = []
    before = threading.excepthook
    threading.excepthook = lambda args: failed.append(args.exc_value or RuntimeError())
    try:
        together(6, ask)
    finally:
        threading.excepthook = before
    assert not failed
