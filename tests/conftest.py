"""Set-up of all tests: property-based ones draw from a fixed seed, and have no time limit, for machines are noisy."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from uuid import uuid4

import pytest
import torch
from hypothesis import settings

# What a command prints is as wide as each test says: a width that the environment has when `rich` is imported, such as
# the one that workers of pytest-xdist get, would stay for ever.
os.environ.pop("COLUMNS", None)

# A shell's background jobs ignore an interrupt, and so would all that tests start and interrupt.
if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# The tensors of the tests are tiny: threads would only wait for each other, above all where others use the machine.
torch.set_num_threads(1)

settings.register_profile("neverseen", deadline=None, derandomize=True)
settings.load_profile("neverseen")


@pytest.fixture(scope="session")
def s3_port() -> Iterator[int]:
    """The port of an S3 that runs here."""
    from tests.stores import running_s3  # what takes half a second to import

    with running_s3() as port:
        yield port


@pytest.fixture
def s3(s3_port: int) -> Iterator[str]:
    """The URL of an empty bucket of it."""
    from tests.stores import bucket_behind

    with bucket_behind(s3_port) as url:
        yield url


@pytest.fixture(params=["memory", "s3"])
def url(request: pytest.FixtureRequest) -> str:
    """The URL of an empty object store, of each kind."""
    found: str = f"memory://{uuid4().hex}" if request.param == "memory" else request.getfixturevalue("s3")
    return found
