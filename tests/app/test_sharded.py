"""Answers of shards, without a cluster: those of one are in tests/cluster."""

from __future__ import annotations

from app.sharded import ServeReply


class Failed:
    """A response of Ray Serve to a call that has failed: its `cancel` raises what the call failed with."""

    cancelled = False

    def cancel(self) -> None:
        self.cancelled = True
        raise RuntimeError("the replica can't be started")


def test_what_has_failed_already_is_cancelled_without_another_error() -> None:
    response = Failed()
    ServeReply(response).cancel()
    assert response.cancelled
