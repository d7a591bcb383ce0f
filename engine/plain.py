"""An ordinary microgpt in torch with autograd: the yardstick of the benchmarks and an oracle of the tests.

It is written the way one would write it without jets, and shares no arithmetic with the ring.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional

from engine.model import ModelConfiguration
from engine.train import Step, TrainingConfiguration


def logits(configuration: ModelConfiguration, parameters: dict[str, Tensor], inputs: Tensor) -> Tensor:
    """Logits of the next token at every position, of shape [T, V]."""
    length, width = len(inputs), configuration.width

    def norm(x: Tensor) -> Tensor:
        return functional.rms_norm(x, (width,), eps=configuration.rmsnorm_epsilon)

    def heads(x: Tensor) -> Tensor:
        return x.view(length, configuration.heads, -1).transpose(0, 1)

    later = torch.full((length, length), -math.inf, dtype=parameters["wte"].dtype, device=inputs.device).triu(1)
    x = norm(parameters["wte"][inputs] + parameters["wpe"][:length])
    for layer in range(configuration.layers):
        wq, wk, wv, wo, fc1, fc2 = (
            parameters[f"layer{layer}.{name}"]
            for name in ("attn_wq", "attn_wk", "attn_wv", "attn_wo", "mlp_fc1", "mlp_fc2")
        )
        normed = norm(x)
        q, k, v = heads(normed @ wq.T), heads(normed @ wk.T), heads(normed @ wv.T)
        attention = (q @ k.transpose(-1, -2) / math.sqrt(width // configuration.heads) + later).softmax(-1)
        x = x + (attention @ v).transpose(0, 1).reshape(length, width) @ wo.T
        x = x + functional.gelu(norm(x) @ fc1.T) @ fc2.T
    return x @ parameters["lm_head"].T


def train(
    configuration: ModelConfiguration,
    training: TrainingConfiguration,
    steps: list[Step],
    initial: dict[str, Tensor],
    weight: Callable[[int], float] = lambda unit: 1.0,
) -> dict[str, Tensor]:
    """Train one model by automatic differentiation.

    Args:
        configuration: the model.
        training: the optimiser.
        steps: the schedule.
        initial: parameter matrices.
        weight: of a unit's loss.
    """
    parameters = {name: matrix.clone().requires_grad_() for name, matrix in initial.items()}
    first = {name: torch.zeros_like(matrix) for name, matrix in initial.items()}
    second = {name: torch.zeros_like(matrix) for name, matrix in initial.items()}
    for index, step in enumerate(steps):
        loss = weight(step.unit) * functional.cross_entropy(
            logits(configuration, parameters, step.inputs), step.targets
        )
        gradients = torch.autograd.grad(loss, list(parameters.values()))
        rate = training.learning_rate * (1 - index / len(steps))
        with torch.no_grad():
            for (name, parameter), gradient in zip(parameters.items(), gradients, strict=True):
                first[name].lerp_(gradient, 1 - training.beta1)
                second[name].lerp_(gradient.square(), 1 - training.beta2)
                m = first[name] / (1 - training.beta1 ** (index + 1))
                v = second[name] / (1 - training.beta2 ** (index + 1))
                parameter.sub_(rate * m / (v + training.epsilon).sqrt())
    return {name: parameter.detach() for name, parameter in parameters.items()}
