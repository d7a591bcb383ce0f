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
    """

    inputs: np.ndarray
    equations: np.ndarray

    @classmethod
    def of(cls, inputs: np.ndarray, changes: np.ndarray) -> LocalRegression:
        """From estimated changes [A, O, 2] and true ones [A, O]."""
        size = np.sum(inputs**2, axis=(1, 2))
        size = np.maximum(size + _FLOOR * size.mean(), 1e-300)
        transposed = inputs.swapaxes(1, 2)
        gram, products = transposed @ inputs, transposed @ changes[:, :, None]
        equations = np.concatenate([gram.reshape(-1, 4), products.reshape(-1, 2)], axis=1)
        return cls(inputs=inputs, equations=equations / size[:, None])

    def changes(self, weights: np.ndarray, inputs: np.ndarray) -> np.ndarray:
        """Estimated changes.

        Args:
            weights: of the anchors, for every set, [B, A].
            inputs: estimated changes of the sets in both links, [B, O, 2].

        Returns:
            Of shape [B, O].
        """
        summed = product(weights, self.equations)
        gram = summed[:, :4].reshape(-1, 2, 2) + _PRIOR * np.eye(2)
        coefficients = np.linalg.solve(gram, summed[:, 4:, None] + _PRIOR / 2)
        return np.asarray((inputs @ coefficients)[:, :, 0])
