"""Locally weighted regression: what retrained models at similar sets say of how far an expansion is off.

Where units with something in common are deleted, their interactions add up, and estimates without interactions fall
short of what happens, by much the same share for sets that are alike. So the change is estimated as β_1 c_1 + β_2 c_2,
with c_1 and c_2 the changes as added up in probabilities and in logarithms, and β fitted by weighted least squares to
the anchors, the similar ones first. A prior holds β at the mean of both estimates where few anchors are similar.

For several values of one measurement β is the same, so that estimated probabilities still add up to one.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from engine.frame import product

_PRIOR = 0.3
"""How much the prior counts, in anchors of full weight."""

_FLOOR = 3e-3
"""Of the mean square change: equations of sets that change less count in proportion, since their error is noise."""


@dataclass(frozen=True, kw_only=True)
class LocalRegression:
    """Equations of the anchors. A anchors, O values.

    Attributes:
        inputs: estimated changes in both links, [A, O, 2].
        equations: of every anchor, divided by its size, the products of its inputs, 2 x 2, then those of its inputs
            with the true changes, 2; [A, 6].
        squares: of its inputs together, [A].
    """

    inputs: np.ndarray
    equations: np.ndarray
    squares: np.ndarray

    @classmethod
    def of(cls, inputs: np.ndarray, changes: np.ndarray) -> LocalRegression:
        """From estimated changes [A, O, 2] and true ones [A, O]."""
        squares = np.sum(inputs**2, axis=(1, 2))
        transposed = inputs.swapaxes(1, 2)
        gram, products = transposed @ inputs, transposed @ changes[:, :, None]
        equations = np.concatenate([gram.reshape(-1, 4), products.reshape(-1, 2)], axis=1)
        return cls(inputs=inputs, equations=equations / _sizes(squares, squares.mean())[:, None], squares=squares)

    def changes(self, weights: np.ndarray, inputs: np.ndarray) -> np.ndarray:
        """Estimated changes.

        Args:
            weights: of the anchors, for every set, [B, A].
            inputs: estimated changes of the sets in both links, [B, O, 2].

        Returns:
            Of shape [B, O].
        """
        return solved(product(weights, self.equations), inputs)

    def resized(self, left: np.ndarray) -> np.ndarray:
        """Factors on the weights that make equations what they are among fewer anchors.

        Args:
            left: which anchors there are, ones and zeros, [B, A].

        Returns:
            Of shape [B, A].
        """
        means = product(left, self.squares[:, None]) / left.sum(axis=1, keepdims=True)
        return np.asarray(_sizes(self.squares, self.squares.mean()) / _sizes(self.squares, means))


def solved(summed: np.ndarray, inputs: np.ndarray) -> np.ndarray:
    """Estimated changes [..., O] from weighted sums of equations [..., 6], and estimated changes in both links.

    By Cramer's rule: of so small systems there may be a million, and LAPACK takes a microsecond for each.
    """
    first, both, second = summed[..., 0] + _PRIOR, summed[..., 1], summed[..., 3] + _PRIOR
    of_first, of_second = summed[..., 4] + _PRIOR / 2, summed[..., 5] + _PRIOR / 2
    determinant = first * second - both * both
    one = (second * of_first - both * of_second) / determinant
    other = (first * of_second - both * of_first) / determinant
    return np.asarray(inputs[..., 0] * one[..., None] + inputs[..., 1] * other[..., None])


def _sizes(squares: np.ndarray, mean: np.ndarray) -> np.ndarray:
    """Of equations, which they are divided by, from the squares of their inputs and the mean of these."""
    return np.asarray(np.maximum(squares + _FLOOR * mean, 1e-300))
