"""A stranger who holds the catalog's locks: requests are refused in time, and hold nothing themselves afterwards."""

from __future__ import annotations

import itertools
import time
from pathlib import Path
from typing import Final

from sqlalchemy import select, text

from app.db import open_database, transaction
from app.settings import Settings
from app.tables import AuditChain
from tests.drills.processes import Load, serving, wait_until
from tests.drills.test_kills import check_audit, check_catalog, creations, promotions, question
from tests.drills.test_postgres_restart import HEALTH, LIST, PREDICT, WELL, check_refusal, gets

REQUEST_SECONDS: Final = 2.0


def test_writes_that_wait_for_a_lock_are_refused_in_time_and_hold_no_lock_afterwards(
    served: Settings, tmp_path: Path
) -> None:
    database = open_database(served)
    askers = [itertools.repeat(question("max")), creations(itertools.count()), promotions(2), gets(LIST), gets(HEALTH)]
    with serving(served, tmp_path / "log", request_seconds=REQUEST_SECONDS) as service:
        with Load(service, askers, pause_seconds=0.02) as asking:
            time.sleep(0.5)
            with transaction(database) as session:  # which on SQLite holds the only lock for writing
                session.execute(select(AuditChain).with_for_update())
                held = time.monotonic()
                time.sleep(2 * REQUEST_SECONDS)
                wait_until(lambda: both_are_answered(asking, held), "questions and lists are asked meanwhile")
                freed = time.monotonic()
            wait_until(lambda: all_is_well(asking, freed), "all is as before")
        for one in asking.asked:
            assert one.response is not None, one
            if one.status not in (*WELL, 404):  # where a dataset couldn't be made, it has no subsets
                check_refusal(one.response)
        meanwhile = [one for one in asking.asked if held < one.at and one.at + one.seconds < freed]
        assert {one.status for one in meanwhile if one.request.path == PREDICT} == {503}  # nobody waits for the lock
        assert {one.status for one in meanwhile if one.request.method == "GET"} == {200}
        with database.connect() as connection:
            if database.dialect.name == "postgresql":
                idle = "SELECT count(*) FROM pg_stat_activity WHERE state LIKE 'idle in transaction%'"
                wait_until(lambda: connection.scalar(text(idle)) == 0, "no transaction is left open")
        assert "Traceback" not in service.process.said
        service.process.stop()
    database.dispose()
    check_catalog(served)
    check_audit(served, asking.asked)


def both_are_answered(asking: Load, since: float) -> bool:
    """Whether predictions and what is only read were asked, and answered, since then."""
    of_late = [one.request for one in list(asking.asked) if one.at > since]
    return any(one.path == PREDICT for one in of_late) and any(one.method == "GET" for one in of_late)


def all_is_well(asking: Load, since: float) -> bool:
    """Whether everything was asked since then, and done of late."""
    late = [one for one in list(asking.asked) if one.at > max(since, time.monotonic() - 0.5)]
    return {one.request.method for one in late if one.status in WELL} == {"GET", "POST", "PUT"} and all(
        one.status in (*WELL, 404) for one in late
    )
