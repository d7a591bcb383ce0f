"""The paper's figures, of any training run: how stable it is, how far an expansion goes, what a sketch sees.

- `derivative_norms`: the norm of every order of the derivative, by E N_r |y_r(ψ)|² = ‖T_r‖². Training is stable, and
  sketches can be small, where they fall quickly.
- `expansion`: the Taylor expansion along one deletion set itself, beside the model retrained at every downweight:
  what an estimator would give that made no error but truncation.
- `sketch_curve`: the same curve as a sketch of random directions sees it.

After S. Gunn, *How to sketch a learning algorithm*, arXiv 2604.07328. `engine.plots` draws them.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from engine.blocks import train_block
from engine.configuration import SketchConfiguration
from engine.devices import torch_device
from engine.directions import dimension, directions, planes
from engine.documents import Documents
from engine.errors import DeletionSetError
from engine.jet import Coefficient, Jet
from engine.measure import Measurement, measure_models, measured_probabilities, read_out_jets
from engine.question import Prediction, Question, check_units
from engine.resident import ResidentSketch
from engine.retrain import retrain
from engine.threads import one_thread
from engine.train import Progress, schedule


@dataclass(frozen=True, kw_only=True)
class DerivativeNorms:
    """‖T_r‖ of a measurement, by order.

    Attributes:
        measurement: what was measured.
        directions: how many of the sphere were averaged.
        orders: 1 … S.
        norms: root of the mean of N_r |y_r|² over the directions.
        standard_errors: of the norms. N_r |y_r|² has heavy tails at high orders: with few directions these are too
            small as often as not, and the norms with them.
        smallest, largest: among single directions, sqrt(N_r) |y_r|.
    """

    measurement: str
    directions: int
    orders: list[int]
    norms: list[float]
    standard_errors: list[float]
    smallest: list[float]
    largest: list[float]


@dataclass(frozen=True, kw_only=True)
class Expansion:
    """A measurement along w·1_D: retrained, and by the expansion at w = 0.

    Attributes:
        measurement: what was measured.
        units: how many D has.
        downweights: w.
        retrained: the true value at each.
        expanded: values of the expansion up to degree 1 … S, a row a degree.
        errors: |expanded - retrained| at the last downweight, a number a degree.
    """

    measurement: str
    units: int
    downweights: list[float]
    retrained: list[float]
    expanded: list[list[float]]
    errors: list[float]


@dataclass(frozen=True, kw_only=True)
class SketchCurve:
    """A measurement along w·1_D: retrained, and by the sphere estimator.

    Attributes:
        measurement: what was measured.
        units: how many D has.
        directions: of the sketch.
        downweights: w.
        retrained: the true value at each.
        estimates: values up to degree 1 … S, a row a degree.
        standard_errors: of the estimates.
    """

    measurement: str
    units: int
    directions: int
    downweights: list[float]
    retrained: list[float]
    estimates: list[list[float]]
    standard_errors: list[list[float]]


def units_containing(documents: Documents, text: str) -> tuple[int, ...]:
    """The units with a document that contains a text, ascending.

    Raises:
        DeletionSetError: there are none, or it is all of them.
    """
    units = {unit for other, unit in zip(documents.texts, documents.unit_of, strict=True) if text in other}
    if not units:
        raise DeletionSetError(f"No document contains {text!r}.")
    check_units(sorted(units), documents.unit_count)
    return tuple(sorted(units))


def derivative_norms(
    documents: Documents,
    configuration: SketchConfiguration,
    measurement: Measurement,
    *,
    device: str = "cpu",
    progress: Progress = lambda done, total: None,
) -> DerivativeNorms:
    """Train along the configuration's directions and average; no sketch is kept.

    Args:
        documents: in training order.
        configuration: its degree is the highest order, its directions are drawn from the sphere.
        measurement: a loss or a log-probability.
        device: "cpu", or a CUDA device.
        progress: called with the steps done and all of them.
    """
    place, count = torch_device(device), configuration.directions
    drawn = directions("sphere", configuration.seed, documents.unit_count, 0, count)
    rows = planes(drawn, dtype=configuration.torch_dtype, device=place)
    jets = _trained_along(documents, configuration, measurement, rows, device=device, progress=progress)
    orders = list(range(1, configuration.degree + 1))
    dimensions = [float(dimension(documents.unit_count, order)) for order in orders]
    squares = torch.stack(
        [
            scale * torch.stack(coefficient).square().sum(dim=0)[:, 0]
            for scale, coefficient in zip(dimensions, jets.higher, strict=True)
        ]
    )  # N_r |y_r(ψ_j)|², [S, K]
    norms = squares.mean(dim=1).sqrt()
    return DerivativeNorms(
        measurement=measurement.label,
        directions=count,
        orders=orders,
        norms=norms.tolist(),
        standard_errors=(squares.std(dim=1) / count**0.5 / (2 * norms)).tolist(),  # of a root
        smallest=squares.amin(dim=1).sqrt().tolist(),
        largest=squares.amax(dim=1).sqrt().tolist(),
    )


def expansion(
    documents: Documents,
    configuration: SketchConfiguration,
    units: Sequence[int],
    measurement: Measurement,
    *,
    downweights: Sequence[float],
    device: str = "cpu",
    progress: Progress = lambda done, total: None,
) -> Expansion:
    """Train along 1_D in real jets of the configuration's degree, and retrain at every downweight.

    Args:
        documents: in training order.
        configuration: of the model, its training and the degree.
        units: D.
        measurement: a loss or a log-probability.
        downweights: ascending.
        device: "cpu", or a CUDA device.
        progress: called with the steps done and all of them.

    Raises:
        DeletionSetError: D is no deletion set.
    """
    check_units(units, documents.unit_count)
    indicator = torch.zeros(1, documents.unit_count, dtype=configuration.torch_dtype, device=torch_device(device))
    indicator[0, list(units)] = 1
    steps = len(documents) * configuration.training.epochs
    whole = (1 + len(downweights)) * steps
    jets = _trained_along(
        documents,
        configuration,
        measurement,
        (indicator,),
        device=device,
        progress=lambda done, _: progress(done, whole),
    )
    true = _retrained_values(
        documents,
        configuration,
        units,
        measurement,
        downweights,
        device=device,
        progress=lambda done, _: progress(steps + done, whole),
    )
    orders = [jets.constant.item(), *(plane.item() for (plane,) in jets.higher)]
    expanded = [
        [sum(orders[r] * downweight**r for r in range(degree + 1)) for downweight in downweights]
        for degree in range(1, len(orders))
    ]
    return Expansion(
        measurement=measurement.label,
        units=len(units),
        downweights=list(downweights),
        retrained=true,
        expanded=expanded,
        errors=[abs(values[-1] - true[-1]) for values in expanded],
    )


def sketch_curve(
    sketch: ResidentSketch,
    documents: Documents,
    units: Sequence[int],
    measurement: Measurement,
    *,
    downweights: Sequence[float],
    progress: Progress = lambda done, total: None,
) -> SketchCurve:
    """Ask a sketch of random directions at every degree that it has, and retrain at every downweight.

    Args:
        sketch: with random directions.
        documents: that it was built from.
        units: D.
        measurement: a loss or a log-probability.
        downweights: ascending, two or more.
        progress: called with the steps done and all of them.

    Raises:
        DeletionSetError: D is no deletion set.
        QuestionError: the sketch can't be asked so.
    """
    configuration = sketch.configuration
    curves = []
    for degree in range(1, configuration.degree + 1):
        question = Question(estimator="sphere", degree=degree, downweights=tuple(downweights))
        (answer,) = sketch.predict([measurement], units, question)
        assert isinstance(answer, Prediction)
        curves.append(answer.curve)
    true = _retrained_values(
        documents, configuration, units, measurement, downweights, device=str(sketch.device), progress=progress
    )
    return SketchCurve(
        measurement=measurement.label,
        units=len(units),
        directions=configuration.directions,
        downweights=list(downweights),
        retrained=true,
        estimates=[[point.estimate for point in curve] for curve in curves],
        standard_errors=[[point.standard_error for point in curve] for curve in curves],
    )


@one_thread()
@torch.inference_mode()
def _trained_along(
    documents: Documents,
    configuration: SketchConfiguration,
    measurement: Measurement,
    rows: Coefficient,
    *,
    device: str,
    progress: Progress,
) -> Jet:
    """Jets of a measurement along directions, float64 of shape [K, 1]."""
    place = torch_device(device)
    steps = schedule(configuration.model, configuration.training, documents, place)
    trained = train_block(configuration, steps, rows, on_step=progress)
    values = read_out_jets(measurement.kind, measured_probabilities(measurement, configuration.model, trained))
    return Jet(values.constant, tuple(tuple(plane.cpu() for plane in planes) for planes in values.higher))


def _retrained_values(
    documents: Documents,
    configuration: SketchConfiguration,
    units: Sequence[int],
    measurement: Measurement,
    downweights: Sequence[float],
    *,
    device: str,
    progress: Progress,
) -> list[float]:
    """The measurement at every downweight of the same set."""
    sets = [units] * len(downweights)
    precise = dataclasses.replace(configuration, dtype="float64")
    models = retrain(documents, precise, sets, downweight=downweights, device=device, progress=progress)
    return [float(value) for value in measure_models(measurement, configuration.model, models)]
