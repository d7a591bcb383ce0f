"""The cost of a build, told before it: what it is made of. How long anything really takes isn't asserted."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
import torch

from engine.configuration import SketchConfiguration
from engine.cost import BlockRate, Rates, blocks_seconds, estimate_cost, expected_accuracy
from engine.documents import Documents
from engine.sketch import build
from engine.terminal import rough_duration
from engine.train import schedule
from engine.workspace import finished_files

RATES = Rates(
    kinds={
        "axes": BlockRate(setup=1.0, compiling=0.5, step=1e-3),
        "directions": BlockRate(setup=2.0, compiling=0.75, step=4e-3),
        "retrained": BlockRate(setup=3.0, compiling=0.0, step=1e-4),
    },
    ordinary_step=1e-2,
)


def seconds(documents: Documents, configuration: SketchConfiguration, *, workers: int = 1) -> float:
    steps = schedule(configuration.model, configuration.training, documents, torch.device("cpu"))
    return blocks_seconds(configuration.blocks(documents.unit_count), steps, RATES, workers=workers)


def test_blocks_cost_their_setup_and_their_steps(documents: Documents, configuration: SketchConfiguration) -> None:
    assert seconds(documents, configuration) == pytest.approx(3 * 2 + 10 * 12 * 4e-3)  # 3 blocks of 10 directions


def test_axes_cost_ordinary_steps_till_their_first_visit(
    documents: Documents, configuration: SketchConfiguration
) -> None:
    only_axes = dataclasses.replace(configuration, axes=True, anchors=32, directions=0, block=6)
    halves = [6 * 12 * 1e-3, 6 * 6 * 1e-3 + 6 * 1e-2]  # documents are units: the second six come after six steps
    retrained = 8 * 3 + (12 + 32) * 12 * 1e-4  # every unit alone, and the anchors
    assert seconds(documents, only_axes) == pytest.approx(2 * 1 + sum(halves) + retrained)


def test_the_cost_grows_with_documents_directions_and_epochs(
    documents: Documents, configuration: SketchConfiguration
) -> None:
    base = seconds(documents, configuration)
    longer = dataclasses.replace(configuration.training, epochs=2)
    assert seconds(documents.first(6), configuration) < base
    assert seconds(documents, dataclasses.replace(configuration, directions=11)) > base
    assert seconds(documents, dataclasses.replace(configuration, axes=True)) > base
    assert seconds(documents, dataclasses.replace(configuration, training=longer)) > base


def test_workers_share_the_blocks_and_cost_a_start(documents: Documents, configuration: SketchConfiguration) -> None:
    many = dataclasses.replace(configuration, directions=4_000, block=1_000)
    alone = seconds(documents, many)
    start = 3.0 + 2.5 + 0.5 + 0.75  # a worker, its compiler, axes and directions from the compiler's cache
    assert seconds(documents, many, workers=2) == pytest.approx(alone / 2 + start)
    assert seconds(documents, many, workers=4) == pytest.approx(alone / 4 + start)
    assert seconds(documents, many, workers=9) == seconds(documents, many, workers=4)


@pytest.mark.parametrize("axes", [True, False])
def test_the_estimate_has_the_size_of_the_artifact_and_counts_off_what_is_there(
    tmp_path: Path, documents: Documents, configuration: SketchConfiguration, axes: bool
) -> None:
    wanted = dataclasses.replace(configuration, axes=axes, anchors=32)
    place = tmp_path / "a"
    assert finished_files(place) == set()
    cost = estimate_cost(documents, wanted, "cpu", 2)
    assert not any(tmp_path.iterdir())
    assert cost.seconds > 0
    assert cost.direction_steps == (10 + (12 + 12 + 32 if axes else 0)) * 12
    assert cost.workers == 2
    artifact = build(documents, wanted, place)
    assert cost.size_bytes == pytest.approx(artifact.manifest.size_bytes, rel=0.02)
    assert finished_files(place) == set(artifact.manifest.files)
    assert estimate_cost(documents, wanted, "cpu", 2, finished=finished_files(place)).seconds == 0


def test_what_a_killed_build_has_left_is_found(
    tmp_path: Path, documents: Documents, configuration: SketchConfiguration
) -> None:
    class InterruptedBuildError(Exception):
        pass

    def interrupt(done: int, total: int) -> None:
        if done > total / 2:
            raise InterruptedBuildError

    with pytest.raises(InterruptedBuildError):
        build(documents, configuration, tmp_path / "a", progress=interrupt)
    assert finished_files(tmp_path / "a") == {"parameters.safetensors", "directions-00000.safetensors"}


@pytest.mark.parametrize("count", [1, 2, 9])
def test_few_documents_are_enough_to_measure(
    documents: Documents, configuration: SketchConfiguration, count: int
) -> None:
    assert estimate_cost(documents.first(count), configuration, "cpu", 1).seconds > 0


def test_subjects_are_measured_as_units(configuration: SketchConfiguration, documents: Documents) -> None:
    people = Documents.from_records((text, f"of {i % 3}") for i, text in enumerate(documents.texts))
    wanted = dataclasses.replace(configuration, axes=True, anchors=32)
    assert estimate_cost(people, wanted, "cpu", 1).direction_steps == (10 + 3 + 3 + 32) * 12


def test_the_accuracy_class_follows_from_what_is_built(configuration: SketchConfiguration) -> None:
    axes = dataclasses.replace(configuration, axes=True)
    paired = dataclasses.replace(axes, pairs=True)
    sketches = [configuration, dataclasses.replace(axes, degree=1), axes, dataclasses.replace(axes, anchors=32), paired]
    found = [expected_accuracy(one) for one in sketches]
    assert found[0].expected.startswith("coarse")
    assert "--axes" in found[0].advice
    assert "order 1" in found[1].expected
    assert "--degree 3" in found[1].advice
    assert found[2].expected == found[3].expected
    assert "one or two units exact" in found[4].expected
    assert "single units exact" in found[2].expected
    assert ["--anchors" in one.advice for one in found] == [False, False, False, True, False]


@pytest.mark.parametrize(
    ("duration", "words"),
    [
        (0.2, "a few seconds"),
        (4.99, "a few seconds"),
        (5, "about 5 s"),
        (57, "about 55 s"),
        (58, "about 1 min"),
        (101, "about 1 min 40 s"),
        (594, "about 9 min 50 s"),
        (596, "about 10 min"),
        (3_560, "about 59 min"),
        (3_580, "about 1 h"),
        (8_000, "about 2 h 15 min"),
    ],
)
def test_durations_are_rounded_as_an_estimate_deserves(duration: float, words: str) -> None:
    assert rough_duration(duration) == words
