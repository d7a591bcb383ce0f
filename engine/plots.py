"""Pictures of figures, as PNG files. Everything that knows matplotlib is here."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from engine.errors import ConfigurationError
from engine.evaluate import Pair
from engine.figures import DerivativeNorms, Expansion, SketchCurve

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def plot_norms(norms: DerivativeNorms, path: Path) -> None:
    """Derivative norms by order; the shade spans single directions."""
    with _one_plot(path) as axes:
        axes.fill_between(norms.orders, norms.smallest, norms.largest, alpha=0.2, label="single directions")
        axes.errorbar(norms.orders, norms.norms, yerr=norms.standard_errors, marker="o", markersize=4, label="norm")
        axes.set_yscale("log", base=2)
        axes.set_xlabel("order r")
        axes.set_ylabel("‖T_r‖")
        axes.set_title(f"Derivative norms, “{norms.measurement}”, {norms.directions} directions")


def plot_expansion(expansion: Expansion, path: Path) -> None:
    """The expansion along one set at every degree, beside retraining."""
    with _one_plot(path) as axes:
        for degree, values in enumerate(expansion.expanded, start=1):
            axes.plot(expansion.downweights, values, linewidth=1, label=f"degree {degree}")
        _retrained(axes, expansion)
        axes.set_title(f"Expansion along {expansion.units} units, “{expansion.measurement}”")


def plot_curve(curve: SketchCurve, path: Path) -> None:
    """What a sketch of random directions says at every degree, with one standard error, beside retraining."""
    with _one_plot(path) as axes:
        for degree, (values, errors) in enumerate(zip(curve.estimates, curve.standard_errors, strict=True), start=1):
            axes.errorbar(curve.downweights, values, yerr=errors, linewidth=1, capsize=2, label=f"degree {degree}")
        _retrained(axes, curve)
        axes.set_title(f"{curve.directions} directions, {curve.units} units, “{curve.measurement}”")


def plot_accuracy(pairs: Sequence[Pair], path: Path) -> None:
    """Estimated against true changes with their intervals, a panel for each kind of deletion set."""
    kinds = list(dict.fromkeys(pair.kind for pair in pairs))
    columns = min(len(kinds), 4)
    rows = -(-len(kinds) // columns)
    with _plots(path, rows, columns) as every:
        for kind, axes in zip(kinds, every, strict=False):
            chosen = [pair for pair in pairs if pair.kind == kind]
            true = np.array([pair.truth - pair.baseline for pair in chosen])
            estimate = np.array([pair.estimate - pair.baseline for pair in chosen])
            ends = np.array([pair.interval for pair in chosen]) - np.array([[pair.baseline] for pair in chosen])
            reach = np.abs(ends - estimate[:, None]).T
            axes.errorbar(true, estimate, yerr=reach, fmt="o", markersize=2, linewidth=0.4, alpha=0.6)
            axes.axline((0, 0), slope=1, color="black", linewidth=0.8)
            # A bar may be a hundred times as long as what it belongs to: it shall not squeeze all the others.
            low, high = min(true.min(), estimate.min()), max(true.max(), estimate.max())
            margin = max(0.1 * (high - low), 1e-6)
            axes.set(xlim=(low - margin, high + margin), ylim=(low - margin, high + margin))
            axes.locator_params(nbins=5)
            axes.set_title(kind, fontsize="medium")
            axes.set_xlabel("true change")
            axes.set_ylabel("estimated, with interval")
        for axes in every[len(kinds) :]:
            axes.set_axis_off()


def _retrained(axes: Axes, curve: Expansion | SketchCurve) -> None:
    axes.plot(
        curve.downweights, curve.retrained, color="black", marker="o", markersize=4, linewidth=1, label="retrained"
    )
    axes.set_xlabel("downweight w")
    axes.set_ylabel("measurement")


@contextmanager
def _one_plot(path: Path) -> Iterator[Axes]:
    with _plots(path, 1, 1) as (axes,):
        yield axes
        axes.legend(fontsize="small")


@contextmanager
def _plots(path: Path, rows: int, columns: int) -> Iterator[list[Axes]]:
    """Axes to draw in, row by row; written at the end.

    Raises:
        ConfigurationError: the file can't be written.
    """
    from matplotlib.figure import Figure  # slow to import, and most commands draw nothing  # noqa: PLC0415

    figure = Figure(figsize=(1 + 4 * columns, 0.8 + 3.2 * rows), layout="constrained")
    yield list(figure.subplots(rows, columns, squeeze=False).flat)
    try:
        figure.savefig(path, dpi=150, format="png")
    except OSError as error:
        raise ConfigurationError(f"{path.name} can't be written: {error.strerror}.") from error
