"""Slow, independent ways to the same numbers. None of these uses jets, nor shares arithmetic with the engine.

- `circle`: training with ordinary complex downweights on a circle, and a discrete Fourier transform.
- `plain_loss`: the loss by the ordinary torch model of `engine.plain`.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional

from engine import plain
from engine.documents import Documents, tokens
from engine.jet import Jet, linear_map
from engine.measure import read_out_jets
from engine.model import ModelConfiguration
from engine.train import TrainingConfiguration


def loss_of(probabilities: Jet) -> Jet:
    """The loss in the ring as a number; this one is the engine's own, for tests of what comes before it."""
    return linear_map(lambda plane: plane.squeeze(-1), read_out_jets("loss", probabilities))


def plain_loss(model: ModelConfiguration, parameters: dict[str, Tensor], text: str) -> float:
    ids = torch.tensor(tokens(text, model.vocabulary))
    return functional.cross_entropy(plain.logits(model, parameters, ids[:-1]), ids[1:]).item()


def circle(
    model: ModelConfiguration,
    training: TrainingConfiguration,
    documents: Documents,
    direction: Tensor,
    text: str,
    *,
    radius: float,
    points: int,
) -> Tensor:
    """Taylor coefficients 0 … points - 1 of the loss after training with downweights z·direction.

    Coefficient r is the mean of F(z_j) z_j^{-r} over points z_j on a circle; it is off by T_{r+points}·radius^points
    (aliasing) and by rounding / radius^r.
    """
    unit_circle = torch.exp(2j * math.pi * torch.arange(points, dtype=torch.float64) / points)
    values = torch.stack(
        [_complex_training(model, training, documents, radius * z * direction, text) for z in unit_circle]
    )
    return torch.stack([(values * unit_circle.conj() ** r).mean() / radius**r for r in range(points)])


def _complex_training(
    model: ModelConfiguration, training: TrainingConfiguration, documents: Documents, downweight: Tensor, text: str
) -> Tensor:
    parameters = {name: matrix.to(torch.complex128) for name, matrix in model.initial_parameters().items()}
    first = {name: torch.zeros_like(matrix) for name, matrix in parameters.items()}
    second = {name: torch.zeros_like(matrix) for name, matrix in parameters.items()}
    steps = len(documents) * training.epochs
    for step in range(steps):
        number = step % len(documents)
        ids = torch.tensor(tokens(documents.texts[number], model.vocabulary)[: model.context + 1])
        gradients = _holomorphic_gradient(lambda p, ids=ids: _complex_loss(model, p, ids), parameters)  # type: ignore[misc]
        weight = 1 - downweight[documents.unit_of[number]]
        rate = training.learning_rate * (1 - step / steps)
        for name, of_loss in gradients.items():
            gradient = weight * of_loss
            first[name] = training.beta1 * first[name] + (1 - training.beta1) * gradient
            second[name] = training.beta2 * second[name] + (1 - training.beta2) * gradient * gradient
            m = first[name] / (1 - training.beta1 ** (step + 1))
            v = second[name] / (1 - training.beta2 ** (step + 1))
            parameters[name] = parameters[name] - rate * m / torch.sqrt(v + training.epsilon)
    return _complex_loss(model, parameters, torch.tensor(tokens(text, model.vocabulary)))


def _holomorphic_gradient(
    loss: Callable[[dict[str, Tensor]], Tensor], parameters: dict[str, Tensor]
) -> dict[str, Tensor]:
    leaves = {name: matrix.detach().requires_grad_() for name, matrix in parameters.items()}
    value = loss(leaves)
    # torch gives the conjugate of a holomorphic function's derivative.
    gradients = torch.autograd.grad(value, list(leaves.values()), grad_outputs=torch.ones_like(value))
    return {name: gradient.conj().resolve_conj() for name, gradient in zip(leaves, gradients, strict=True)}


def _complex_loss(model: ModelConfiguration, parameters: dict[str, Tensor], ids: Tensor) -> Tensor:
    inputs, targets = ids[:-1], ids[1:]
    length, size = len(inputs), model.width // model.heads
    earlier = torch.ones(length, length).tril()

    def norm(x: Tensor) -> Tensor:
        return x / torch.sqrt((x * x).mean(-1, keepdim=True) + model.rmsnorm_epsilon)

    x = norm(parameters["wte"][inputs] + parameters["wpe"][:length])
    for layer in range(model.layers):

        def weight(name: str, layer: int = layer) -> Tensor:
            return parameters[f"layer{layer}.{name}"]

        normed = norm(x)
        outputs = []
        for head in range(model.heads):
            rows = slice(head * size, (head + 1) * size)
            q, k, v = (normed @ weight(name)[rows].T for name in ("attn_wq", "attn_wk", "attn_wv"))
            scores = torch.exp(q @ k.T / math.sqrt(size)) * earlier
            outputs.append(scores / scores.sum(-1, keepdim=True) @ v)
        x = x + torch.cat(outputs, -1) @ weight("attn_wo").T
        x = x + _complex_gelu(norm(x) @ weight("mlp_fc1").T) @ weight("mlp_fc2").T
    exponentials = torch.exp(x @ parameters["lm_head"].T)
    probabilities = exponentials[torch.arange(length), targets] / exponentials.sum(-1)
    return -torch.log(probabilities).mean()


def _complex_gelu(x: Tensor) -> Tensor:
    return x * 0.5 * (1 + _complex_erf(x / math.sqrt(2)))


def _complex_erf(z: Tensor) -> Tensor:
    """The error function by its Maclaurin series; fit for |z| below 3."""
    total = term = z
    for n in range(1, 60):
        term = -term * z * z / n
        total = total + term / (2 * n + 1)
    return total * 2 / math.sqrt(math.pi)
