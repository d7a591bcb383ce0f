"""The paper's figures against retraining, and against the same norms by other means; and that they are drawn."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path

import matplotlib.image
import pytest
import torch

from engine.configuration import SketchConfiguration
from engine.directions import dimension, directions
from engine.documents import Documents
from engine.errors import ConfigurationError, DeletionSetError
from engine.evaluate import Pair
from engine.figures import derivative_norms, expansion, sketch_curve, units_containing
from engine.measure import Measurement, measure_models
from engine.plots import plot_accuracy, plot_curve, plot_expansion, plot_norms
from engine.resident import ResidentSketch
from engine.retrain import retrain
from engine.sketch import build
from tests.oracles import circle

LOSS = Measurement(text="face")
DOWNWEIGHTS = (0.0, 0.05, 0.5, 1.0)


def test_norms_are_those_along_a_circle_of_complex_downweights(
    documents: Documents, configuration: SketchConfiguration
) -> None:
    few = dataclasses.replace(configuration, directions=3, degree=4, seed=5)
    norms = derivative_norms(documents, few, LOSS)
    along = [
        circle(few.model, few.training, documents, row, LOSS.text, radius=0.5, points=24)
        for row in directions("sphere", 5, documents.unit_count, 0, 3)
    ]
    for order in norms.orders:
        squares = [dimension(12, order) * abs(coefficients[order].item()) ** 2 for coefficients in along]
        assert norms.norms[order - 1] == pytest.approx(math.sqrt(sum(squares) / 3), rel=1e-6)
        assert norms.smallest[order - 1] == pytest.approx(math.sqrt(min(squares)), rel=1e-6)
        assert norms.largest[order - 1] == pytest.approx(math.sqrt(max(squares)), rel=1e-6)
        error = torch.tensor(squares).std().item() / math.sqrt(3) / (2 * norms.norms[order - 1])
        assert norms.standard_errors[order - 1] == pytest.approx(error, rel=1e-5)


def test_an_expansion_leaves_from_the_truth(documents: Documents, configuration: SketchConfiguration) -> None:
    units = units_containing(documents, "ea")
    assert units == (3, 6)
    high = dataclasses.replace(configuration, degree=6)
    steps: list[tuple[int, int]] = []
    found = expansion(documents, high, units, LOSS, downweights=DOWNWEIGHTS, progress=lambda *step: steps.append(step))
    for downweight, value in zip(DOWNWEIGHTS, found.retrained, strict=True):
        model = retrain(documents, high, [units], downweight=downweight)
        assert value == pytest.approx(measure_models(LOSS, high.model, model).item(), abs=1e-12)
    near = [abs(row[1] - found.retrained[1]) for row in found.expanded]
    assert near[5] < 1e-8 < near[0]
    assert near == sorted(near, reverse=True)
    assert all(row[0] == pytest.approx(found.retrained[0], abs=1e-12) for row in found.expanded)
    assert found.errors == [abs(row[-1] - found.retrained[-1]) for row in found.expanded]
    assert steps[-1] == (5 * len(documents), 5 * len(documents))
    assert [done for done, _ in steps] == sorted(done for done, _ in steps)


def test_everything_is_drawn(documents: Documents, configuration: SketchConfiguration, tmp_path: Path) -> None:
    sketch = ResidentSketch(build(documents, configuration, tmp_path / "sketch"))
    units = units_containing(documents, "ea")
    curve = sketch_curve(sketch, documents, units, LOSS, downweights=DOWNWEIGHTS)
    assert [len(curve.estimates), len(curve.estimates[0])] == [3, len(DOWNWEIGHTS)]
    assert [row[0] for row in curve.standard_errors] == [0, 0, 0]
    assert curve.estimates[1][-1] != curve.estimates[2][-1]
    pairs = [
        Pair(
            kind=kind,
            units=1,
            measurement="face",
            baseline=2.0,
            estimate=2.1 + number / 10,
            interval=(2.0, 2.3 + number / 10),
            truth=2.2,
            estimator="axes",
        )
        for kind in ("a", "b", "c", "d", "e")
        for number in range(3)
    ]
    plot_curve(curve, tmp_path / "curve.png")
    plot_expansion(expansion(documents, configuration, units, LOSS, downweights=DOWNWEIGHTS), tmp_path / "along.png")
    plot_norms(derivative_norms(documents, configuration, LOSS), tmp_path / "norms.png")
    plot_accuracy(pairs, tmp_path / "accuracy.png")
    for name in ("curve", "along", "norms", "accuracy"):
        picture = matplotlib.image.imread(tmp_path / f"{name}.png")
        assert picture.shape[0] > 300
        assert picture[..., :3].std() > 0.02  # there is something on it
    with pytest.raises(ConfigurationError, match="can't be written"):
        plot_accuracy(pairs, tmp_path / "missing" / "nowhere.png")


@pytest.mark.parametrize(("text", "message"), [("zz", "No document contains 'zz'"), ("", "whole data set")])
def test_what_no_document_or_every_one_contains_is_refused(documents: Documents, text: str, message: str) -> None:
    with pytest.raises(DeletionSetError, match=message):
        units_containing(documents, text)
