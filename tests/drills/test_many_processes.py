"""Four services on one catalog, all of which answer, import and promote at once: nothing is lost, nothing fails."""

from __future__ import annotations

import itertools
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Final

import pytest

from app import catalog
from app.db import open_database, transaction
from app.settings import Settings
from tests.drills.processes import Load, Request, serving, wait_until
from tests.drills.test_kills import check_audit, check_catalog, creations, questions

SERVICES: Final = 4
KINDS: Final = (("POST", "predict", 200), ("POST", "datasets", 201), ("PUT", "sketches", 200))
FEWEST: Final = 20
"""Of each kind, so that the drill shows something; of a short one, as many as it has seconds."""


def contested_promotions() -> Iterator[Request]:
    """Both versions in turn, each expecting the other: of several who do so at once, one wins."""
    for version in itertools.cycle((1, 2)):
        yield Request(method="PUT", path="/sketches/tiny/current", body={"version": version, "expected": 3 - version})


def statuses(asking: list[Load]) -> Counter[tuple[str, str, int | None]]:
    """How often each method had each status, by the beginning of its path."""
    asked = [one for load in asking for one in list(load.asked)]
    return Counter((one.request.method, one.request.path.split("/")[1], one.status) for one in asked)


@pytest.mark.parametrize("seconds", [4, pytest.param(60, marks=pytest.mark.drill)])
def test_four_services_on_one_catalog_lose_nothing_and_write_one_chain(
    seconds: int, served: Settings, tmp_path: Path
) -> None:
    with ExitStack() as stack:
        services = [stack.enter_context(serving(served, tmp_path / f"{n}.log")) for n in range(SERVICES)]
        with ExitStack() as loads:
            asking = [
                loads.enter_context(
                    Load(service, [questions(n), creations(itertools.count(n, SERVICES)), contested_promotions()])
                )
                for n, service in enumerate(services)
            ]
            time.sleep(seconds)
            fewest = min(FEWEST, seconds)
            wait_until(lambda: all(statuses(asking)[kind] >= fewest for kind in KINDS), "enough is done of each kind")
        for service in services:
            assert "Traceback" not in service.process.said
            service.process.stop()
    asked = [one for load in asking for one in load.asked]
    counted = statuses(asking)
    assert {status for *_, status in counted} <= {200, 201, 409}, counted
    assert {method for method, _, status in counted if status == 409} <= {"PUT"}, counted
    check_catalog(served)
    database = open_database(served)
    with transaction(database, writes=False) as session:
        names = {row.name for row in catalog.list_datasets(session, limit=100_000, offset=0).items}
    database.dispose()
    created = {one.request.body["name"] for one in asked if one.status == 201 and one.request.path == "/datasets"}
    assert created <= names
    check_audit(served, asked)
