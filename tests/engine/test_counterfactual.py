"""Counterfactual models: their parameters against retraining, their files, and the texts that are drawn."""

from __future__ import annotations

import collections
import dataclasses
import itertools
import json
import math
from pathlib import Path

import pytest
import torch
from safetensors import safe_open

from engine.configuration import FEWEST_ANCHORS, SketchConfiguration
from engine.counterfactual import Model, _pair_row, counterfactual_model, draw_texts, save_model, trained_model
from engine.documents import Documents
from engine.errors import DeletionSetError, QuestionError, TextLengthError, UnknownCharacterError
from engine.measure import Measurement
from engine.model import ModelConfiguration
from engine.resident import ResidentSketch
from engine.retrain import retrain
from engine.sketch import build


@pytest.fixture(scope="module")
def axes(
    tmp_path_factory: pytest.TempPathFactory, documents: Documents, configuration: SketchConfiguration
) -> ResidentSketch:
    wanted = dataclasses.replace(configuration, axes=True, directions=0, anchors=FEWEST_ANCHORS)
    return ResidentSketch(build(documents, wanted, tmp_path_factory.mktemp("models") / "axes"))


@pytest.fixture(scope="module")
def pairs(
    tmp_path_factory: pytest.TempPathFactory, documents: Documents, configuration: SketchConfiguration
) -> ResidentSketch:
    wanted = dataclasses.replace(configuration, axes=True, pairs=True, directions=0, anchors=FEWEST_ANCHORS)
    return ResidentSketch(build(documents, wanted, tmp_path_factory.mktemp("models") / "pairs"))


def distance(model: Model, truth: dict[str, torch.Tensor], row: int) -> float:
    return math.sqrt(sum(float((model.matrices[name] - truth[name][row]).square().sum()) for name in truth))


def free_sets(sketch: ResidentSketch) -> list[tuple[int, ...]]:
    """Three units each, which it wasn't retrained without."""
    candidates = [(1, 4, 7), (0, 3, 10), (2, 5, 9), (4, 6, 11), (3, 8, 9), (0, 2, 6), (5, 7, 10)]
    return [units for units in candidates if units not in sketch.retrained_sets]


def test_what_was_retrained_is_that_model(axes: ResidentSketch, documents: Documents) -> None:
    for units in [(3,), axes.retrained_sets[-1]]:
        model = counterfactual_model(axes, units)
        assert model.source == "retrained"
        assert distance(model, retrain(documents, axes.configuration, [units]), 0) < 1e-9


def test_parameters_add_up_and_pairs_bring_them_nearer(
    axes: ResidentSketch, pairs: ResidentSketch, documents: Documents
) -> None:
    sets = [units for units in free_sets(axes) if units in free_sets(pairs)]
    assert len(sets) > 3
    truth = retrain(documents, axes.configuration, sets)
    squares = {"trained": 0.0, "axes": 0.0, "pairs": 0.0}
    for row, units in enumerate(sets):
        for model in (trained_model(axes), counterfactual_model(axes, units), counterfactual_model(pairs, units)):
            squares[model.source] += distance(model, truth, row) ** 2
    assert squares["pairs"] < squares["axes"] / 4
    assert squares["axes"] < squares["trained"] / 4


def test_the_model_without_two_units_is_where_it_is_looked_for(pairs: ResidentSketch) -> None:
    for first, second in itertools.combinations(range(12), 2):
        assert pairs.retrained_sets[_pair_row(first, second, 12)] == (first, second)


def test_without_axes_the_answer_says_what_would_serve(
    tmp_path: Path, documents: Documents, configuration: SketchConfiguration
) -> None:
    sphere = ResidentSketch(build(documents, configuration, tmp_path / "sphere"))
    with pytest.raises(QuestionError, match="a build with --axes serves this question"):
        counterfactual_model(sphere, [1, 2])


@pytest.mark.parametrize("units", [[], [1, 1], [12], list(range(12))])
def test_what_is_no_deletion_set_is_refused(axes: ResidentSketch, units: list[int]) -> None:
    with pytest.raises(DeletionSetError):
        counterfactual_model(axes, units)


def test_a_file_holds_the_model_and_says_what_it_is(axes: ResidentSketch, tmp_path: Path) -> None:
    model = counterfactual_model(axes, [1, 4, 7])
    save_model(model, tmp_path / "model.safetensors", about="abc v1 without 3 units")
    with safe_open(tmp_path / "model.safetensors", "pt") as file:
        metadata = file.metadata()
        assert set(file.keys()) == set(model.matrices)
        for name, matrix in model.matrices.items():
            assert torch.equal(file.get_tensor(name), matrix)
    assert (metadata["format"], metadata["about"]) == ("neverseen-model", "abc v1 without 3 units")
    assert ModelConfiguration(**json.loads(metadata["model"])) == model.configuration


def test_texts_follow_the_model_and_repeat_with_their_seed(axes: ResidentSketch) -> None:
    model = trained_model(axes)
    drawn = draw_texts(model, count=100, seed=5)
    assert drawn == draw_texts(model, count=100, seed=5)
    assert drawn[:3] == draw_texts(model, count=3, seed=5)
    assert drawn != draw_texts(model, count=100, seed=6)
    assert all(len(text) <= model.configuration.context for text in drawn)
    [distribution] = axes.table(Measurement(kind="next_token")).table.baseline[None].tolist()
    for seed in range(1, 6):
        drawn += draw_texts(model, count=100, seed=10 + seed)
    first = collections.Counter(text[:1] for text in drawn)
    for token, probability in zip((*model.configuration.vocabulary, ""), distribution, strict=True):
        spread = math.sqrt(len(drawn) * probability * (1 - probability))
        assert abs(first[token] - len(drawn) * probability) < 4.5 * spread + 1


def test_texts_of_equal_models_are_equal_and_of_others_mostly(axes: ResidentSketch) -> None:
    model, other = trained_model(axes), counterfactual_model(axes, [1, 4, 7])
    one, two = draw_texts(model, count=60, seed=1), draw_texts(other, count=60, seed=1)
    same = sum(a == b for a, b in zip(one, two, strict=True))
    assert 20 < same < 60


def test_texts_begin_with_the_prompt_and_are_colder_where_asked(axes: ResidentSketch) -> None:
    model = trained_model(axes)
    assert all(text.startswith("ca") for text in draw_texts(model, count=10, seed=0, prompt="ca"))
    assert len(set(draw_texts(model, count=10, seed=0, temperature=1e-6))) == 1


@pytest.mark.parametrize(
    ("changed", "error"),
    [
        ({"count": 0}, QuestionError),
        ({"count": 101}, QuestionError),
        ({"temperature": 0.0}, QuestionError),
        ({"temperature": math.nan}, QuestionError),
        ({"prompt": "a" * 8}, TextLengthError),
        ({"prompt": "!"}, UnknownCharacterError),
    ],
)
def test_texts_that_cannot_be_drawn_are_refused(
    axes: ResidentSketch, changed: dict[str, float | str], error: type[Exception]
) -> None:
    with pytest.raises(error):
        draw_texts(trained_model(axes), **({"count": 1, "seed": 0} | changed))  # type: ignore[arg-type]


def test_parameters_that_overflowed_are_refused(axes: ResidentSketch) -> None:
    model = trained_model(axes)
    broken = dataclasses.replace(model, matrices={name: matrix * math.inf for name, matrix in model.matrices.items()})
    with pytest.raises(QuestionError, match="no model any more"):
        draw_texts(broken, count=1, seed=0)
