"""microgpt in the ring: the whole model, forward and reverse, in one file.

Token and position embedding, RMSNorm, pre-norm blocks of multi-head causal attention and a 4x MLP with exact GELU, no
biases, an untied `lm_head`. Every function of a layer returns its value and its *pullback*: the linear map from the
gradient with respect to the value to the gradients with respect to the inputs. Values, parameters and gradients are
jets, so running both directions once trains along all K directions; with jets of degree 0 the same code is the
ordinary model, and with a batch axis on the constant, many ordinary models.

Shapes in comments are those of a constant; higher coefficients have K in front. T tokens, E width, H heads, V tokens
of the vocabulary (with BOS). Source: A. Karpathy, microgpt; names of parameters are kept. The MLP has GELU in place
of ReLU, since training must be analytic.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TypeAlias

import torch
from torch import Tensor
from torch.nn import functional

from engine import jet
from engine.errors import ConfigurationError
from engine.jet import Jet

Parameters: TypeAlias = Mapping[str, Jet]
"""Jets of the parameter matrices by name, in the order of `ModelConfiguration.shapes`."""


@dataclass(frozen=True, kw_only=True)
class ModelConfiguration:
    """What the model is: its vocabulary, sizes and initialisation.

    Attributes:
        vocabulary: the characters, sorted; BOS is one more token behind them.
        layers: blocks.
        width: E, a multiple of `heads`.
        heads: H.
        context: the most positions that are looked at; what a longer document holds beyond is not trained on.
        rmsnorm_epsilon: inside the root of RMSNorm.
        initial_deviation: standard deviation of the initial parameters.
        seed: of Python's ``random.Random``, which draws them.
        shuffled_first: how many items that generator shuffles before it draws. The reference program shuffles its
            32,033 names first: with that number the same initial parameters come out.

    Raises:
        ConfigurationError: sizes that don't fit together.
    """

    vocabulary: str
    layers: int = 1
    width: int = 16
    heads: int = 4
    context: int = 16
    rmsnorm_epsilon: float = 1e-5
    initial_deviation: float = 0.08
    seed: int = 42
    shuffled_first: int = 0

    def __post_init__(self) -> None:
        if not self.vocabulary:
            raise ConfigurationError("The vocabulary is empty.")
        for name in ("layers", "width", "heads", "context"):
            if getattr(self, name) < 1:
                raise ConfigurationError(f"{name} must be at least 1, not {getattr(self, name)}.")
        if self.width % self.heads:
            raise ConfigurationError(f"width must be a multiple of heads, and {self.width} isn't one of {self.heads}.")
        if self.rmsnorm_epsilon <= 0 or self.initial_deviation <= 0:
            raise ConfigurationError("rmsnorm_epsilon and initial_deviation must be positive.")

    @property
    def shapes(self) -> dict[str, tuple[int, int]]:
        """The parameter matrices by name: (outputs, inputs), in the order in which they are drawn and stored."""
        vocabulary, width = len(self.vocabulary) + 1, self.width
        shapes = {"wte": (vocabulary, width), "wpe": (self.context, width), "lm_head": (vocabulary, width)}
        for layer in range(self.layers):
            for name in ("attn_wq", "attn_wk", "attn_wv", "attn_wo"):
                shapes[f"layer{layer}.{name}"] = (width, width)
            shapes[f"layer{layer}.mlp_fc1"] = (4 * width, width)
            shapes[f"layer{layer}.mlp_fc2"] = (width, 4 * width)
        return shapes

    @property
    def parameter_count(self) -> int:
        """P."""
        return sum(rows * columns for rows, columns in self.shapes.values())

    def initial_parameters(self) -> dict[str, Tensor]:
        """Float64 matrices drawn from N(0, initial_deviation²), row by row: the same on any machine."""
        generator = random.Random(self.seed)
        if self.shuffled_first:
            generator.shuffle(list(range(self.shuffled_first)))
        return {
            name: torch.tensor(
                [generator.gauss(0.0, self.initial_deviation) for _ in range(rows * columns)], dtype=torch.float64
            ).reshape(rows, columns)
            for name, (rows, columns) in self.shapes.items()
        }


def matrices(configuration: ModelConfiguration, flat: Tensor) -> dict[str, Tensor]:
    """Flat parameters, [..., P], as matrices [..., rows, columns] by name."""
    parts = torch.split(flat, [rows * columns for rows, columns in configuration.shapes.values()], dim=-1)
    shapes = configuration.shapes.items()
    return {name: part.reshape(*part.shape[:-1], *shape) for (name, shape), part in zip(shapes, parts, strict=True)}


def forward(
    configuration: ModelConfiguration, parameters: Parameters, inputs: Tensor
) -> tuple[Jet, Callable[[Jet], dict[str, Jet]]]:
    """Logits of the next token at every position, and the pullback from their gradient to the parameters'.

    Args:
        configuration: the model.
        parameters: jets of shape [rows, columns].
        inputs: token ids, int64 of shape [T], T <= context.

    Returns:
        Logits, jets of shape [T, V], and a function from jets of shape [T, V] to jets by parameter name.
    """
    length = inputs.shape[0]
    tokens = jet.linear_map(lambda matrix: matrix.index_select(-2, inputs), parameters["wte"])
    positions = jet.linear_map(lambda matrix: matrix[..., :length, :], parameters["wpe"])
    x, pull_norm = _rmsnorm(jet.add(tokens, positions), configuration)  # [T, E]
    pull_blocks = []
    for layer in range(configuration.layers):
        x, pull_block = _block(x, parameters, layer, configuration)
        pull_blocks.append(pull_block)
    logits, pull_head = _linear(x, parameters["lm_head"])  # [T, V]

    def pull(d_logits: Jet) -> dict[str, Jet]:
        dx, d_head = pull_head(d_logits)
        gradients = {"lm_head": d_head}
        for pull_block in reversed(pull_blocks):
            dx, of_block = pull_block(dx)
            gradients |= of_block
        dx = pull_norm(dx)
        rows, below = configuration.shapes["wte"][0], configuration.context - length
        gradients["wte"] = jet.linear_map(lambda d: _add_rows(d, inputs, rows), dx)
        gradients["wpe"] = jet.linear_map(lambda d: functional.pad(d, (0, 0, 0, below)), dx)
        return {name: gradients[name] for name in parameters}

    return logits, pull


def loss_gradient(logits: Jet, targets: Tensor) -> Jet:
    """Gradient of the mean cross-entropy with respect to the logits: (softmax - one-hot) / T, of shape [T, V]."""
    probabilities = jet.softmax(logits)
    length, vocabulary = probabilities.constant.shape[-2:]
    hot = targets[:, None] == torch.arange(vocabulary, device=targets.device)  # one_hot would check them on the host
    return jet.scale(jet.shift(probabilities, -hot.to(probabilities.constant.dtype)), 1 / length)


def token_probabilities(
    configuration: ModelConfiguration,
    parameters: Parameters,
    inputs: list[int],
    positions: list[int],
    tokens: list[int],
) -> Jet:
    """Probabilities of chosen next tokens, as jets of shape [T].

    Args:
        configuration: the model.
        parameters: jets of shape [rows, columns].
        inputs: tokens of a text, at most `context` of them.
        positions: for each of the T tokens, after which input it comes, from 0.
        tokens: their ids.
    """
    device = next(iter(parameters.values())).constant.device
    logits, _ = forward(configuration, parameters, torch.tensor(inputs, device=device))
    where, which = torch.tensor(positions, device=device), torch.tensor(tokens, device=device)
    return jet.linear_map(lambda plane: plane[..., where, which], jet.softmax(logits))


def target_probabilities(configuration: ModelConfiguration, parameters: Parameters, ids: list[int]) -> Jet:
    """Probability of every next token of a text, as jets of shape [T].

    Args:
        configuration: the model.
        parameters: jets of shape [rows, columns].
        ids: the text's tokens from BOS to BOS, at most context + 1 of them; T is one less.
    """
    return token_probabilities(configuration, parameters, ids[:-1], list(range(len(ids) - 1)), ids[1:])


def _block(
    x: Jet, parameters: Parameters, layer: int, configuration: ModelConfiguration
) -> tuple[Jet, Callable[[Jet], tuple[Jet, dict[str, Jet]]]]:
    """One pre-norm block: attention and MLP, each added to its input."""
    weights = {name: parameters[f"layer{layer}.{name}"] for name in _BLOCK}
    normed, pull_norm1 = _rmsnorm(x, configuration)
    attended, pull_attention = _attention(normed, weights, configuration.heads)
    x = jet.add(x, attended)
    normed, pull_norm2 = _rmsnorm(x, configuration)
    hidden, pull_fc1 = _linear(normed, weights["mlp_fc1"])  # [T, 4E]
    active, slope = jet.gelu(hidden)
    output, pull_fc2 = _linear(active, weights["mlp_fc2"])

    def pull(dx: Jet) -> tuple[Jet, dict[str, Jet]]:
        d_active, d_fc2 = pull_fc2(dx)
        d_normed, d_fc1 = pull_fc1(jet.multiply(d_active, slope))
        dx = jet.add(dx, pull_norm2(d_normed))
        d_normed, gradients = pull_attention(dx)
        dx = jet.add(dx, pull_norm1(d_normed))
        gradients |= {"mlp_fc1": d_fc1, "mlp_fc2": d_fc2}
        return dx, {f"layer{layer}.{name}": gradient for name, gradient in gradients.items()}

    return jet.add(x, output), pull


_BLOCK = ("attn_wq", "attn_wk", "attn_wv", "attn_wo", "mlp_fc1", "mlp_fc2")


def _attention(
    x: Jet, weights: Mapping[str, Jet], heads: int
) -> tuple[Jet, Callable[[Jet], tuple[Jet, dict[str, Jet]]]]:
    """Multi-head causal self-attention, [T, E] to [T, E]."""
    length, width = x.constant.shape[-2:]
    root = 1 / math.sqrt(width // heads)
    later = torch.full((length, length), -math.inf, dtype=x.constant.dtype, device=x.constant.device).triu(1)

    projected, pull_q = _linear(x, weights["attn_wq"])
    q = jet.scale(_split(projected, heads), root)  # [H, T, E/H]
    projected, pull_k = _linear(x, weights["attn_wk"])
    k = _split(projected, heads)
    projected, pull_v = _linear(x, weights["attn_wv"])
    v = _split(projected, heads)
    attention = jet.softmax(jet.shift(jet.matmul(q, _transpose(k)), later))  # [H, T, T]
    output, pull_o = _linear(_merge(jet.matmul(attention, v)), weights["attn_wo"])

    def pull(d_output: Jet) -> tuple[Jet, dict[str, Jet]]:
        d_mixed, d_wo = pull_o(d_output)
        d_heads = _split(d_mixed, heads)
        d_scores = _pull_softmax(attention, jet.matmul(d_heads, _transpose(v)))
        dx_q, d_wq = pull_q(_merge(jet.scale(jet.matmul(d_scores, k), root)))
        dx_k, d_wk = pull_k(_merge(jet.matmul_transposed(d_scores, q)))
        dx_v, d_wv = pull_v(_merge(jet.matmul_transposed(attention, d_heads)))
        gradients = {"attn_wq": d_wq, "attn_wk": d_wk, "attn_wv": d_wv, "attn_wo": d_wo}
        return jet.add(jet.add(dx_q, dx_k), dx_v), gradients

    return output, pull


def _linear(x: Jet, weight: Jet) -> tuple[Jet, Callable[[Jet], tuple[Jet, Jet]]]:
    """X Wᵀ, for W of shape [outputs, inputs]."""

    def pull(dy: Jet) -> tuple[Jet, Jet]:
        return jet.matmul(dy, weight), jet.matmul_transposed(dy, x)

    return jet.matmul(x, _transpose(weight)), pull


def _rmsnorm(x: Jet, configuration: ModelConfiguration) -> tuple[Jet, Callable[[Jet], Jet]]:
    """RMSNorm over the width; dx = factor · (dy - y · mean(y · dy))."""
    y, factor = jet.rmsnorm(x, configuration.rmsnorm_epsilon)

    def pull(dy: Jet) -> Jet:
        mean = jet.linear_map(lambda plane: plane.mean(dim=-1, keepdim=True), jet.multiply(y, dy))
        return jet.multiply(jet.subtract(dy, jet.multiply(y, mean)), factor)

    return y, pull


def _pull_softmax(probabilities: Jet, gradient: Jet) -> Jet:
    weighted = jet.multiply(probabilities, gradient)
    total = jet.linear_map(lambda plane: plane.sum(dim=-1, keepdim=True), weighted)
    return jet.subtract(weighted, jet.multiply(probabilities, total))


def _transpose(x: Jet) -> Jet:
    return jet.linear_map(lambda plane: plane.transpose(-1, -2), x)


def _split(x: Jet, heads: int) -> Jet:
    """[T, E] to [H, T, E/H]."""
    return jet.linear_map(lambda plane: plane.reshape(*plane.shape[:-1], heads, -1).transpose(-3, -2), x)


def _merge(x: Jet) -> Jet:
    """[H, T, E/H] to [T, E]."""
    return jet.linear_map(lambda plane: plane.transpose(-3, -2).flatten(-2), x)


def _add_rows(rows: Tensor, indices: Tensor, count: int) -> Tensor:
    """A matrix of `count` rows in which row indices[t] collects row t."""
    return rows.new_zeros(*rows.shape[:-2], count, rows.shape[-1]).index_add_(-2, indices, rows)
