"""Set-up of all tests: property-based ones draw from a fixed seed, and have no time limit, for machines are noisy."""

from __future__ import annotations

import os

import torch
from hypothesis import settings

# What a command prints is as wide as each test says: a width that the environment has when `rich` is imported, such as
# the one that workers of pytest-xdist get, would stay for ever.
os.environ.pop("COLUMNS", None)

# The tensors of the tests are tiny: threads would only wait for each other, above all where others use the machine.
torch.set_num_threads(1)

settings.register_profile("neverseen", deadline=None, derandomize=True)
settings.load_profile("neverseen")
