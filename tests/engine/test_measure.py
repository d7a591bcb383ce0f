"""Measurements, their tables, and the caches that keep them."""

from __future__ import annotations

import dataclasses
import threading
from pathlib import Path

import numpy as np
import pytest
import torch

from engine.cache import ByteCache
from engine.configuration import SketchConfiguration
from engine.documents import Documents
from engine.errors import ArtifactError, DeletionSetError, TextLengthError, UnknownCharacterError
from engine.evaluate import DeletionSet, _rank_correlation, coherent_sets, evaluate, random_sets
from engine.measure import Measurement, measure_models, measured_probabilities, targets
from engine.model import ModelConfiguration
from engine.question import Distribution, Prediction, Question
from engine.resident import ResidentSketch, table_cache
from engine.sketch import build
from tests.oracles import plain_loss
from tests.strategies import resident_jets


@pytest.fixture(scope="module")
def sketch(
    tmp_path_factory: pytest.TempPathFactory, documents: Documents, configuration: SketchConfiguration
) -> ResidentSketch:
    return ResidentSketch(build(documents, configuration, tmp_path_factory.mktemp("sketch") / "a"))


def test_the_baseline_is_the_plain_models_loss(sketch: ResidentSketch) -> None:
    constants = dict(sketch.frame.trained)
    for text in ("a", "face", "decade"):
        table = sketch.table(Measurement(text=text)).table
        assert table.baseline.item() == pytest.approx(
            plain_loss(sketch.configuration.model, constants, text), rel=1e-12
        )


def test_the_loss_follows_from_the_probabilities(sketch: ResidentSketch) -> None:
    """First order of -mean log p is -mean(p_1 / p_0)."""
    measurement = Measurement(text="face")
    probabilities = measured_probabilities(measurement, sketch.configuration.model, resident_jets(sketch))
    real, imaginary = probabilities.higher[0]
    expected = -(torch.complex(real, imaginary) / probabilities.constant).mean(dim=-1)
    np.testing.assert_allclose(sketch.table(measurement).table.coefficients[0, :, 0], expected, rtol=1e-7)


def test_a_completion_and_a_next_token_are_parts_of_the_loss(sketch: ResidentSketch) -> None:
    constants = {name: matrix[None] for name, matrix in sketch.frame.trained.items()}
    model = sketch.configuration.model

    def measured(measurement: Measurement) -> torch.Tensor:
        return measure_models(measurement, model, constants)[0]

    whole = measured(Measurement(kind="log_probability", completion="face"))
    parts = measured(Measurement(kind="log_probability", completion="fa")) + measured(
        Measurement(kind="log_probability", prompt="fa", completion="ce")
    )
    assert whole.item() == pytest.approx(parts.item(), rel=1e-12)
    end = measured(Measurement(kind="next_token", prompt="face"))
    assert end.sum().item() == pytest.approx(1)
    loss = measured(Measurement(text="face"))
    assert loss.item() == pytest.approx(-(whole + end[-1].log()).item() / 5, rel=1e-12)
    first = measured(Measurement(kind="next_token"))
    first_letter = measured(Measurement(kind="log_probability", completion="f"))
    assert first[model.vocabulary.index("f")].log().item() == pytest.approx(first_letter.item(), rel=1e-12)


def test_a_distribution_adds_up_to_one_from_random_directions_too(sketch: ResidentSketch) -> None:
    [answer] = sketch.predict([Measurement(kind="next_token", prompt="fa")], [3, 5], Question(degree=2))
    assert isinstance(answer, Distribution)
    assert [outcome.token for outcome in answer.outcomes] == [*sketch.configuration.model.vocabulary, ""]
    for values in ([o.baseline for o in answer.outcomes], [o.estimate for o in answer.outcomes]):
        assert sum(values) == pytest.approx(1, rel=1e-9)
        assert min(values) >= 0


def test_many_models_are_measured_like_one(sketch: ResidentSketch) -> None:
    constants = dict(sketch.frame.trained)
    stack = {name: torch.stack([matrix, 2 * matrix]) for name, matrix in constants.items()}
    values = measure_models(Measurement(text="bed"), sketch.configuration.model, stack)
    doubled = {name: 2 * matrix for name, matrix in constants.items()}
    assert values[0].item() == pytest.approx(plain_loss(sketch.configuration.model, constants, "bed"), rel=1e-12)
    assert values[1].item() == pytest.approx(plain_loss(sketch.configuration.model, doubled, "bed"), rel=1e-12)


def test_a_text_may_fill_the_context_but_not_more(model: ModelConfiguration) -> None:
    assert len(targets(Measurement(text="abcdefa"), model).inputs) == model.context
    with pytest.raises(TextLengthError, match="8 characters"):
        targets(Measurement(text="abcdefab"), model)


def test_what_can_not_be_measured_is_refused(sketch: ResidentSketch) -> None:
    with pytest.raises(TextLengthError, match="empty"):
        sketch.table(Measurement(text=""))
    with pytest.raises(TextLengthError, match="completion of the measurement is empty"):
        sketch.table(Measurement(kind="log_probability", prompt="ab"))
    with pytest.raises(TextLengthError, match="at most 8"):
        sketch.table(Measurement(kind="log_probability", prompt="abcde", completion="abcd"))
    with pytest.raises(TextLengthError, match="at most 7"):
        sketch.table(Measurement(kind="next_token", prompt="abcdabcd"))
    with pytest.raises(UnknownCharacterError, match="'z'"):
        sketch.predict([Measurement(text="zed")], [0], Question())
    with pytest.raises(DeletionSetError, match="whole"):
        sketch.predict([Measurement(text="bed")], range(12), Question())


def test_a_repeated_measurement_costs_no_inference(sketch: ResidentSketch) -> None:
    cache = table_cache(1 << 20)
    cached = ResidentSketch(sketch.artifact, tables=cache)
    first = cached.predict([Measurement(text="bed")], [3], Question())
    again = cached.predict([Measurement(text="bed"), Measurement(text="bed")], [5], Question())
    assert (cache.misses, cache.hits) == (1, 2)
    assert isinstance(first[0], Prediction)
    assert isinstance(again[0], Prediction)
    assert isinstance(again[1], Prediction)
    assert first[0].baseline == again[0].baseline == again[1].baseline
    assert first[0].change != again[0].change


def test_sketches_that_share_a_cache_do_not_share_tables(
    sketch: ResidentSketch, tmp_path: Path, documents: Documents, configuration: SketchConfiguration
) -> None:
    cache = table_cache(1 << 20)
    other = ResidentSketch(build(documents, dataclasses.replace(configuration, seed=1), tmp_path / "b"), tables=cache)
    same = ResidentSketch(sketch.artifact, tables=cache)
    measurement = Measurement(text="bed")
    assert not np.array_equal(other.table(measurement).table.coefficients, same.table(measurement).table.coefficients)


def test_the_cache_stays_within_its_budget_and_drops_the_least_recently_used() -> None:
    cache: ByteCache[str, int] = ByteCache(10, size=lambda value: value)
    for key, value in (("a", 4), ("b", 4)):
        cache.get(key, lambda value=value: value)  # type: ignore[misc]
    cache.get("a", lambda: 99)
    cache.get("c", lambda: 5)
    assert [key for key, _ in cache.items()] == ["a", "c"]
    assert cache.size_bytes == 9
    assert cache.get("huge", lambda: 11) == 11
    assert [key for key, _ in cache.items()] == ["a", "c"]


def test_many_threads_make_a_value_once() -> None:
    cache: ByteCache[str, int] = ByteCache(100, size=lambda value: 1)
    made = []
    barrier = threading.Barrier(8)

    def make() -> int:
        made.append(1)
        return 7

    def ask() -> None:
        barrier.wait()
        assert cache.get("key", make) == 7

    threads = [threading.Thread(target=ask) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(made) == 1
    assert cache.size_bytes == 1


def test_a_value_that_can_not_be_made_is_not_kept() -> None:
    cache: ByteCache[str, int] = ByteCache(100, size=lambda value: 1)

    def fail() -> int:
        raise LookupError("no")

    with pytest.raises(LookupError):
        cache.get("key", fail)
    assert cache.get("key", lambda: 3) == 3


def test_random_and_coherent_sets_are_what_they_say(documents: Documents) -> None:
    sets = random_sets(documents, sizes=[2, 5], count=3, seed=1)
    assert [(s.kind, len(s.units)) for s in sets] == [("2 random", 2)] * 3 + [("5 random", 5)] * 3
    assert sets == random_sets(documents, sizes=[2, 5], count=3, seed=1)
    for deletion in coherent_sets(documents):
        assert 0 < len(deletion.units) < documents.unit_count
    starts_with_f = tuple(i for i, text in enumerate(documents.texts) if text.startswith("f"))
    assert DeletionSet(kind="first letter", units=starts_with_f) in coherent_sets(documents)


def test_rank_correlation_is_spearmans() -> None:
    true = torch.tensor([[1.0], [2.0], [3.0], [4.0]]).numpy()
    assert _rank_correlation(true**3, true) == pytest.approx(1)
    assert _rank_correlation(-true, true) == pytest.approx(-1)
    assert _rank_correlation(torch.tensor([[1.0], [1.0], [2.0], [2.0]]).numpy(), true) == pytest.approx(
        0.8944, abs=1e-4
    )
    assert _rank_correlation(0 * true, true) == 0


def test_other_documents_than_the_sketchs_are_not_evaluated(sketch: ResidentSketch, documents: Documents) -> None:
    others = Documents.from_records((text, None) for text in reversed(documents.texts))
    with pytest.raises(ArtifactError, match="other documents"):
        evaluate(sketch, others, random_sets(others, sizes=[1], count=1, seed=0), [Measurement(text="bed")])
