"""What builds and answers take, as formulas of a sketch's size; docs/scale.md is made of them.

Bytes follow from layouts, and are exact: tests/test_scale.py holds them to real artifacts and sketches. Arithmetic is
counted, in floating-point operations that are of use; a measured rate turns it into seconds (`Constants`). What depends
on more than that, as the noise of random directions, is here as its law.

K directions, m units, n documents, P parameters, M of them in matrices, S degree, A anchors, B retrained models,
T tokens, of a document or of a measured text. A *run* is one ordinary training run.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from engine.configuration import BlockKind, SketchConfiguration
from engine.interpolation import HIGHEST_ORDER, MOST_DIRECTIONS
from engine.model import ModelConfiguration

FLOAT64, COMPLEX128, COMPLEX64 = 8, 16, 8
LINKS = 2
"""Probabilities and their logarithms: a table with axes has both."""

YEAR_SECONDS = 365.25 * 86_400
NOTICE_BYTES = 150
"""Of a file in manifest.json, about."""


@dataclass(frozen=True, kw_only=True)
class Size:
    """A sketch, and what is asked of it.

    Attributes:
        name: for people.
        configuration: of the sketch; its `directions`, `axes` and `anchors` say what is built.
        documents: n.
        units: m.
        tokens: of a document, on average.
        text_tokens: of a measured text.
        deleted: |D|, units of a deletion set.
        requests_a_second: questions.
        new_share: of the questions, those about a text that wasn't measured before.
    """

    name: str
    configuration: SketchConfiguration
    documents: int
    units: int
    tokens: float
    text_tokens: int
    deleted: int
    requests_a_second: float
    new_share: float = 0.01

    @property
    def model(self) -> ModelConfiguration:
        """The model."""
        return self.configuration.model

    @property
    def steps(self) -> int:
        """One document a step."""
        return self.documents * self.configuration.training.epochs


@dataclass(frozen=True, kw_only=True)
class Device:
    """What the arithmetic is done by.

    Attributes:
        name: for people.
        flops_a_second: of use.
        memory_bytes: of one.
        network_bytes_a_second: to and from one.
    """

    name: str
    flops_a_second: float
    memory_bytes: float
    network_bytes_a_second: float


# --- arithmetic ---


def products(degree: int, planes: int) -> float:
    """Real multiplications in a product of two jets, of which the constants are real and shared: 1 for plain numbers.

    Of complex coefficients (two planes) 2S with a constant term cost two each, and S(S-1)/2 with each other cost four;
    of real ones (one plane) they cost one each. The product of the constants is shared by all directions.
    """
    with_constant, with_each_other = 2 * degree, degree * (degree - 1) // 2
    return with_constant * planes + with_each_other * planes**2


def multiplied(model: ModelConfiguration) -> int:
    """M: elements of matrices that activations are multiplied by; embeddings are looked up."""
    return sum(rows * columns for name, (rows, columns) in model.shapes.items() if name not in {"wte", "wpe"})


def run_flops(size: Size) -> float:
    """Of an ordinary training run: forward, and backward to inputs and to weights; attention's T² left out."""
    return 6.0 * multiplied(size.model) * size.tokens * size.steps


def run_equivalents(size: Size) -> dict[BlockKind, float]:
    """How many ordinary runs each kind of a build's work is, by the multiplications in it."""
    configuration = size.configuration
    degree = configuration.degree
    runs: dict[BlockKind, float] = {}
    if configuration.axes:
        runs["axes"] = size.units * products(degree, 1) / 2  # half of the steps come before a unit's first visit
        runs["retrained"] = configuration.retrained(size.units)
    if configuration.directions:
        runs["directions"] = configuration.directions * products(degree, 2)
    return runs


def build_flops(size: Size) -> float:
    """Of a whole build."""
    return run_flops(size) * (1 + sum(run_equivalents(size).values()))


def measurement_flops(size: Size) -> float:
    """Of one new text along all directions: forward only."""
    forward = 2.0 * multiplied(size.model) * size.text_tokens
    return forward * size.configuration.directions * products(size.configuration.degree, 2)


# --- memory of training ---


def state_bytes(size: Size) -> int:
    """Of one direction in training: higher coefficients of parameters and both moments."""
    configuration = size.configuration
    return 3 * 2 * configuration.degree * size.model.parameter_count * configuration.torch_dtype.itemsize


def shared_state_bytes(size: Size) -> int:
    """Of all directions together: parameters and moments of the ordinary run."""
    return 3 * size.model.parameter_count * size.configuration.torch_dtype.itemsize


def activations(model: ModelConfiguration) -> int:
    """Numbers that the forward pass over a document of full context leaves for the backward pass, and its room."""
    length, width = model.context, model.width
    once = 6 * length * width + length * model_tokens(model) + 4 * length * width + length * length + length
    a_layer = 14 * length * width + model.heads * length * length + 2 * length
    return once + model.layers * a_layer


def model_tokens(model: ModelConfiguration) -> int:
    """V, with BOS."""
    return len(model.vocabulary) + 1


def activation_bytes(size: Size) -> int:
    """Of one direction: higher coefficients of all activations."""
    configuration = size.configuration
    return 2 * configuration.degree * activations(size.model) * configuration.torch_dtype.itemsize


def devices_of_a_direction(size: Size, device: Device) -> float:
    """Devices whose memory one direction takes, with the ordinary run beside it."""
    return (state_bytes(size) + shared_state_bytes(size) + activation_bytes(size)) / device.memory_bytes


# --- what is kept ---


def blocks(size: Size) -> int:
    """Blocks of a build: files of the artifact, tasks of the scheduler, entries of the manifest."""
    configuration = size.configuration
    counts = [configuration.directions, configuration.retrained(size.units)]
    counts += [size.units] if configuration.axes else []
    return sum(-(-count // configuration.block) for count in counts)


def manifest_bytes(size: Size) -> int:
    """Of manifest.json."""
    return NOTICE_BYTES * (blocks(size) + 1)


def held_bytes(size: Size, *, lanes: int = 1) -> int:
    """What shards hold together: jets along directions and axes, and retrained models.

    Args:
        size: of the sketch.
        lanes: directions of a group of native code, which the last group of each kind is filled up to.
    """
    configuration, number = size.configuration, size.configuration.torch_dtype.itemsize
    parameters = size.model.parameter_count

    def padded(count: int) -> int:
        return -(-count // lanes) * lanes

    total = 0
    if configuration.directions:
        total += parameters * number * (1 + 2 * configuration.degree * padded(configuration.directions))
    if configuration.axes:
        total += parameters * number * (1 + configuration.degree * padded(size.units))
        total += parameters * number * padded(configuration.retrained(size.units))
    return total


def psi_bytes(size: Size) -> int:
    """Directions at the front: as drawn, and turned round to be gathered by unit."""
    return 2 * COMPLEX64 * size.configuration.directions * size.units


def kinship_bytes(size: Size) -> int:
    """Of every two units."""
    return FLOAT64 * size.units**2 if size.configuration.axes else 0


def singles_bytes(size: Size) -> int:
    """What the front has for a moment as it starts: every model without one unit in double precision, twice."""
    return 2 * FLOAT64 * size.units * size.model.parameter_count if size.configuration.axes else 0


def interpolated_orders(size: Size) -> int:
    """R: orders whose interactions are interpolated."""
    configuration = size.configuration
    if not configuration.axes or not 0 < configuration.directions <= MOST_DIRECTIONS:
        return 0
    return max(0, min(configuration.degree, HIGHEST_ORDER) - 1)


def front_bytes(size: Size) -> int:
    """What the front keeps of a sketch whatever is measured; without tables, and without what shards hold."""
    configuration, units = size.configuration, size.units
    count, degree = configuration.directions, configuration.degree
    total = size.model.parameter_count * configuration.torch_dtype.itemsize + psi_bytes(size)
    if configuration.axes:
        anchors = configuration.anchors
        total += kinship_bytes(size)
        total += 2 * FLOAT64 * anchors * units  # who is in which
        total += anchors * (count * (COMPLEX128 * degree + 24 * max(degree - 1, 0)) + FLOAT64 * anchors)
        total += 2 * FLOAT64 * anchors**2
        total += COMPLEX128 * count * units * max(degree - 1, 0)  # powers of the directions
        total += interpolated_orders(size) * FLOAT64 * (2 * count) ** 2
    return total


def membership_bytes(size: Size) -> int:
    """What a dataset's membership takes in memory, as `app.catalog` reckons."""
    return 16 * size.documents + 200 * size.units


def table_bytes(size: Size, *, outcomes: int = 1) -> int:
    """What the front keeps of one measurement, the calibration left out.

    Args:
        size: of the sketch.
        outcomes: values of the measurement; a loss has one.
    """
    configuration = size.configuration
    count, degree, tokens = configuration.directions, configuration.degree, LINKS * size.text_tokens
    total = COMPLEX128 * degree * count * outcomes
    if not configuration.axes:
        return total
    orders = interpolated_orders(size)
    total += FLOAT64 * configuration.retrained(size.units) * outcomes
    total += FLOAT64 * size.units * (degree + 1 + orders) * tokens
    if count:
        kinds = degree + (degree - 1) + orders  # directions, interactions, weights
        total += 2 * COMPLEX128 * kinds * count * tokens  # as measured, and laid out to be summed
        total += (FLOAT64 + COMPLEX128) * (degree - 1) * count * tokens  # of the noise
    return total


def measurement_network_bytes(size: Size) -> int:
    """What shards send to the front for one new text: rows of its table, a number a token, order and plane."""
    configuration = size.configuration
    rows = 2 * configuration.degree * configuration.directions
    if configuration.axes:
        rows += configuration.degree * size.units + configuration.retrained(size.units)
    return rows * size.text_tokens * configuration.torch_dtype.itemsize


def sums_network_bytes(size: Size) -> int:
    """What one shard would send instead if sums over the directions were made there, whatever K is.

    Of each order of one value: its sum, and the sums of its products with all orders.
    """
    degree = size.configuration.degree
    return FLOAT64 * (degree + degree**2)


# --- noise of random directions (docs: METHOD, section 4) ---


def standard_error(norm: float, order: int, *, deleted: int, directions: int) -> float:
    """Of order r from K independent directions, for a small set that the derivative isn't aligned with.

    <ψ, x> and y_r are then all but independent: E|<ψ, x>|^2r is r! ‖x‖^2r / m(m+1)…(m+r-1) = ‖x‖^2r / N_r, E|y_r|² is
    ‖T_r‖² / N_r. N_r² times their product, of which the real part has half, leaves ‖x‖^2r ‖T_r‖² / 2.

    Args:
        norm: ‖T_r‖.
        order: r.
        deleted: |D| = ‖x‖².
        directions: K.
    """
    return math.pow(deleted, order / 2) * norm / math.sqrt(2 * directions)


def relative_error_of_random_sets(units: int, directions: int) -> float:
    """Standard error of order 1 by its size, of a random set, however large: sqrt(m / 2K)."""
    return math.sqrt(units / (2 * directions))


def relative_error_of_coherent_sets(share: float, order: int, directions: int) -> float:
    """The same of order r for a set in which all units push one way: share^(-r/2) / sqrt(2K).

    Args:
        share: |D| / m.
        order: r.
        directions: K.
    """
    return math.pow(share, -order / 2) / math.sqrt(2 * directions)


def directions_for_random_sets(units: int, error: float) -> float:
    """K that leave such an error of order 1."""
    return units / (2 * error**2)


def directions_for_coherent_sets(share: float, order: int, error: float) -> float:
    """K that leave such an error of order r."""
    return math.pow(share, -order) / (2 * error**2)


# --- where a choice stops working ---


def most_directions_at_the_front(units: int, budget_bytes: float) -> float:
    """K whose ψ fits."""
    return budget_bytes / (2 * COMPLEX64 * units)


def most_units_of_kinship(budget_bytes: float) -> float:
    """M whose kinship fits."""
    return math.sqrt(budget_bytes / FLOAT64)


def most_units_of_singles(parameters: int, budget_bytes: float) -> float:
    """M whose models fit into the front as it starts."""
    return budget_bytes / (2 * FLOAT64 * parameters)


def unitary_flops(directions: int, units: int) -> float:
    """Gram-Schmidt, twice, of K rows over C^m (K ≤ m): a complex product is eight operations, two products a row."""
    return 2 * 8.0 * directions**2 * units


def unitary_flops_of_a_build(size: Size) -> float:
    """Of all blocks of a build: each makes the rows before its own again."""
    count, block = size.configuration.directions, size.configuration.block
    blocks = -(-count // block)
    return sum(unitary_flops(min(count, (number + 1) * block), size.units) for number in range(blocks))
