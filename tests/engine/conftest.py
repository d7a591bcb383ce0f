"""A training run small enough to be checked by brute force."""

from __future__ import annotations

import pytest
import torch

from engine.configuration import SketchConfiguration
from engine.documents import Documents
from engine.model import ModelConfiguration
from engine.train import Step, schedule


@pytest.fixture(scope="session")
def documents() -> Documents:
    names = ["abe", "cab", "dad", "bead", "ace", "fade", "deaf", "fab", "cafe", "babe", "face", "bed"]
    return Documents.from_records((name, None) for name in names)


@pytest.fixture(scope="session")
def model(documents: Documents) -> ModelConfiguration:
    return ModelConfiguration(vocabulary=documents.vocabulary, width=8, heads=2, context=8)


@pytest.fixture(scope="session")
def configuration(model: ModelConfiguration) -> SketchConfiguration:
    return SketchConfiguration(model=model, directions=10, degree=3, dtype="float64", block=4, ensemble="sphere")


@pytest.fixture(scope="session")
def steps(configuration: SketchConfiguration, documents: Documents) -> list[Step]:
    return schedule(configuration.model, configuration.training, documents, torch.device("cpu"))
