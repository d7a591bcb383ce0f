"""A cluster of processes for the tests of builds, which doesn't outlive them."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from engine.configuration import SketchConfiguration
from engine.data import census_names
from engine.documents import Documents
from engine.model import ModelConfiguration
from tests.cluster.nodes import Nodes, listening, marked_environment, processes, running_nodes, wait_until

LOOPBACK = {"0100007F", "0000000000000000FFFF00000100007F", "00000000000000000000000001000000"}


@pytest.fixture(scope="module")
def mark() -> Iterator[str]:
    """Ray's environment; of what inherits the mark nothing listens beyond this machine, or is left at the end."""
    with marked_environment() as mark:
        yield mark
    wait_until(lambda: not processes(mark), "all processes of the cluster end")


@pytest.fixture(scope="module")
def nodes(mark: str) -> Iterator[Nodes]:
    """A cluster to which tests add nodes."""
    with running_nodes() as nodes:
        yield nodes
        numbers = processes(mark)
        assert numbers
        assert listening(numbers) <= LOOPBACK


@pytest.fixture(scope="session")
def documents() -> Documents:
    return census_names().first(60)


@pytest.fixture(scope="session")
def configuration(documents: Documents) -> SketchConfiguration:
    """Blocks of every kind, 17 of them."""
    model = ModelConfiguration(vocabulary=documents.vocabulary, width=8, heads=2)
    return SketchConfiguration(model=model, axes=True, pairs=True, anchors=40, directions=48, block=128)
