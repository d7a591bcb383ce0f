"""Sharded sketches: the same answers, to the bit; fewer directions where shards are lost; back again by themselves."""

from __future__ import annotations

import dataclasses
import logging
import shutil
import threading
import time
from collections.abc import Callable, Collection
from pathlib import Path

import numpy as np
import pytest
import torch

from engine import shards as sharding
from engine.configuration import SketchConfiguration
from engine.copies import Address
from engine.counterfactual import counterfactual_model
from engine.documents import Documents
from engine.errors import ArtifactError, ShardsAwayError
from engine.holdings import WHOLE, Part, files_of
from engine.measure import Measurement
from engine.question import Prediction, Question
from engine.shard import Shard
from engine.shards import Shards
from engine.sketch import build
from engine.sphere import SphereEstimator
from engine.stability import stability
from engine.store import Artifact, open_artifact
from engine.supplements import add
from tests.shards import FOREVER, Processes, served

MEASUREMENTS = [
    Measurement(text="face"),
    Measurement(kind="log_probability", prompt="b", completion="ead"),
    Measurement(kind="next_token", prompt="fa"),
]
DELETED = (1, 4, 6)


@pytest.fixture(autouse=True)
def _no_shard_is_silent_by_chance(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sharding, "SILENCE_SECONDS", 30)


@pytest.fixture(scope="module")
def directions(
    documents: Documents, configuration: SketchConfiguration, tmp_path_factory: pytest.TempPathFactory
) -> Artifact:
    """A sketch of random directions alone, whose blocks no number of shards divides."""
    wanted = dataclasses.replace(configuration, directions=29, ensemble="unitary")
    return build(documents, wanted, tmp_path_factory.mktemp("directions") / "sketch")


@pytest.fixture(scope="module")
def everything(
    documents: Documents, configuration: SketchConfiguration, tmp_path_factory: pytest.TempPathFactory
) -> Artifact:
    """A sketch with axes, pairs, anchors and random directions."""
    wanted = dataclasses.replace(configuration, axes=True, pairs=True, anchors=40)
    return build(documents, wanted, tmp_path_factory.mktemp("everything") / "sketch")


def questions() -> list[Question]:
    return [
        Question(),
        Question(downweights=(0.0, 0.4, 1.0), confidence=0.8),
        Question(estimator="sphere", average="median_of_means"),
        Question(estimator="sphere", degree=2),
    ]


@pytest.mark.parametrize("count", [1, 2, 3, 40])
@pytest.mark.parametrize("kind", ["directions", "everything"])
def test_a_sharded_sketch_answers_as_one_process_does(kind: str, count: int, request: pytest.FixtureRequest) -> None:
    with served(request.getfixturevalue(kind), count) as service:
        for question in questions():
            expected = service.alone.predict(MEASUREMENTS, DELETED, question)
            assert service.sketch.predict(MEASUREMENTS, DELETED, question) == expected
        for measurement in MEASUREMENTS[:2]:
            expected_of = service.alone.attribute(measurement, top=3, confidence=0.9)
            assert service.sketch.attribute(measurement, top=3, confidence=0.9) == expected_of
            trust = service.alone.reliability(measurement, confidence=0.9)
            assert service.sketch.reliability(measurement, confidence=0.9) == trust
        assert service.sketch.retrained_sets == service.alone.retrained_sets
        assert stability(service.sketch) == stability(service.alone)
        if kind == "everything":
            ours, theirs = (counterfactual_model(one, DELETED) for one in (service.sketch, service.alone))
            assert ours.source == theirs.source
            assert all(torch.equal(ours.matrices[name], matrix) for name, matrix in theirs.matrices.items())


@pytest.mark.parametrize("kind", ["directions", "everything"])
def test_models_retrained_later_are_held_by_the_front(
    kind: str, request: pytest.FixtureRequest, documents: Documents, tmp_path: Path
) -> None:
    shutil.copytree(request.getfixturevalue(kind).path, tmp_path / "sketch")
    artifact = open_artifact(tmp_path / "sketch")
    with served(artifact, 3) as service:
        add(artifact, documents, [DELETED])
        expected = service.alone.predict(MEASUREMENTS, DELETED, Question())
        assert {answer.estimator for answer in expected} == {"retrained"}
        assert service.sketch.predict(MEASUREMENTS, DELETED, Question()) == expected
        ours, theirs = (one.retrained_model(DELETED) for one in (service.sketch, service.alone))
        assert ours is not None
        assert theirs is not None
        assert all(torch.equal(ours[name], matrix) for name, matrix in theirs.items())
        assert stability(service.sketch) == stability(service.alone)


def test_each_shard_reads_the_files_of_its_part_and_holds_nothing_else(everything: Artifact) -> None:
    configuration, units = everything.manifest.configuration, everything.manifest.plan.source.units
    parts = [files_of(configuration, units, Part(number, 4)) for number in range(4)]
    assert set().union(*parts) == files_of(configuration, units, WHOLE) == everything.manifest.files.keys()
    assert all(len(files) < len(everything.manifest.files) for files in parts)
    with served(everything, 4) as service:
        held = [shard.load(service.address) for shard in service.processes.shards if shard is not None]
        assert [units for loaded in held for units in loaded.sets] == list(service.alone.retrained_sets)


def test_a_repeated_measurement_asks_no_shard(directions: Artifact) -> None:
    with served(directions, 2) as service:
        service.sketch.predict(MEASUREMENTS, DELETED, Question())
        before = len(service.processes.calls)
        service.sketch.predict(MEASUREMENTS, (2, 3), Question())
        assert len(service.processes.calls) == before


def test_without_a_shard_the_other_directions_answer_with_a_bar_of_their_own(directions: Artifact) -> None:
    with served(directions, 3) as service:
        service.processes.kill(1)
        (answer,) = service.sketch.predict(MEASUREMENTS[:1], DELETED, Question(estimator="sphere"))
        assert isinstance(answer, Prediction)
        left = [*range(9), *range(19, 29)]  # of 29 in three parts
        assert answer.missing_share == pytest.approx(10 / 29)
        # The same by the estimator itself, handed nothing but what these directions say.
        table = service.alone.table(MEASUREMENTS[0]).table
        frame = service.alone.frame
        unit_rows = {0: 9, 1: 5, 2: 5}  # of the unitary matrices of twelve rows: 0…8; 19…23; 24…28
        remaining = sum(rows * (1 - rows / 12) for rows in unit_rows.values()) / 19
        estimator = SphereEstimator(
            table.coefficients[:, left, 0],
            frame.one_set(DELETED).overlaps[0][left],
            units=12,
            deleted=3,
            remaining=remaining,
            average="mean",
            confidence=0.95,
        )
        degree = estimator.best_degree(1.0)
        assert answer.degree == degree
        assert answer.change == pytest.approx(estimator.change(degree, 1.0), rel=1e-12)
        assert answer.standard_error == pytest.approx(estimator.standard_error(degree, 1.0), rel=1e-12)
        assert answer.interval[1] - answer.estimate == pytest.approx(estimator.reach(degree, 1.0), rel=1e-12)


def test_fewer_directions_give_wider_bars(directions: Artifact) -> None:
    question = Question(estimator="sphere", degree=3)
    with served(directions, 2) as service:
        sets = [(first, second) for first in range(12) for second in range(first)]
        whole = [service.alone.predict(MEASUREMENTS[:1], units, question)[0] for units in sets]
        service.processes.kill(0)
        fewer = [service.sketch.predict(MEASUREMENTS[:1], units, question)[0] for units in sets]
        widths = [[answer.interval[1] - answer.interval[0] for answer in some] for some in (whole, fewer)]  # type: ignore[union-attr]
        assert np.mean(widths[1]) > 1.2 * np.mean(widths[0])


def test_what_was_measured_before_a_shard_was_lost_is_answered_from_all_directions(directions: Artifact) -> None:
    with served(directions, 2) as service:
        before = service.sketch.predict(MEASUREMENTS[:1], DELETED, Question())
        service.processes.kill(0)
        service.look()
        assert service.sketch.predict(MEASUREMENTS[:1], DELETED, Question()) == before
        (new,) = service.sketch.predict(MEASUREMENTS[1:2], DELETED, Question())
        assert new.missing_share == pytest.approx(0.5, abs=0.02)


def test_a_shard_that_begins_anew_loads_what_is_wanted_and_counts_again(directions: Artifact) -> None:
    with served(directions, 2) as service:
        service.processes.kill(1)
        service.look()
        assert service.sketch.predict(MEASUREMENTS, DELETED, Question())[0].missing_share > 0
        service.processes.begin_anew(1)
        service.look()
        expected = service.alone.predict(MEASUREMENTS, DELETED, Question())
        assert service.sketch.predict(MEASUREMENTS, DELETED, Question()) == expected


def test_a_shard_that_dies_while_it_measures_is_left_out(directions: Artifact) -> None:
    with served(directions, 2) as service:

        def die(shard: int, method: str) -> None:
            if (shard, method) == (1, "measure"):
                service.processes.kill(1)

        service.processes.before = die
        answers = service.sketch.predict(MEASUREMENTS, DELETED, Question())
        assert all(answer.missing_share > 0 for answer in answers)
        assert service.shards.holding(directions.checksum) == (0,)


def test_a_shard_that_falls_silent_while_it_measures_is_left_out(
    directions: Artifact, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sharding, "SILENCE_SECONDS", 1)
    with served(directions, 2) as service:
        service.processes.silent.add(0)
        looking = threading.Timer(0.1, service.shards.look)
        looking.start()
        (answer,) = service.sketch.predict(MEASUREMENTS[:1], DELETED, Question())
        looking.join()
        assert answer.missing_share > 0
        monkeypatch.setattr(sharding, "SILENCE_SECONDS", 30)
        service.processes.silent.clear()
        service.look()
        (answer,) = service.sketch.predict(MEASUREMENTS[1:2], DELETED, Question())
        assert answer.missing_share == 0


def test_a_sketch_of_which_too_little_is_left_waits(directions: Artifact) -> None:
    with served(directions, 4, least_share=0.7) as service:
        service.processes.kill(0)
        assert service.sketch.predict(MEASUREMENTS[:1], DELETED, Question())[0].missing_share > 0
        service.processes.kill(1)
        with pytest.raises(ShardsAwayError, match="2 of 4 shards are away, and NEVERSEEN_LEAST_SHARE asks for 70%"):
            service.sketch.predict(MEASUREMENTS[1:2], DELETED, Question())


def test_a_sketch_with_axes_answers_what_it_measured_before_and_waits_with_the_rest(everything: Artifact) -> None:
    with served(everything, 3) as service:
        before = service.sketch.predict(MEASUREMENTS[:1], DELETED, Question())
        service.processes.kill(2)
        with pytest.raises(ShardsAwayError, match="has axes"):
            service.sketch.predict(MEASUREMENTS[1:2], DELETED, Question())
        assert service.sketch.predict(MEASUREMENTS[:1], DELETED, Question()) == before
        service.processes.begin_anew(2)
        service.look()
        expected = service.alone.predict(MEASUREMENTS, DELETED, Question())
        assert service.sketch.predict(MEASUREMENTS, DELETED, Question()) == expected


def test_what_nobody_wants_any_more_is_let_go_of(
    directions: Artifact, everything: Artifact, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("engine.shard.FRESH_SECONDS", 0.0)
    processes = Processes(2)
    shards = Shards(processes, least_share=0.5)
    kept, passing = (
        shards.hold(Address(path=one.path, checksum=one.checksum), one) for one in (directions, everything)
    )
    shards.look()
    assert shards.holding(everything.checksum) == (0, 1)
    del passing
    shards.look()
    assert shards.holding(kept.address.checksum) == (0, 1)
    assert [shard.held() for shard in processes.shards if shard is not None] == [{directions.checksum}] * 2


def test_the_thread_brings_back_a_lost_shard_by_itself(directions: Artifact, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sharding, "LOOK_SECONDS", 0.01)
    with served(directions, 2) as service:
        service.shards.start()
        service.processes.kill(0)
        until(lambda: service.shards.holding(directions.checksum) == (1,))
        service.processes.begin_anew(0)
        until(lambda: service.shards.holding(directions.checksum) == (0, 1))
        service.shards.stop()


def test_a_question_of_known_and_new_measurements_keeps_what_is_known(directions: Artifact) -> None:
    with served(directions, 2) as service:
        before = service.sketch.predict(MEASUREMENTS[:1], DELETED, Question())
        service.processes.kill(0)
        known, new = service.sketch.predict(MEASUREMENTS[:2], DELETED, Question())
        assert [known] == before
        assert new.missing_share > 0


def test_a_second_sketch_is_loaded_beside_the_first_whatever_both_take(
    directions: Artifact, everything: Artifact
) -> None:
    processes = Processes(2)
    [largest, other] = sorted(
        (Shards(processes, least_share=1).hold(address_of(one), one).nbytes for one in (directions, everything)),
        reverse=True,
    )
    tight = Shards(Processes(2, resident_bytes=largest + other // 2), least_share=1)
    held = [tight.hold(address_of(one), one) for one in (directions, everything)]  # the front lets go of one
    assert all(tight.holding(one.address.checksum) == (0, 1) for one in held)


def test_an_unforeseen_error_of_a_load_leaves_the_others_looked_after(
    directions: Artifact, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sharding, "_TRY_AGAIN_SECONDS", 0.0)
    with served(directions, 3) as service:

        def fail(shard: int, method: str) -> None:
            if (shard, method) == (0, "load"):
                service.processes.before = lambda shard, method: None
                raise MemoryError

        service.processes.before = fail
        service.processes.begin_anew(0)
        service.processes.kill(2)
        service.look()
        assert service.shards.holding(directions.checksum) == (0, 1)
        service.processes.begin_anew(2)
        service.look()
        assert service.shards.holding(directions.checksum) == (0, 1, 2)


def test_a_look_that_began_before_a_load_ended_takes_nothing_away(directions: Artifact, everything: Artifact) -> None:
    processes = Processes(2)
    shards = Shards(processes, least_share=1)
    loaded, asked = threading.Event(), threading.Event()

    def slow(shard: int, method: str) -> None:
        if (shard, method) == (1, "held"):
            asked.set()
            loaded.wait(60)

    first = shards.hold(address_of(directions), directions)
    answers = processes.shards[1]
    assert answers is not None
    told = answers.held()
    processes.before = slow
    looking = threading.Thread(target=shards.look)
    looking.start()
    asked.wait(60)
    second = shards.hold(address_of(everything), everything)
    processes.shards[1] = Told(told)
    loaded.set()
    looking.join()
    processes.shards[1] = answers
    assert [shards.holding(one.address.checksum) for one in (first, second)] == [(0, 1), (0, 1)]


class Told(Shard):
    """A shard that says what it had loaded a while ago."""

    def __init__(self, told: frozenset[str]) -> None:
        super().__init__(Part(1, 2), device="cpu", resident_bytes=FOREVER)
        self._told = told

    def held(self, *, but: Collection[str] | None = None) -> frozenset[str]:
        return self._told


def address_of(artifact: Artifact) -> Address:
    return Address(path=artifact.path, checksum=artifact.checksum)


def test_a_part_that_takes_too_much_memory_is_refused(directions: Artifact) -> None:
    shards = Shards(Processes(2, resident_bytes=10), least_share=0.5)
    with pytest.raises(ArtifactError, match="more shards take less each"):
        shards.hold(Address(path=directions.path, checksum=directions.checksum), directions)


def test_a_damaged_file_is_refused_by_the_shard_that_needs_it(
    documents: Documents, configuration: SketchConfiguration, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    artifact = build(documents, configuration, tmp_path / "sketch")
    address = Address(path=artifact.path, checksum=artifact.checksum)
    last = artifact.path / configuration.blocks(12)[-1].file
    content = last.read_bytes()
    last.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    shards = Shards(Processes(2), least_share=0.5)
    with pytest.raises(ArtifactError, match="SHA-256"):
        shards.hold(address, artifact)
    last.write_bytes(content)
    with served(artifact, 2) as service:
        last.write_bytes(content[:-1])
        service.processes.begin_anew(1)
        with caplog.at_level(logging.ERROR):
            service.look()
        assert f"Shard 1 can't load artifact {artifact.checksum[:12]}…: " in caplog.text
        assert service.sketch.predict(MEASUREMENTS[:1], DELETED, Question())[0].missing_share > 0


def until(true: Callable[[], bool]) -> None:
    for _ in range(6_000):
        if true():
            return
        time.sleep(0.01)
    raise AssertionError("not within a minute")
