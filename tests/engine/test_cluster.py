"""What a cluster says of its workers, without one: nodes that come and go are played."""

from __future__ import annotations

from types import ModuleType

import pytest

from engine.cluster import Cluster


def test_workers_that_are_lost_are_told_once(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    cluster = Cluster(ModuleType("ray"))
    slots, there = 4, iter((4, 3, 3, 0, 0, 0, 2, 2, 1))
    monkeypatch.setattr(cluster, "workers", lambda device: next(there))
    for _ in range(9):
        slots = cluster.counted("cpu", slots)
    assert [record.getMessage() for record in caplog.records] == [
        "1 of 4 workers were lost; what they worked on is begun anew.",
        "3 of 3 workers were lost; this waits for others.",
        "1 of 2 workers were lost; what they worked on is begun anew.",
    ]
