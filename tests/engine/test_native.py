"""Native code against torch's, which is its oracle, and against oracles that share nothing with either."""

from __future__ import annotations

import dataclasses
import logging
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from engine import jet
from engine.blocks import block_directions, code_for, train_block
from engine.configuration import Block, SketchConfiguration
from engine.data import census_names
from engine.directions import directions, planes
from engine.documents import Documents, tokens
from engine.held import room
from engine.jet import Coefficient, Jet
from engine.measure import Measurement, measured_probabilities, read_out_jets, targets
from engine.model import ModelConfiguration, matrices, target_probabilities
from engine.native import library as compiling
from engine.native.groups import Schedule, train_directions, train_models
from engine.retrain import retrain
from engine.sketch import build
from engine.train import Step, TrainingConfiguration, schedule
from tests import oracles
from tests.forked import begin, succeeds
from tests.oracles import loss_of
from tests.strategies import native_code, train_natively

CPU = torch.device("cpu")
MEASUREMENTS = [
    Measurement(text="fade"),
    Measurement(kind="next_token", prompt="ca"),
    Measurement(kind="log_probability", prompt="be", completion="d"),
]


def rows(kind: str, units: int, count: int, dtype: torch.dtype = torch.float64) -> Coefficient:
    if kind == "axes":
        return (torch.eye(units, dtype=dtype)[:count],)
    return planes(directions("sphere", 3, units, 0, count), dtype=dtype, device=CPU)


def assert_close(found: dict[str, Jet], expected: dict[str, Jet], tolerance: float) -> None:
    """Every coefficient of every parameter, relative to the largest of its order."""
    for r in range(next(iter(expected.values())).degree + 1):
        ours, theirs = (
            torch.cat([torch.stack(j.coefficients[r]).flatten(1) for j in jets.values()], dim=1)
            for jets in (found, {name: expected[name] for name in found})
        )
        size = theirs.abs().max()
        assert (ours - theirs).abs().max() <= tolerance * size, r


@pytest.mark.parametrize("kind", ["directions", "axes"])
@pytest.mark.parametrize("degree", [1, 2, 3, 5])
def test_trained_jets_are_torchs(
    kind: str, degree: int, configuration: SketchConfiguration, documents: Documents, steps: list[Step]
) -> None:
    configuration = dataclasses.replace(configuration, degree=degree)
    chosen = rows(kind, documents.unit_count, 11)  # one group and a part of another
    found = train_natively(configuration.model, configuration.training, steps, chosen, degree)
    assert_close(found, train_block(configuration, steps, chosen), 1e-13)


@pytest.mark.parametrize(
    "change",
    [
        {"layers": 2, "width": 12, "heads": 3, "context": 6},  # documents are cut
        {"width": 5, "heads": 5},  # heads of one number, an odd width
        {"width": 6, "heads": 1, "rmsnorm_epsilon": 0.1},
    ],
)
def test_models_of_other_shapes_are_torchs(
    change: dict[str, int | float], configuration: SketchConfiguration, documents: Documents
) -> None:
    model = dataclasses.replace(configuration.model, **change)  # type: ignore[arg-type]
    other = dataclasses.replace(configuration, model=model, training=TrainingConfiguration(epochs=2, beta1=0.7))
    steps = schedule(model, other.training, documents, CPU)
    chosen = rows("directions", documents.unit_count, 3)
    assert_close(
        train_natively(model, other.training, steps, chosen, other.degree), train_block(other, steps, chosen), 1e-12
    )


def test_coefficients_agree_with_complex_training_on_a_circle(
    configuration: SketchConfiguration, documents: Documents, steps: list[Step]
) -> None:
    model = configuration.model
    row = directions("sphere", 5, documents.unit_count, 0, 1)
    trained = train_natively(model, configuration.training, steps, planes(row, dtype=torch.float64, device=CPU), 3)
    ours = loss_of(target_probabilities(model, trained, tokens("fade", model.vocabulary)))
    expected = oracles.circle(model, configuration.training, documents, row[0], "fade", radius=0.3, points=16)
    assert ours.constant.item() == pytest.approx(expected[0].real.item(), rel=1e-12)
    for order, (real, imaginary) in enumerate(ours.higher, start=1):
        mine = complex(real[0], imaginary[0])
        assert abs(mine - expected[order].item()) <= 1e-9 * abs(expected[order].item()), order


def test_training_at_a_degree_and_cutting_equals_training_at_the_lower_degree(
    configuration: SketchConfiguration, documents: Documents, steps: list[Step]
) -> None:
    chosen = rows("directions", documents.unit_count, 3)
    high, low = (
        train_natively(configuration.model, configuration.training, steps, chosen, degree) for degree in (4, 2)
    )
    assert_close({name: jet.truncate(j, 2) for name, j in high.items()}, low, 1e-12)


def test_a_direction_does_not_depend_on_the_others_of_its_group(
    configuration: SketchConfiguration, documents: Documents, steps: list[Step]
) -> None:
    code = code_for(configuration, planes=2)
    assert code is not None
    arrays = Schedule.of(configuration.model, configuration.training, steps, torch.float64)
    chosen = rows("directions", documents.unit_count, 2 * code.jets.lanes + 1)
    together = train_directions(code, arrays, chosen)
    for number in (0, 5, 2 * code.jets.lanes):
        alone = train_directions(code, arrays, tuple(plane[number : number + 1] for plane in chosen))
        assert torch.equal(alone[:, :, 0], together[:, :, number])


def test_narrower_groups_give_the_same_directions(
    configuration: SketchConfiguration, documents: Documents, steps: list[Step], monkeypatch: pytest.MonkeyPatch
) -> None:
    arrays = Schedule.of(configuration.model, configuration.training, steps, torch.float64)
    chosen = rows("directions", documents.unit_count, 9)
    wide = code_for(configuration, planes=2)
    monkeypatch.setattr(compiling, "_shared_cache_bytes", lambda: 1)
    narrow = code_for(configuration, planes=2)
    assert wide is not None
    assert narrow is not None
    assert narrow.jets.lanes in {wide.jets.lanes // 2, 4}
    torch.testing.assert_close(
        train_directions(narrow, arrays, chosen), train_directions(wide, arrays, chosen), rtol=1e-11, atol=1e-16
    )


def test_axes_that_skip_steps_before_their_first_visit_are_those_that_do_not(
    configuration: SketchConfiguration, documents: Documents, steps: list[Step]
) -> None:
    code = code_for(configuration, planes=1)
    assert code is not None
    arrays = Schedule.of(configuration.model, configuration.training, steps, torch.float64)
    (late,) = block_directions(configuration, Block("axes", 0, 7, 12), documents.unit_count, CPU)
    work: list[int] = []
    skipping = train_directions(code, arrays, (late,), report=work.append)
    assert work[0] == 7 * 5  # steps before the first visit count at once
    assert sum(work) == 12 * 5
    first = torch.eye(documents.unit_count, dtype=torch.float64)[:1]  # visited at step 0, it keeps the group from it
    whole = train_directions(code, arrays, (torch.cat([first, late]),))
    torch.testing.assert_close(skipping, whole[:, :, 1:], rtol=1e-12, atol=1e-16)


@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_retrained_models_are_torchs(dtype: str, configuration: SketchConfiguration, documents: Documents) -> None:
    configuration = dataclasses.replace(configuration, dtype=dtype)  # type: ignore[arg-type]
    sets = [[], [0], [3, 7, 11], *([[number] for number in range(12)] * 2)]
    seen: list[tuple[int, int]] = []
    found = retrain(documents, configuration, sets, downweight=0.8, progress=lambda *work: seen.append(work))
    expected = retrain(documents, configuration, sets, downweight=0.8, native=False)
    assert seen[-1] == (len(sets) * len(documents),) * 2
    for name, matrix in expected.items():
        torch.testing.assert_close(found[name], matrix, rtol=0, atol=1e-14 if dtype == "float64" else 1e-5)


def test_vectors_of_exponentials_and_error_functions_are_the_librarys_to_rounding(
    configuration: SketchConfiguration, documents: Documents
) -> None:
    """Through what uses them, over all that training can meet: large weights make attention and GELU saturate."""
    wild = dataclasses.replace(
        configuration,
        model=dataclasses.replace(configuration.model, initial_deviation=3.0),
        training=TrainingConfiguration(learning_rate=0.05),
    )
    sets = [[number] for number in range(12)]
    found, expected = retrain(documents, wild, sets), retrain(documents, wild, sets, native=False)
    for name, matrix in expected.items():
        torch.testing.assert_close(found[name], matrix, rtol=0, atol=1e-11)


@pytest.mark.parametrize("threads", [1, 2, 5])
@pytest.mark.parametrize("kind", ["directions", "axes", "models"])
def test_measurements_are_torchs_however_they_are_laid_out(
    kind: str, threads: int, configuration: SketchConfiguration, documents: Documents, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("engine.held.cores", lambda: threads)
    model, generator = configuration.model, torch.Generator().manual_seed(1)
    parts = {"directions": (3, 2), "axes": (3, 1), "models": (0, 1)}
    degree, parts_of_coefficient = parts[kind]
    constant = torch.cat([m.flatten() for m in model.initial_parameters().values()])
    native_code(torch.float64, degree, parts_of_coefficient)
    held = [
        room(
            model,
            19,
            dtype=torch.float64,
            device=CPU,
            degree=degree,
            planes=parts_of_coefficient,
            constant=constant if degree else None,
            native=native,
        )
        for native in (True, False)
    ]
    for order in range(degree + 1) if degree else [0]:
        for plane in range(parts_of_coefficient):
            if degree and order == 0:
                continue
            whole = torch.randn(19, len(constant), dtype=torch.float64, generator=generator) * 0.1
            for one in held:
                one.put(0, whole[:7], order=order, plane=plane)  # blocks don't end where groups do
                one.put(7, whole[7:], order=order, plane=plane)
    looked = [targets(measurement, model) for measurement in MEASUREMENTS]
    for found, expected in zip(*(one.probabilities(looked) for one in held), strict=True):
        assert_close({"": found}, {"": expected}, 1e-12)
        assert found.constant.shape == expected.constant.shape
    if kind == "models":
        assert torch.equal(held[0].rows([3, 18, 0]), held[1].rows([3, 18, 0]))


def test_single_precision_stays_close_to_double_over_a_whole_run() -> None:
    """1,000 documents, the default model: every coefficient of losses within 1e-4 of the largest of its order."""
    documents = census_names().first(1_000)
    model = ModelConfiguration(vocabulary=documents.vocabulary)
    training = TrainingConfiguration()
    steps = schedule(model, training, documents, CPU)
    exact, rounded = (
        train_natively(model, training, steps, rows("directions", 1_000, 8, dtype), 3)
        for dtype in (torch.float64, torch.float32)
    )
    for text in ("maria", "zoe", "alexandra"):
        found, expected = (
            read_out_jets("loss", measured_probabilities(Measurement(text=text), model, trained))
            for trained in (rounded, exact)
        )
        assert_close({"": found}, {"": expected}, 1e-4)


def test_builds_by_native_code_and_by_torch_agree(
    tmp_path: Path, documents: Documents, configuration: SketchConfiguration
) -> None:
    from engine.resident import ResidentSketch

    native_code(torch.float64, 3, 2)
    mixed = dataclasses.replace(configuration, axes=True, anchors=32, directions=6)
    sketches = [
        ResidentSketch(build(documents, mixed, tmp_path / str(native), native=native)) for native in (True, False)
    ]
    assert [sketch.artifact.manifest.plan.execution.native for sketch in sketches] == [True, False]
    for measurement in MEASUREMENTS:
        ours, theirs = (sketch.table(measurement).table for sketch in sketches)
        torch.testing.assert_close(ours.baseline, theirs.baseline, rtol=1e-12, atol=1e-14)
        torch.testing.assert_close(ours.coefficients, theirs.coefficients, rtol=1e-9, atol=1e-12)
        assert ours.retrained is not None
        torch.testing.assert_close(ours.retrained, theirs.retrained, rtol=1e-12, atol=1e-14)


@pytest.fixture
def forgetful() -> Iterator[None]:
    """Forget what was found out of compilers, before and after."""
    remembered = (compiling.compiler, compiling._library, compiling._cache, compiling._target)  # noqa: SLF001
    for function in remembered:
        function.cache_clear()
    yield
    for function in remembered:
        function.cache_clear()


@pytest.mark.usefixtures("forgetful")
def test_without_a_compiler_torch_builds_and_it_is_said_once(
    tmp_path: Path,
    documents: Documents,
    configuration: SketchConfiguration,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with caplog.at_level(logging.WARNING):
        assert not build(documents, configuration, tmp_path / "a").manifest.plan.execution.native
        assert not build(documents, configuration, tmp_path / "b").manifest.plan.execution.native
    assert [record.message for record in caplog.records] == [
        "No C++ compiler that works is found (g++): torch does the work, many times slower."
    ]


@pytest.mark.usefixtures("forgetful")
def test_a_compiler_that_does_not_work_gives_way_to_the_next(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    works = compiling.compiler()
    if works is None:
        pytest.skip("no C++ compiler is found")
    compiling.compiler.cache_clear()
    (tmp_path / "broken").symlink_to("/bin/false")
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    monkeypatch.setattr(compiling, "_COMPILERS", ("broken", works))
    assert compiling.compiler() == works


@pytest.mark.usefixtures("forgetful")
def test_a_compiler_that_fails_leaves_the_work_to_torch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(compiling, "_FLAGS", (*compiling._FLAGS, "-not-an-option"))  # noqa: SLF001
    monkeypatch.setattr("platformdirs.user_cache_dir", lambda name: str(tmp_path / name))
    if compiling.compiler() is None:
        pytest.skip("no C++ compiler is found")
    with caplog.at_level(logging.WARNING):
        assert compiling.library(torch.float32, 1, 1) is None
    assert "-not-an-option" in caplog.text
    assert not any((tmp_path / "neverseen" / "native").iterdir())


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Compile without optimisation, in half the time: what is computed doesn't matter."""
    monkeypatch.setattr(compiling, "_FLAGS", UNOPTIMISED)


UNOPTIMISED = tuple(flag for flag in compiling._FLAGS if flag != "-O3")  # noqa: SLF001


@pytest.mark.usefixtures("forgetful", "quick")
def test_compiled_code_is_kept_and_found_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("platformdirs.user_cache_dir", lambda name: str(tmp_path / name))
    native_code(torch.float32, 1, 1)
    [kept] = (tmp_path / "neverseen" / "native").iterdir()
    compiling._library.cache_clear()  # noqa: SLF001

    def run(*arguments: object, **options: object) -> None:
        raise AssertionError("it is compiled again")

    monkeypatch.setattr(subprocess, "run", run)
    native_code(torch.float32, 1, 1)
    assert [kept] == list(kept.parent.iterdir())


LOADING = """
import io, os, sys, torch
from pathlib import Path
sys.stderr, os.environ["XDG_CACHE_HOME"] = io.StringIO(), {place!r}
from engine.native import library
library._FLAGS = {flags!r}
code = library.library(torch.float32, 1, 1)
assert not sys.stderr.getvalue()
Path({place!r}, "lanes").write_text(str(code.lanes))
"""


def test_kept_code_that_is_damaged_is_compiled_anew(tmp_path: Path) -> None:
    """In processes of their own, since what a process has loaded it doesn't look at again."""
    native_code(torch.float32, 1, 1)

    def load() -> str:
        assert succeeds(begin(LOADING.format(place=str(tmp_path), flags=UNOPTIMISED)))
        lanes = (tmp_path / "lanes").read_text()
        (tmp_path / "lanes").unlink()
        return lanes

    lanes = load()
    [kept] = (tmp_path / "neverseen" / "native").iterdir()
    kept.write_bytes(b"")
    assert load() == lanes
    assert not kept.exists()


@pytest.mark.usefixtures("forgetful", "quick")
@pytest.mark.parametrize("what", ["directory", "file"])
def test_code_that_others_could_have_written_is_not_loaded(
    what: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("platformdirs.user_cache_dir", lambda name: str(tmp_path / name))
    native_code(torch.float32, 1, 1)
    [kept] = (tmp_path / "neverseen" / "native").iterdir()
    before = kept.stat().st_mtime_ns
    (kept if what == "file" else kept.parent).chmod(0o777)
    for function in (compiling._library, compiling._cache):  # noqa: SLF001
        function.cache_clear()
    assert native_code(torch.float32, 1, 1).lanes > 0
    if what == "file":
        assert kept.stat().st_mtime_ns != before  # compiled anew, in its place
        assert kept.stat().st_mode & 0o022 == 0
    else:
        assert compiling._cache() != kept.parent  # noqa: SLF001


@pytest.mark.usefixtures("forgetful", "quick")
def test_where_nothing_can_be_kept_code_lasts_as_long_as_the_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("no directory")
    monkeypatch.setattr("platformdirs.user_cache_dir", lambda name: str(tmp_path / "file" / name))
    assert native_code(torch.float32, 1, 1).lanes > 0


def test_flat_parameters_are_matrices_in_their_order(model: ModelConfiguration) -> None:
    initial = model.initial_parameters()
    flat = torch.cat([matrix.flatten() for matrix in initial.values()])
    for name, matrix in matrices(model, torch.stack([flat, 2 * flat])).items():
        assert torch.equal(matrix[1], 2 * initial[name])


def test_plain_training_reports_its_work(
    configuration: SketchConfiguration, documents: Documents, steps: list[Step]
) -> None:
    arrays = Schedule.of(configuration.model, configuration.training, steps, torch.float64)
    work: list[int] = []
    train_models(
        native_code(torch.float64, 0, 1), arrays, torch.ones(9, documents.unit_count).double(), report=work.append
    )
    assert sum(work) == 9 * len(steps)
