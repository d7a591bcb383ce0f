"""Locally weighted regression: what retrained models at similar sets say of how far an expansion is off.

Where units with something in common are deleted, their interactions add up, and estimates without interactions fall
short of what happens, by much the same share for sets that are alike. So the change is estimated as β_1 c_1 + β_2 c_2,
with c_1 and c_2 the changes as added up in probabilities and in logarithms, and β fitted by weighted least squares to
the anchors, the similar ones first. A prior holds β at the mean of both estimates where few anchors are similar.

For several values of one measurement β is the same, so that estimated probabilities still add up to one.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

_PRIOR = 0.3
"""How much the prior counts, in anchors of full weight."""

_FLOOR = 3e-3
"""Of the mean square change: equations of sets that change less count in proportion, since their error is noise."""


@dataclass(frozen=True, kw_only=True)
class LocalRegression:
    """Equations of the anchors. A anchors, O values.

    Attributes:
        inputs: estimated changes in both links, [A, O, 2].
        gram: their products, divided by their size, [A, 2, 2].
        products: of inputs and true changes, divided by the same, [A, 2].
    """

    inputs: Tensor
    gram: Tensor
    products: Tensor

    @classmethod
    def of(cls, inputs: Tensor, changes: Tensor) -> LocalRegression:
        """From estimated changes [A, O, 2] and true ones [A, O]."""
        size = inputs.square().sum(dim=(1, 2))
        size = (size + _FLOOR * size.mean()).clamp(min=1e-300)
        return cls(
            inputs=inputs,
            gram=torch.einsum("aoi,aoj->aij", inputs, inputs) / size[:, None, None],
            products=torch.einsum("aoi,ao->ai", inputs, changes) / size[:, None],
        )

    def changes(self, weights: Tensor, inputs: Tensor) -> Tensor:
        """Estimated changes.

        Args:
            weights: of the anchors, for every set, [B, A].
            inputs: estimated changes of the sets in both links, [B, O, 2].

        Returns:
            Of shape [B, O].
        """
        prior = _PRIOR * torch.eye(2, dtype=inputs.dtype, device=inputs.device)
        gram = torch.einsum("ba,aij->bij", weights, self.gram) + prior
        coefficients = torch.linalg.solve(gram, weights @ self.products + prior.sum(dim=0) / 2)
        return torch.einsum("boi,bi->bo", inputs, coefficients)
