"""Laws of the ring, and every rule against a slow oracle: sampling on a circle of complex numbers."""

from __future__ import annotations

import cmath
import math
from collections.abc import Callable

import pytest
import torch
from hypothesis import given
from torch import Tensor

from engine import jet
from engine.jet import Jet
from tests import strategies
from tests.oracles import _complex_erf

TOLERANCE = 1e-9
RADIUS, POINTS = 0.1, 64  # of the circle on which functions of jets are sampled


def polynomials(x: Jet, *, directions: int = 2) -> Tensor:
    """Coefficients as complex128 of shape [S + 1, K, ...]."""
    first = x.constant.to(torch.complex128).expand(directions, *x.constant.shape)
    rest = [torch.complex(p[0], p[1]) if len(p) == 2 else p[0].to(torch.complex128) for p in x.higher]
    return torch.stack([first, *rest])


def evaluate(coefficients: Tensor, z: complex) -> Tensor:
    value = torch.zeros_like(coefficients[0])
    for coefficient in coefficients.flip(0):
        value = value * z + coefficient
    return value


def by_circle(function: Callable[..., Tensor], degree: int, *jets: Jet) -> Tensor:
    """Taylor coefficients of function(jets) by sampling on a circle: shares nothing with the rules."""
    angles = [cmath.exp(2j * math.pi * j / POINTS) for j in range(POINTS)]
    values = [function(*(evaluate(polynomials(x), RADIUS * angle) for x in jets)) for angle in angles]
    return torch.stack(
        [
            torch.stack([value * angle.conjugate() ** r for value, angle in zip(values, angles, strict=True)]).mean(0)
            / RADIUS**r
            for r in range(degree + 1)
        ]
    )


def assert_equal(found: Jet, expected: Tensor) -> None:
    coefficients = polynomials(found)
    scale = expected.abs().amax().clamp(min=1)
    assert (coefficients - expected).abs().amax() <= TOLERANCE * scale


RULES: dict[str, tuple[Callable[..., Jet], Callable[..., Tensor], int, bool]] = {
    "multiply": (jet.multiply, lambda x, y: x * y, 2, False),
    "matmul transposed": (jet.matmul_transposed, lambda x, y: x.transpose(-1, -2) @ y, 2, False),
    "matmul": (lambda x, y: jet.matmul(x, transposed(y)), lambda x, y: x @ y.transpose(-1, -2), 2, False),
    "add": (jet.add, lambda x, y: x + y, 2, False),
    "subtract": (jet.subtract, lambda x, y: x - y, 2, False),
    "square": (jet.square, lambda x: x * x, 1, False),
    "scale": (lambda x: jet.scale(x, -1.5), lambda x: -1.5 * x, 1, False),
    "shift": (lambda x: jet.shift(x, 0.5), lambda x: x + 0.5, 1, False),
    "exp": (jet.exp, torch.exp, 1, False),
    "log": (jet.log, torch.log, 1, True),
    "reciprocal": (lambda x: jet.power(x, -1.0), torch.reciprocal, 1, True),
    "inverse root": (lambda x: jet.power(x, -0.5), lambda x: 1 / torch.sqrt(x), 1, True),
    "gelu": (lambda x: jet.gelu(x)[0], lambda x: x * normal_cumulative(x), 1, False),
    "gelu's derivative": (lambda x: jet.gelu(x)[1], lambda x: normal_cumulative(x) + x * normal_density(x), 1, False),
    "softmax": (jet.softmax, lambda x: torch.exp(x) / torch.exp(x).sum(-1, keepdim=True), 1, False),
    "rmsnorm": (
        lambda x: jet.rmsnorm(x, 0.1)[0],
        lambda x: x / torch.sqrt((x * x).mean(-1, keepdim=True) + 0.1),
        1,
        True,
    ),
}


def transposed(x: Jet) -> Jet:
    return jet.linear_map(lambda plane: plane.transpose(-1, -2), x)


def normal_cumulative(x: Tensor) -> Tensor:
    return 0.5 * (1 + _complex_erf(x / math.sqrt(2)))


def normal_density(x: Tensor) -> Tensor:
    return torch.exp(-0.5 * x * x) / math.sqrt(2 * math.pi)


@pytest.mark.parametrize("name", RULES)
@pytest.mark.parametrize("planes", [1, 2])
@pytest.mark.parametrize("degree", [0, 1, 2, 3, 6])
def test_a_rule_gives_the_taylor_coefficients_of_its_function(name: str, planes: int, degree: int) -> None:
    rule, function, arity, positive = RULES[name]
    jets = [
        jet.scale(strategies.random_jet(seed, degree, planes, positive=positive), 1.0 if positive else 0.7)
        for seed in range(arity)
    ]
    assert_equal(rule(*jets), by_circle(function, degree, *jets))


@given(seed=strategies.seeds, degree=strategies.degrees, planes=strategies.planes)
def test_multiplication_is_commutative_associative_and_distributes(seed: int, degree: int, planes: int) -> None:
    x, y, z = (strategies.random_jet(seed + i, degree, planes) for i in range(3))
    assert_equal(jet.multiply(x, y), polynomials(jet.multiply(y, x)))
    assert_equal(jet.multiply(jet.multiply(x, y), z), polynomials(jet.multiply(x, jet.multiply(y, z))))
    assert_equal(jet.multiply(x, jet.add(y, z)), polynomials(jet.add(jet.multiply(x, y), jet.multiply(x, z))))


@given(seed=strategies.seeds, degree=strategies.degrees, planes=strategies.planes)
def test_inverse_functions_undo_each_other(seed: int, degree: int, planes: int) -> None:
    x = strategies.random_jet(seed, degree, planes, positive=True)
    assert_equal(jet.exp(jet.log(x)), polynomials(x))
    assert_equal(jet.power(jet.power(x, -0.5), -2.0), polynomials(x))
    one = jet.multiply(x, jet.power(x, -1.0))
    assert_equal(one, polynomials(Jet(torch.ones_like(x.constant), jet.zeros_like(x).higher)))


@pytest.mark.parametrize("name", RULES)
@given(seed=strategies.seeds, planes=strategies.planes)
def test_computing_at_a_degree_and_cutting_equals_computing_at_the_lower_degree(
    name: str, seed: int, planes: int
) -> None:
    rule, _, arity, positive = RULES[name]
    jets = [strategies.random_jet(seed + i, 5, planes, positive=positive) for i in range(arity)]
    for degree in range(5):
        found = rule(*(jet.truncate(x, degree) for x in jets))
        assert_equal(found, polynomials(jet.truncate(rule(*jets), degree)))


def test_a_real_jet_equals_a_complex_one_with_zero_imaginary_part() -> None:
    x = strategies.random_jet(0, 4, 1, positive=True)
    as_complex = x._replace(higher=tuple((real, torch.zeros_like(real)) for (real,) in x.higher))
    for rule in (jet.square, jet.exp, jet.log, jet.softmax, lambda x: jet.gelu(x)[1]):
        assert_equal(rule(as_complex), polynomials(rule(x)))


def test_jets_of_different_degree_are_refused() -> None:
    with pytest.raises(ValueError, match="degrees 2 and 3"):
        jet.multiply(strategies.random_jet(0, 2, 2), strategies.random_jet(0, 3, 2))
