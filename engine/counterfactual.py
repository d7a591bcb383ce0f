"""Counterfactual models: all parameters without a deletion set, to keep, to load elsewhere, and to draw texts from.

Where the model was retrained without this very set, its parameters are that model's. Else they are added up from the
models without every unit (and without every pair of units, where a sketch has pairs):

    θ(D) ≈ θ(∅) + Σ_{u in D} (θ(u) - θ(∅)) + Σ_{u < v in D} (θ(u, v) - θ(u) - θ(v) + θ(∅))

Adding up parameters is coarser than adding up probabilities: measurements are better asked of the sketch.
"""

from __future__ import annotations

import bisect
import itertools
import json
import math
import random
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal, TypeAlias

import torch
from torch import Tensor

from engine.errors import QuestionError
from engine.jet import Jet
from engine.measure import Measurement, targets
from engine.model import ModelConfiguration, forward, matrices
from engine.question import check_units
from engine.resident import ResidentSketch
from engine.store import save_tensors

ModelSource: TypeAlias = Literal["trained", "retrained", "pairs", "axes"]

FORMAT = "neverseen-model"

MOST_SAMPLES = 100
"""Texts of one request."""

LEAST_TEMPERATURE = 1e-6
"""Below, the likeliest character is all but certain; far below, the division overflows."""

MOST_TEMPERATURE = 10.0
"""Beyond, texts are noise."""


@dataclass(frozen=True, kw_only=True)
class Model:
    """A plain model.

    Attributes:
        configuration: its shape and vocabulary.
        matrices: parameters by name.
        source: "trained" ordinarily, "retrained" without a deletion set, or added up from "axes" or "pairs".
    """

    configuration: ModelConfiguration
    matrices: dict[str, Tensor]
    source: ModelSource


def trained_model(sketch: ResidentSketch) -> Model:
    """The model after ordinary training."""
    frame = sketch.frame
    return Model(
        configuration=frame.model,
        matrices=dict(frame.trained),
        source="trained",
    )


@torch.inference_mode()
def counterfactual_model(sketch: ResidentSketch, units: Sequence[int]) -> Model:
    """The model without a deletion set.

    Args:
        sketch: with axes, or retrained without this set.
        units: the deletion set.

    Raises:
        DeletionSetError: no deletion set.
        QuestionError: the sketch has no axes.
    """
    check_units(units, sketch.unit_count)
    frame, base = sketch.frame, trained_model(sketch).matrices
    retrained = sketch.retrained_model(units)
    if retrained is not None:
        return Model(configuration=frame.model, matrices=retrained, source="retrained")
    if frame.axes is None:
        raise QuestionError(
            "The sketch has no axes, so that it can't tell parameters; a build with --axes serves this question."
        )
    assert frame.holdings is not None
    chosen = sorted(units)
    start = torch.cat([matrix.flatten() for matrix in base.values()]).double()
    alone = frame.holdings.models(chosen).double()
    total = start + (alone - start).sum(dim=0)
    paired = frame.axes.pairs and len(chosen) > 1
    if paired:
        together = [_pair_row(first, second, sketch.unit_count) for first, second in itertools.combinations(chosen, 2)]
        # Σ over pairs of θ(u) + θ(v) - θ(∅), where every unit is in |D| - 1 pairs.
        expected = (len(chosen) - 1) * alone.sum(dim=0) - len(together) * start
        total = total + frame.holdings.models(together).double().sum(dim=0) - expected
    summed = matrices(frame.model, total.to(sketch.configuration.torch_dtype))
    return Model(configuration=frame.model, matrices=summed, source="pairs" if paired else "axes")


def _pair_row(first: int, second: int, units: int) -> int:
    """Where the model without two units lies, first < second: after the single ones, in `anchors.pairs`' order."""
    before = first * units - first * (first + 1) // 2
    return units + before + second - first - 1


def save_model(model: Model, path: Path, *, about: str) -> None:
    """Write a model as a safetensors file: matrices by name, and metadata.

    The metadata: `format`, `about`, `source`, and `model`, the configuration as JSON.

    Args:
        model: what to write.
        path: of the file; its directory exists.
        about: what it is, for people.

    Raises:
        ArtifactError: no space, or no right to write.
    """
    metadata = {
        "format": FORMAT,
        "about": about,
        "source": model.source,
        "model": json.dumps(asdict(model.configuration)),
    }
    save_tensors(path, model.matrices, metadata=metadata)


@torch.inference_mode()
def draw_texts(model: Model, *, count: int, seed: int, temperature: float = 1.0, prompt: str = "") -> list[str]:
    """Texts of a model.

    The random numbers depend on the seed, on the text's number and on the place in it alone, so that texts of two
    models differ only where the models do.

    Args:
        model: to draw from.
        count: how many texts, 1 … `MOST_SAMPLES`.
        seed: of the random numbers.
        temperature: divides the logits; between `LEAST_TEMPERATURE` and `MOST_TEMPERATURE`.
        prompt: what every text begins with; shorter than the context.

    Raises:
        QuestionError: a count or a temperature outside its range.
        TextLengthError, UnknownCharacterError: as `measure.targets`.
    """
    if not 1 <= count <= MOST_SAMPLES:
        raise QuestionError(f"The number of texts must lie between 1 and {MOST_SAMPLES}, not be {count}.")
    if not LEAST_TEMPERATURE <= temperature <= MOST_TEMPERATURE:
        raise QuestionError(
            f"The temperature must lie between {LEAST_TEMPERATURE} and {MOST_TEMPERATURE}, not be {temperature}."
        )
    known: dict[tuple[int, ...], list[float]] = {}
    begun = tuple(targets(Measurement(kind="next_token", prompt=prompt), model.configuration).inputs)
    return [_draw(model, random.Random(f"{seed}/{number}"), temperature, begun, known) for number in range(count)]


def _draw(
    model: Model,
    generator: random.Random,
    temperature: float,
    begun: tuple[int, ...],
    known: dict[tuple[int, ...], list[float]],
) -> str:
    vocabulary, ids = model.configuration.vocabulary, begun
    while len(ids) <= model.configuration.context:
        if ids not in known:
            known[ids] = _cumulative(model, ids, temperature)
        sums = known[ids]
        token = bisect.bisect_right(sums, generator.random() * sums[-1])
        if token >= len(vocabulary):  # the end; or beyond, where the product was rounded up
            break
        ids = (*ids, token)
    return "".join(vocabulary[token] for token in ids[1:])


def _cumulative(model: Model, ids: tuple[int, ...], temperature: float) -> list[float]:
    """Sums of the next token's probabilities."""
    device = next(iter(model.matrices.values())).device
    jets = {name: Jet(matrix) for name, matrix in model.matrices.items()}
    logits, _ = forward(model.configuration, jets, torch.tensor(ids, device=device))
    sums: list[float] = (logits.constant[-1].double() / temperature).softmax(dim=-1).cumsum(dim=-1).tolist()
    if not math.isfinite(sums[-1]):
        raise QuestionError("So much was deleted that the parameters added up are no model any more.")
    return sums
