"""Distribution, prefix property and independence of order of the directions."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from engine.directions import ENSEMBLES, Ensemble, dimension, directions, overlaps, remaining_fraction
from engine.errors import ConfigurationError

SIGMAS = 5  # tolerance of statistical tests, in standard errors; seeds are fixed


@pytest.mark.parametrize("ensemble", ENSEMBLES)
@given(
    seed=st.integers(0, 2**64 - 1), units=st.integers(1, 40), cuts=st.lists(st.integers(0, 90), min_size=2, max_size=2)
)
def test_any_range_can_be_drawn_alone(ensemble: str, seed: int, units: int, cuts: list[int]) -> None:
    start, stop = sorted(cuts)
    if start == stop:
        stop += 1
    whole = directions(ensemble, seed, units, 0, 91)  # type: ignore[arg-type]
    assert torch.equal(directions(ensemble, seed, units, start, stop), whole[start:stop])  # type: ignore[arg-type]


def test_a_row_behind_the_first_panel_is_the_same_alone() -> None:
    whole = directions("unitary", 1, 300, 0, 300)
    assert torch.equal(directions("unitary", 1, 300, 200, 201), whole[200:201])


@pytest.mark.parametrize("ensemble", ENSEMBLES)
def test_directions_have_norm_one(ensemble: str) -> None:
    rows = directions(ensemble, 3, 17, 0, 40)  # type: ignore[arg-type]
    torch.testing.assert_close(rows.norm(dim=1), torch.ones(40, dtype=torch.float64), rtol=1e-12, atol=0)


def test_a_block_of_the_unitary_ensemble_is_a_unitary_matrix() -> None:
    rows = directions("unitary", 4, 150, 0, 300)
    for block in (rows[:150], rows[150:]):
        gram = block @ block.conj().T
        torch.testing.assert_close(gram, torch.eye(150, dtype=torch.complex128), rtol=0, atol=1e-12)


def test_seeds_give_different_directions() -> None:
    assert not torch.equal(directions("sphere", 0, 5, 0, 3), directions("sphere", 1, 5, 0, 3))


@pytest.mark.parametrize("ensemble", ENSEMBLES)
@pytest.mark.parametrize("order", [1, 2, 3])
def test_moments_are_those_of_the_uniform_sphere(ensemble: str, order: int) -> None:
    """E |<ψ,e>|^{2r} = 1/N_r, and E <ψ,e>^r conj(<ψ,f>)^r = <f,e>^r / N_r: what makes the estimator unbiased.

    Distinct orders are orthogonal: E <ψ,e>^r conj(<ψ,f>)^q = 0.
    """
    units, count = 4, 60_000
    rows = directions(ensemble, 11, units, 0, count)  # type: ignore[arg-type]
    first = torch.tensor([1, 0, 0, 0], dtype=torch.complex128)
    second = torch.tensor([0.6, 0.8j, 0, 0], dtype=torch.complex128)
    a, b = rows.conj() @ first, rows.conj() @ second
    samples = {
        "second moment": (a.abs() ** (2 * order), 1 / dimension(units, order)),
        "cross": ((a**order * b.conj() ** order), complex(0.6**order) / dimension(units, order)),
        "other order": (a**order * b.conj() ** (order + 1), 0.0),
        "no conjugate": (a**order * b**order, 0.0),
    }
    for name, (values, expected) in samples.items():
        # Rows of one unitary matrix depend on each other, matrices don't: the standard error comes from block means.
        means = values.reshape(-1, units).mean(dim=1)
        error = (means.std() / math.sqrt(len(means))).item()
        assert error < 0.05 / dimension(units, order) ** 0.5, name
        assert abs(means.mean().item() - expected) <= SIGMAS * error + 1e-12, name


def test_a_direction_of_one_unit_is_a_phase() -> None:
    rows = directions("sphere", 0, 1, 0, 10)
    torch.testing.assert_close(rows.abs(), torch.ones(10, 1, dtype=torch.float64))
    assert rows.angle().std() > 0.5


def test_overlap_is_the_sum_of_conjugates_over_the_deletion_set() -> None:
    rows = directions("sphere", 0, 6, 0, 3)
    indicator = torch.tensor([0, 1, 0, 0, 1, 0], dtype=torch.complex128)
    torch.testing.assert_close(overlaps(rows, torch.tensor([1, 4])), rows.conj() @ indicator)


def test_a_mean_over_whole_unitary_blocks_has_no_variance_at_order_one() -> None:
    assert remaining_fraction("unitary", 10, [range(20)]) == 0
    assert remaining_fraction("unitary", 10, [range(5)]) == pytest.approx(0.5)
    assert remaining_fraction("unitary", 10, [range(15)]) == pytest.approx(5 / 15 * 0.5)
    assert remaining_fraction("sphere", 10, [range(20)]) == 1


def test_parts_of_a_unitary_block_count_together_and_several_incomplete_blocks_apart() -> None:
    assert remaining_fraction("unitary", 10, [range(3), range(6, 8)]) == pytest.approx(0.5)
    assert remaining_fraction("unitary", 10, [range(3), range(3, 10)]) == 0
    assert remaining_fraction("unitary", 10, [range(5), range(15, 20)]) == pytest.approx(0.5)
    assert remaining_fraction("unitary", 10, [range(8), range(15, 20)]) == pytest.approx((8 * 0.2 + 5 * 0.5) / 13)


def test_means_over_parts_of_unitary_matrices_vary_as_the_fraction_says() -> None:
    units, parts = 6, [range(2), range(6, 10), range(13, 16)]
    count = sum(map(len, parts))
    target, deleted = torch.randn(units, generator=torch.Generator().manual_seed(1)).double(), torch.tensor([0, 3, 4])

    def means(ensemble: Ensemble) -> torch.Tensor:
        """Estimates of the first term of a linear function, over the same directions of 1,500 seeds."""
        found = []
        for seed in range(1_500):
            rows = torch.cat([directions(ensemble, seed, units, part.start, part.stop) for part in parts])
            found.append((units * (overlaps(rows, deleted) * (rows @ target.to(rows.dtype))).real).mean())
        return torch.stack(found)

    independent, exchangeable = means("sphere"), means("unitary")
    for estimates in (independent, exchangeable):
        error = estimates.std() / len(estimates) ** 0.5
        assert abs(estimates.mean() - target[deleted].sum()) < 4 * error
    expected = remaining_fraction("unitary", units, parts)
    assert expected == pytest.approx((2 * (4 / 6) + 4 * (2 / 6) + 3 * (3 / 6)) / count)
    assert exchangeable.var() / independent.var() == pytest.approx(expected * units / (units - 1), rel=0.15)


def test_an_unknown_ensemble_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="'cube'"):
        directions("cube", 0, 3, 0, 1)  # type: ignore[arg-type]
