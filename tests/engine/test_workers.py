"""Threads of a build: what has ended them, and that nobody waits for one that hangs."""

from __future__ import annotations

import threading
import time

import pytest

import engine.workers
from engine.workers import Report, train_blocks


def test_a_thread_that_waits_for_a_store_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine.workers, "_GRACE_SECONDS", 0.2)
    away, restored, hanging = threading.Event(), threading.Event(), list[threading.Thread]()

    def train(block: int, report: Report) -> None:
        if block == 0:
            hanging.append(threading.current_thread())
            away.set()
            restored.wait(30)
        else:
            away.wait(30)
            raise KeyboardInterrupt

    began = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        train_blocks(train, [0, 1], workers=2, threads=True, report=lambda work: None)
    assert time.monotonic() - began < 25
    assert [thread.daemon for thread in hanging] == [True]  # so that the program ends, too
    restored.set()
    hanging[0].join(10)
    assert not hanging[0].is_alive()


def test_an_error_of_one_block_ends_the_others_at_their_next_report() -> None:
    begun: list[int] = []

    def train(block: int, report: Report) -> None:
        begun.append(block)
        if block == 1:
            raise ValueError("no")
        until = time.monotonic() + 30
        while time.monotonic() < until:
            report(1)

    before = time.monotonic()
    with pytest.raises(ValueError, match=r"^no$"):
        train_blocks(train, range(100), workers=2, threads=True, report=lambda work: None)
    assert time.monotonic() - before < 25
    assert len(begun) < 5
