"""Training in jets against training with ordinary numbers."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from engine import jet, plain
from engine.captured import UNFINISHED_STEPS, Replays, replayed
from engine.compiled import fused, worth_fusing
from engine.configuration import SketchConfiguration
from engine.directions import directions
from engine.directions import planes as planes_of
from engine.documents import Documents, tokens
from engine.errors import ConfigurationError
from engine.jet import Jet
from engine.model import ModelConfiguration, Parameters, forward, loss_gradient, target_probabilities
from engine.retrain import retrain
from engine.train import (
    State,
    Step,
    TrainingConfiguration,
    Weight,
    adam_rates,
    adam_update,
    along_directions,
    constant_jets,
    initial_state,
    of_models,
    schedule,
    tabulated,
    take_step,
    train,
    update_in_place,
)
from tests import oracles, strategies
from tests.oracles import loss_of
from tests.strategies import train_along


def loss(configuration: SketchConfiguration, parameters: dict[str, Jet], text: str) -> Jet:
    model = configuration.model
    return loss_of(target_probabilities(model, parameters, tokens(text, model.vocabulary)))


def test_coefficients_agree_with_complex_training_on_a_circle(
    configuration: SketchConfiguration, documents: Documents, steps: list[Step]
) -> None:
    """12 steps; the oracle's error is about T_{r+16}·radius^16 + 1e-16/radius^r, far below the tolerance."""
    assert len(steps) >= 12
    rows = directions("sphere", 5, documents.unit_count, 0, 2)
    ours = loss(configuration, train_along(configuration, steps, rows), "fade")
    for number, row in enumerate(rows):
        expected = oracles.circle(
            configuration.model, configuration.training, documents, row, "fade", radius=0.3, points=16
        )
        assert ours.constant.item() == pytest.approx(expected[0].real.item(), rel=1e-12)
        for order, (real, imaginary) in enumerate(ours.higher, start=1):
            mine = complex(real[number], imaginary[number])
            assert abs(mine - expected[order].item()) <= 1e-9 * abs(expected[order].item()), order


def test_training_at_a_degree_and_cutting_equals_training_at_the_lower_degree(
    configuration: SketchConfiguration, documents: Documents, steps: list[Step]
) -> None:
    rows = directions("sphere", 1, documents.unit_count, 0, 3)
    high = train_along(configuration, steps, rows)
    low = train_along(dataclasses.replace(configuration, degree=2), steps, rows)
    for name, parameter in low.items():
        for planes, expected in zip(parameter.higher, jet.truncate(high[name], 2).higher, strict=True):
            for plane, other in zip(planes, expected, strict=True):
                torch.testing.assert_close(plane, other, rtol=1e-10, atol=1e-14)


def test_the_ring_gradient_is_what_autograd_says_of_the_top_coefficient(
    configuration: SketchConfiguration, steps: list[Step]
) -> None:
    """The derivative of L_S by θ_j is coefficient S - j of the ring gradient; torch only sees the forward pass."""
    model, degree = configuration.model, 3
    parameters = {
        name: Jet(
            matrix,
            tuple((torch.randn(1, *matrix.shape, dtype=torch.float64) * 0.05,) for _ in range(degree)),
        )
        for name, matrix in model.initial_parameters().items()
    }
    leaves = [plane.requires_grad_() for p in parameters.values() for planes in p.coefficients for plane in planes]
    logits, pull = forward(model, parameters, steps[0].inputs)
    probabilities = jet.softmax(logits)
    hot = torch.nn.functional.one_hot(steps[0].targets, len(model.vocabulary) + 1).double()
    target = jet.linear_map(lambda plane: (plane * hot).sum(-1), probabilities)
    top = loss_of(target).higher[-1][0].sum()
    by_autograd = torch.autograd.grad(top, leaves)
    ring = pull(loss_gradient(logits, steps[0].targets))
    expected = [planes[0] for gradient in ring.values() for planes in reversed(gradient.coefficients)]
    for found, coefficient in zip(by_autograd, expected, strict=True):
        torch.testing.assert_close(found.squeeze(), coefficient.detach().squeeze(), rtol=1e-9, atol=1e-12)


def test_a_document_longer_than_the_context_is_cut(model: ModelConfiguration) -> None:
    long = Documents.from_records([("abcdefabcdefabcdef", None)])
    [step] = schedule(model, TrainingConfiguration(), long, torch.device("cpu"))
    assert len(step.inputs) == len(step.targets) == model.context


def test_several_epochs_are_the_schedule_repeated(configuration: SketchConfiguration, documents: Documents) -> None:
    training = TrainingConfiguration(epochs=3)
    configuration = dataclasses.replace(configuration, training=training)
    steps = schedule(configuration.model, training, documents, torch.device("cpu"))
    assert len(steps) == 3 * len(documents)
    models = retrain(documents, configuration, [[2, 5]])
    initial = configuration.model.initial_parameters()
    expected = plain.train(
        configuration.model, training, steps, initial, weight=lambda unit: 0.0 if unit in (2, 5) else 1.0
    )
    for name, matrix in expected.items():
        torch.testing.assert_close(models[name][0], matrix, rtol=1e-9, atol=1e-11)


def test_many_retrains_at_once_equal_plain_training_one_by_one(
    configuration: SketchConfiguration, documents: Documents, steps: list[Step]
) -> None:
    sets = [[], [0], [3, 7, 11], [1, 2, 4, 5, 6]]
    models = retrain(documents, configuration, sets, batch=3)
    for row, units in enumerate(sets):
        expected = plain.train(
            configuration.model,
            configuration.training,
            steps,
            configuration.model.initial_parameters(),
            weight=lambda unit, units=units: 0.0 if unit in units else 1.0,  # type: ignore[misc]
        )
        for name, matrix in expected.items():
            torch.testing.assert_close(models[name][row], matrix, rtol=1e-9, atol=1e-11)


def test_deeper_models_train(documents: Documents, configuration: SketchConfiguration) -> None:
    model = dataclasses.replace(configuration.model, layers=2, width=12, heads=3, context=6)
    deep = dataclasses.replace(configuration, model=model)
    steps = schedule(model, deep.training, documents, torch.device("cpu"))
    rows = directions("sphere", 5, documents.unit_count, 0, 1)
    ours = loss(deep, train_along(deep, steps, rows), "bed")
    expected = oracles.circle(model, deep.training, documents, rows[0], "bed", radius=0.3, points=16)
    for order, (real, imaginary) in enumerate(ours.higher, start=1):
        mine = complex(real[0], imaginary[0])
        assert abs(mine - expected[order].item()) <= 1e-9 * abs(expected[order].item()), order


def test_the_fused_update_agrees_with_the_plain_one() -> None:
    if not worth_fusing(10**9):
        pytest.skip("no C++ compiler is found, so nothing is ever fused here")
    jets = [strategies.random_jet(seed, 3, 2, (5, 7)) for seed in range(4)]
    parameter, first, gradient = jets[0], jets[1], jets[3]
    second = jet.square(jets[2])
    rates = adam_rates(TrainingConfiguration(), 4, 100)
    plainly = adam_update(parameter, first, second, gradient, rates)
    at_once = fused(adam_update)(parameter, first, second, gradient, rates)
    fused(update_in_place)(parameter, first, second, gradient, rates)
    for expected, found, written in zip(plainly, at_once, (parameter, first, second), strict=True):
        assert_same_jets(found, expected, tolerance=1e-12)
        assert_same_jets(written, expected, tolerance=1e-12)


@dataclasses.dataclass(frozen=True)
class Case:
    """A training over documents of several lengths, two epochs of them."""

    model: ModelConfiguration
    training: TrainingConfiguration
    steps: list[Step]
    initial: Parameters
    weight: Weight
    start: int = 0

    def train(self) -> dict[str, Jet]:
        return train(self.model, self.training, self.steps, self.initial, self.weight, start=self.start)


@pytest.fixture(params=["directions", "axes", "models"])
def case(request: pytest.FixtureRequest, model: ModelConfiguration) -> Case:
    texts = ["abe", "cafe", "dad", "a", "faced", "cab", "beadedface", "deaf"]  # one longer than the context
    documents = Documents.from_records((text, None) for text in texts)
    training, units = TrainingConfiguration(epochs=2), documents.unit_count
    steps = schedule(model, training, documents, torch.device("cpu"))
    assert len({len(step.inputs) for step in steps}) == 5
    matrices = model.initial_parameters()
    match request.param:
        case "directions":
            rows = planes_of(directions("sphere", 3, units, 0, 4), dtype=torch.float64, device=torch.device("cpu"))
            jets = constant_jets(matrices.items(), 3, 2, 4)
            return Case(model, training, steps, jets, along_directions(rows))
        case "axes":
            axes = torch.eye(units, dtype=torch.float64)[3:6]
            return Case(model, training, steps, constant_jets(matrices.items(), 2, 1, 3), along_directions((axes,)), 3)
        case _:
            downweights = torch.zeros(3, units, dtype=torch.float64)
            downweights[1, [0, 4]], downweights[2, 7] = 1, 0.5
            models = {name: Jet(matrix.expand(3, -1, -1)) for name, matrix in matrices.items()}
            return Case(model, training, steps, models, of_models(downweights))


def trained_afresh(case: Case) -> dict[str, Jet]:
    """The loop as one would write it: new tensors at every step, whose inputs come from the host."""
    initial = case.initial
    current = {name: jet.truncate(parameter, 0) if case.start else parameter for name, parameter in initial.items()}
    first = {name: jet.zeros_like(parameter) for name, parameter in current.items()}
    second = dict(first)
    for index, step in enumerate(case.steps):
        if case.start and index == case.start:
            for jets in (current, first, second):
                jets.update({name: Jet(jets[name].constant, initial[name].higher) for name in jets})
        logits, pull = forward(case.model, current, step.inputs)
        gradients = pull(case.weight(loss_gradient(logits, step.targets), torch.tensor([step.unit])))
        rates = adam_rates(case.training, index, len(case.steps))
        for name, gradient in gradients.items():
            current[name], first[name], second[name] = adam_update(
                current[name], first[name], second[name], gradient, rates
            )
    return current


def assert_same_jets(found: Jet, expected: Jet, *, tolerance: float) -> None:
    for planes_found, planes_expected in zip(found.coefficients, expected.coefficients, strict=True):
        for plane, other in zip(planes_found, planes_expected, strict=True):
            torch.testing.assert_close(plane, other, rtol=tolerance, atol=tolerance)


def test_steps_in_place_are_steps_on_new_tensors(case: Case) -> None:
    before = {name: jet.linear_map(torch.clone, parameter) for name, parameter in case.initial.items()}
    found, expected = case.train(), trained_afresh(case)
    for name, parameter in found.items():
        assert_same_jets(parameter, expected[name], tolerance=1e-13)
        assert_same_jets(case.initial[name], before[name], tolerance=0)  # the caller's are read only


class Tape(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """What a CUDA graph does, on the processor: it records a step's operations, and repeats them on the same tensors.

    What a graph can't hold is refused: reading a number on the host, and making a tensor from one.
    """

    FORBIDDEN = ("_local_scalar_dense", "is_nonzero", "equal", "lift_fresh", "nonzero", "masked_select")

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.recorded: list[Callable[[], object]] = []

    def __torch_dispatch__(self, func: Any, types: object, args: Any = (), kwargs: Any = None) -> object:
        name = func.overloadpacket.__name__
        assert name not in self.FORBIDDEN, name
        again = functools.partial(func, *args, **(kwargs or {}))
        result = again()
        aliases = [returned.alias_info for returned in func._schema.returns]  # noqa: SLF001
        if any(alias is not None and alias.is_write for alias in aliases):
            self.recorded.append(again)
        elif not any(aliases):  # a view needs no repeating
            self.recorded.append(lambda: result.copy_(again()))
        return result

    def replay(self) -> None:
        for repeat in self.recorded:
            repeat()


def test_a_step_is_captured_once_for_a_length_and_replayed(case: Case) -> None:
    """Taping runs the work and capturing doesn't, so what is taped is taken back."""
    state = initial_state(case.initial)
    table = tabulated(case.training, case.steps, next(iter(case.initial.values())).constant)

    def capture(work: Callable[[], None]) -> Callable[[], None]:
        kept = [tensor.clone() for tensor in tensors_of(state)]
        tape = Tape()
        with tape:
            work()
        for tensor, before in zip(tensors_of(state), kept, strict=True):
            tensor.copy_(before)
        return tape.replay

    def step(length: int) -> None:
        take_step(case.model, table, case.weight, state, length, update_in_place)

    take = Replays(step, capture, wait=lambda: None)
    lengths = [len(step.inputs) for step in case.steps]
    for length in lengths:
        take(length)
    assert take.captured == set(lengths)
    assert state.done.item() == len(case.steps)
    for name, expected in dataclasses.replace(case, start=0).train().items():
        assert_same_jets(state.parameters[name], expected, tolerance=1e-13)


@pytest.mark.parametrize("start", [0, 3])
def test_training_makes_all_its_tensors_on_its_device(start: int, configuration: SketchConfiguration) -> None:
    """Tensors of the device `meta` have no numbers that could be read, and don't mix with those of the processor."""
    meta, model = torch.device("meta"), configuration.model
    steps = [Step(torch.empty(t, dtype=torch.int64, device=meta), torch.empty(t, device=meta), 1) for t in (4, 5, 4, 4)]
    matrices = ((name, matrix.to(meta)) for name, matrix in model.initial_parameters().items())
    weight = along_directions((torch.empty(2, 3, device=meta, dtype=torch.float64),))
    trained = train(model, configuration.training, steps, constant_jets(matrices, 3, 1, 2), weight, start=start)
    assert all(plane.is_meta for jets in trained.values() for planes in jets.coefficients for plane in planes)


def tensors_of(state: State) -> list[torch.Tensor]:
    jets = (parameter for part in state[:3] for parameter in part.values())
    return [plane for parameter in jets for planes in parameter.coefficients for plane in planes] + [state.done]


def test_no_two_tensors_of_a_state_share_memory(case: Case) -> None:
    tensors = tensors_of(initial_state(case.initial))
    assert all(tensor.is_contiguous() for tensor in tensors)  # a matrix expanded to many models is many matrices
    assert len({tensor.untyped_storage().data_ptr() for tensor in tensors}) == len(tensors)


def test_a_key_is_warmed_up_then_captured_then_replayed_and_the_device_is_waited_for() -> None:
    happened: list[str] = []

    def capture(work: Callable[[], None]) -> Callable[[], None]:
        happened.append("capture")
        return lambda: happened.append("replay")

    take = Replays(lambda key: happened.append(f"step {key}"), capture, lambda: happened.append("wait"))
    for key in (3, 3, 5, 3, *[5] * (UNFINISHED_STEPS - 3)):
        take(key)
    assert happened[:6] == ["step 3", "capture", "replay", "step 5", "replay", "capture"]
    assert happened.index("wait") == UNFINISHED_STEPS + 2  # after as many steps, and two captures
    assert happened[UNFINISHED_STEPS + 3 :] == ["replay"]
    assert take.captured == {3, 5}
    take.clear()
    assert not take.captured


def test_on_the_processor_steps_are_taken_as_they_are() -> None:
    taken: list[int] = []
    with replayed(taken.append, torch.device("cpu")) as take:
        for key in (4, 4, 4):
            take(key)
    assert taken == [4, 4, 4]


def test_single_precision_stays_close_to_double(configuration: SketchConfiguration, documents: Documents) -> None:
    single = dataclasses.replace(configuration, dtype="float32")
    rows = directions("sphere", 0, documents.unit_count, 0, 8)
    place = torch.device("cpu")
    exact, rounded = (
        loss(c, train_along(c, schedule(c.model, c.training, documents, place), rows), "cafe")
        for c in (configuration, single)
    )
    assert rounded.constant.item() == pytest.approx(exact.constant.item(), rel=1e-6)
    for planes, expected in zip(rounded.higher, exact.higher, strict=True):
        size = max(plane.abs().max().item() for plane in expected)
        for plane, other in zip(planes, expected, strict=True):
            assert (plane - other).abs().max().item() <= 1e-4 * size


def test_zero_jets_start_every_direction_at_the_same_point(model: ModelConfiguration) -> None:
    jets = constant_jets(model.initial_parameters().items(), 2, 2, 5)
    assert all(not plane.any() for p in jets.values() for planes in p.higher for plane in planes)
    assert all(plane.shape[0] == 5 for p in jets.values() for planes in p.higher for plane in planes)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"epochs": 0}, "epochs"),
        ({"learning_rate": 0.0}, "learning_rate"),
        ({"epsilon": -1.0}, "epsilon"),
        ({"beta2": 1.0}, "beta"),
    ],
)
def test_impossible_training_is_refused(change: dict[str, float], message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        TrainingConfiguration(**change)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("change", "message"),
    [({"width": 10, "heads": 4}, "multiple"), ({"layers": 0}, "layers"), ({"vocabulary": ""}, "vocabulary")],
)
def test_impossible_models_are_refused(change: dict[str, int | str], message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        ModelConfiguration(**{"vocabulary": "abc", **change})  # type: ignore[arg-type]
