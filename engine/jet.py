"""The ring of jets: truncated polynomials ``c_0 + c_1 z + … + c_S z^S``, many at once, sharing a real constant term.

A jet holds **Taylor coefficients** (divided by r!), not derivatives. Training along K directions makes K jets of
every number, and their constant terms agree: they are the ordinary training run. So `Jet.constant` is held once,
real, without a direction axis, and only the coefficients of orders 1 … S carry the axis K. Of the ten coefficient
products of a multiplication at degree 3, one is then shared altogether, six are a shared real number times a complex
one, and three are complex products a direction.

A higher coefficient is a tuple of real *planes*: ``(real, imaginary)`` along complex directions, ``(real,)`` along
real ones. Separate planes, rather than a complex or a stacked tensor, let products with a shared factor be real
matrix products and let a compiler fuse whole element-wise rules.

Rules by class:

- linear functions act on every coefficient (`linear_map`, `add`, `scale`);
- bilinear functions are Cauchy products: `multiply` element-wise, `matmul` and `matmul_transposed` over stacked planes;
- `exp`, `log` and `power` follow from their differential equations, coefficient by coefficient, in O(S²) products;
- `gelu` and its derivative are composed from their Taylor series at the constant term (Hermite recurrence) and the
  powers of the nilpotent rest.

Source: automatic differentiation in truncated Taylor arithmetic, Griewank & Walther, *Evaluating Derivatives*, ch.
13. A unary function reads only the real constant term's value and derivatives, so no complex special function is
needed anywhere.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple, TypeAlias

import torch
from torch import Tensor

Coefficient: TypeAlias = tuple[Tensor, ...]
"""The planes of one coefficient: (real,) or (real, imaginary), each of shape [K, ...]."""


class Jet(NamedTuple):
    """Jets of degree S along K directions.

    A jet of degree 0 (no higher coefficients) is an ordinary tensor; its constant may then have any leading batch
    axes, which is how many plain models are trained at once.
    """

    constant: Tensor
    """Order 0: real, shared by all directions, of shape [...]."""
    higher: tuple[Coefficient, ...] = ()
    """Orders 1 … S: planes of shape [K, ...]."""

    @property
    def degree(self) -> int:
        """S."""
        return len(self.higher)

    @property
    def coefficients(self) -> tuple[Coefficient, ...]:
        """Orders 0 … S as planes; the constant is a single plane without the direction axis."""
        return ((self.constant,), *self.higher)


def zeros_like(x: Jet) -> Jet:
    """The zero jet of the same shape, degree and planes."""
    return linear_map(torch.zeros_like, x)


def linear_map(f: Callable[[Tensor], Tensor], x: Jet) -> Jet:
    """A linear function, applied to every coefficient. `f` must act on the trailing axes and keep leading ones."""
    return Jet(f(x.constant), tuple(tuple(f(plane) for plane in planes) for planes in x.higher))


def add(x: Jet, y: Jet) -> Jet:
    """The sum, of jets of one degree."""
    pairs = zip(x.higher, y.higher, strict=True)
    return Jet(x.constant + y.constant, tuple(tuple(map(torch.add, p, q)) for p, q in pairs))


def subtract(x: Jet, y: Jet) -> Jet:
    """The difference, of jets of one degree."""
    pairs = zip(x.higher, y.higher, strict=True)
    return Jet(x.constant - y.constant, tuple(tuple(map(torch.sub, p, q)) for p, q in pairs))


def scale(x: Jet, factor: float | Tensor) -> Jet:
    """A real constant times a jet; a tensor must broadcast against the trailing axes."""
    return linear_map(lambda plane: plane * factor, x)


def shift(x: Jet, offset: float | Tensor) -> Jet:
    """A jet plus a real constant: only the constant term moves."""
    return x._replace(constant=x.constant + offset)


def truncate(x: Jet, degree: int) -> Jet:
    """The same jet modulo z^{degree+1}."""
    return x._replace(higher=x.higher[:degree])


def multiply(x: Jet, y: Jet) -> Jet:
    """The element-wise product: coefficient r is the sum over i of x_i · y_{r-i}.

    Raises:
        ValueError: jets of different degree.
    """
    _check_degrees(x, y)
    xs, ys = x.coefficients, y.coefficients
    higher = tuple(_sum_of_products([(xs[i], ys[r - i], 1.0) for i in range(r + 1)]) for r in range(1, len(xs)))
    return Jet(x.constant * y.constant, higher)


def matmul(x: Jet, y: Jet) -> Jet:
    """The matrix product x y over the last two axes.

    All planes of x are stacked along its rows, so that each plane of y is multiplied once, with all rows that it meets:
    2S + 1 batched products of many rows instead of (S + 1)(S + 2)/2 complex ones of few.

    Raises:
        ValueError: jets of different degree.
    """
    _check_degrees(x, y)
    constant = x.constant @ y.constant
    if not x.higher:
        return Jet(constant)
    stack = _stack_rows(x)
    rows, parts, orders = x.constant.shape[-2], len(x.higher[0]), x.degree
    # [K, …, S, planes, rows, columns]: first what meets the constant term of y, a product with a shared matrix.
    total = _unstack_rows((stack @ y.constant)[..., rows:, :], orders, parts)
    for order, planes in enumerate(y.higher, start=1):
        met = 1 + (orders - order) * parts  # planes of x whose product with this order isn't cut off
        for part, plane in enumerate(planes):
            products = stack[..., : met * rows, :] @ plane
            total[..., order - 1, part, :, :] += products[..., :rows, :]
            if met == 1:
                continue
            others = _unstack_rows(products[..., rows:, :], orders - order, parts)
            if part == 0:
                total[..., order:, :, :, :] += others
            else:
                total[..., order:, 1, :, :] += others[..., 0, :, :]
                total[..., order:, 0, :, :] -= others[..., 1, :, :]
    return Jet(
        constant,
        tuple(tuple(total[..., r, part, :, :] for part in range(parts)) for r in range(orders)),
    )


def matmul_transposed(x: Jet, y: Jet) -> Jet:
    """The matrix product xᵀ y over the last two axes.

    The sum over rows and the sum of the Cauchy product are one sum: planes of x and the planes of y that each of them
    meets are stacked along the rows, and every plane of the result is one batched product.

    Raises:
        ValueError: jets of different degree.
    """
    _check_degrees(x, y)
    constant = x.constant.transpose(-1, -2) @ y.constant
    if not x.higher:
        return Jet(constant)
    rows, parts = x.constant.shape[-2], len(x.higher[0])
    stack = _stack_rows(x).transpose(-1, -2)
    directions = len(x.higher[0][0])
    first = y.constant.expand(directions, *y.constant.shape)
    higher = []
    for r in range(1, x.degree + 1):
        met: list[list[Tensor]] = [[plane] for plane in y.higher[r - 1]]  # by x_0; then by x_1 … x_r
        for i in range(1, r + 1):
            partner = y.higher[r - i - 1] if i < r else (first,)
            if parts == 1:
                met[0] += partner
            elif i < r:
                met[0] += [partner[0], -partner[1]]
                met[1] += [partner[1], partner[0]]
            else:  # the real part of x_r meets y_0 in the real part of the result, the imaginary in the imaginary
                met[0] += [first]
                met[1] += [torch.zeros_like(first), first]
        higher.append(tuple(stack[..., : len(planes) * rows] @ torch.cat(planes, dim=-2) for planes in met))
    return Jet(constant, tuple(higher))


def times_linear(x: Jet, slope: Coefficient) -> Jet:
    """z·slope times a jet: orders move up by one, and the constant term vanishes.

    Args:
        x: jets along K directions.
        slope: planes that broadcast against [K, ...].
    """
    higher = tuple(_add_product(None, slope, planes) for planes in x.coefficients[:-1])
    return Jet(torch.zeros_like(x.constant), higher)


def square(x: Jet) -> Jet:
    """The element-wise square, with each mixed product taken once."""
    xs = x.coefficients
    higher = tuple(_square_coefficient(xs, r, lowest=0) for r in range(1, len(xs)))
    return Jet(x.constant * x.constant, higher)


def exp(x: Jet) -> Jet:
    """The exponential: y' = x' y gives r·y_r = Σ_k k·x_k·y_{r-k}."""
    ys: list[Coefficient] = [(torch.exp(x.constant),)]
    for r in range(1, x.degree + 1):
        ys.append(_sum_of_products([(x.higher[k - 1], ys[r - k], k / r) for k in range(1, r + 1)]))
    return Jet(ys[0][0], tuple(ys[1:]))


def log(x: Jet) -> Jet:
    """The logarithm of a jet with positive constant term: x y' = x' gives x_0·y_r = x_r - Σ_{k<r} (k/r)·y_k·x_{r-k}."""
    reciprocal = 1 / x.constant
    ys: list[Coefficient] = []
    for r in range(1, x.degree + 1):
        terms = [(ys[k - 1], x.higher[r - k - 1], -k / r) for k in range(1, r)]
        total = x.higher[r - 1] if not terms else _plus(x.higher[r - 1], _sum_of_products(terms))
        ys.append(tuple(plane * reciprocal for plane in total))
    return Jet(torch.log(x.constant), tuple(ys))


def power(x: Jet, exponent: float) -> Jet:
    """x^a for a positive constant term: x y' = a x' y gives r·x_0·y_r = Σ_k (a·k - (r-k))·x_k·y_{r-k}."""
    reciprocal = 1 / x.constant
    ys: list[Coefficient] = [(x.constant**exponent,)]
    for r in range(1, x.degree + 1):
        terms = [(x.higher[k - 1], ys[r - k], (exponent * k - (r - k)) / r) for k in range(1, r + 1)]
        ys.append(tuple(plane * reciprocal for plane in _sum_of_products(terms)))
    return Jet(ys[0][0], tuple(ys[1:]))


def gelu(x: Jet) -> tuple[Jet, Jet]:
    """x·Φ(x) with the exact error function, and its derivative, both as jets of the same degree.

    The derivative's coefficient of order S needs the function's Taylor coefficient of order S + 1, so the series has
    one term more than the degree.
    """
    taylor = _gelu_taylor(x.constant, x.degree + 1)
    slope = [(j + 1) * taylor[j + 1] for j in range(x.degree + 1)]
    value, derivative = compose(x, taylor[:-1], slope)
    return value, derivative


def compose(x: Jet, *series: Sequence[Tensor]) -> tuple[Jet, ...]:
    """Functions of a jet from their Taylor series at its constant term; the powers of the rest are shared by all.

    Args:
        x: a jet of degree S.
        series: for each function its Taylor coefficients 0 … S at ``x.constant``, each of the constant's shape.
    """
    higher: list[list[Coefficient | None]] = [[None] * x.degree for _ in series]
    rest: list[Coefficient | None] = list(x.higher)  # the j-th power of the nilpotent part; index r-1 holds order r
    for j in range(1, x.degree + 1):
        if j > 1:
            rest = _next_power(x, rest, j)
        for r in range(j, x.degree + 1):
            planes = rest[r - 1]
            assert planes is not None  # orders r >= j of the j-th power exist
            for coefficients, taylor in zip(higher, series, strict=True):
                coefficients[r - 1] = _add_product(coefficients[r - 1], (taylor[j],), planes)
    return tuple(
        Jet(taylor[0], tuple(planes for planes in coefficients if planes is not None))
        for coefficients, taylor in zip(higher, series, strict=True)
    )


def softmax(x: Jet) -> Jet:
    """Softmax over the last axis; the shift by the constant term's maximum is a constant, hence exact."""
    exponentials = exp(shift(x, -x.constant.amax(dim=-1, keepdim=True)))
    total = linear_map(lambda plane: plane.sum(dim=-1, keepdim=True), exponentials)
    return multiply(exponentials, power(total, -1.0))


def rmsnorm(x: Jet, epsilon: float) -> tuple[Jet, Jet]:
    """X / sqrt(mean(x²) + epsilon) over the last axis, and the factor 1 / sqrt(…), of shape [..., 1]."""
    mean_square = linear_map(lambda plane: plane.mean(dim=-1, keepdim=True), square(x))
    factor = power(shift(mean_square, epsilon), -0.5)
    return multiply(x, factor), factor


def _gelu_taylor(x: Tensor, degree: int) -> list[Tensor]:
    """Taylor coefficients 0 … degree of x·Φ(x).

    With h_n = He_n(x)/n! (He: the probabilists' Hermite polynomials) and φ the normal density, for n ≥ 2:
    f_n = (-1)^{n-1} · (x·h_{n-1}/n - h_{n-2}/(n-1)) · φ(x).
    """
    density = torch.exp(-0.5 * x * x) / math.sqrt(2 * math.pi)
    cumulative = 0.5 * (1 + torch.erf(x / math.sqrt(2)))
    hermite = [torch.ones_like(x), x]
    for n in range(1, degree):
        hermite.append((x * hermite[n] - hermite[n - 1]) / (n + 1))
    taylor = [x * cumulative, cumulative + x * density]
    taylor += [
        (-1) ** (n - 1) * (x * hermite[n - 1] / n - hermite[n - 2] / (n - 1)) * density for n in range(2, degree + 1)
    ]
    return taylor


def _next_power(x: Jet, rest: list[Coefficient | None], j: int) -> list[Coefficient | None]:
    """The j-th power of the nilpotent part of `x`, from its (j-1)-th; orders below j vanish."""
    following: list[Coefficient | None] = [None] * (j - 1)
    for r in range(j, x.degree + 1):
        if j == 2:
            following.append(_square_coefficient(x.coefficients, r, lowest=1))
            continue
        pairs = ((x.higher[i - 1], rest[r - i - 1]) for i in range(1, r - j + 2))
        following.append(_sum_of_products([(p, q, 1.0) for p, q in pairs if q is not None]))
    return following


def _plus(x: Coefficient, y: Coefficient) -> Coefficient:
    return tuple(map(torch.add, x, y))


def _square_coefficient(xs: Sequence[Coefficient], r: int, *, lowest: int) -> Coefficient:
    """Coefficient r of the square of Σ_{i >= lowest} x_i z^i, each mixed product taken once."""
    terms = [(xs[i], xs[r - i], 2.0) for i in range(lowest, (r + 1) // 2)]
    if r % 2 == 0:
        terms.append((xs[r // 2], xs[r // 2], 1.0))
    return _sum_of_products(terms)


def _check_degrees(x: Jet, y: Jet) -> None:
    if x.degree != y.degree:
        raise ValueError(f"The jets have degrees {x.degree} and {y.degree}.")


def _stack_rows(x: Jet) -> Tensor:
    """All planes under each other, orders 0 … S, each order's real before its imaginary one: [K, …, planes·rows, b]."""
    directions = len(x.higher[0][0])
    planes = (plane for coefficient in x.higher for plane in coefficient)
    return torch.cat([x.constant.expand(directions, *x.constant.shape), *planes], dim=-2)


def _unstack_rows(stack: Tensor, orders: int, parts: int) -> Tensor:
    """[…, orders·parts·rows, b] as [..., orders, parts, rows, b]."""
    return stack.reshape(*stack.shape[:-2], orders, parts, -1, stack.shape[-1])


def _sum_of_products(terms: Sequence[tuple[Coefficient, Coefficient, float]]) -> Coefficient:
    """Σ weight·x·y over terms (x, y, weight); at least one."""
    total: Coefficient | None = None
    for x, y, weight in terms:
        total = _add_product(total, x if weight == 1 else tuple(plane * weight for plane in x), y)
    assert total is not None
    return total


def _add_product(total: Coefficient | None, x: Coefficient, y: Coefficient) -> Coefficient:
    """Total + x·y by planes: real times real, real times complex, or complex times complex."""

    def add_to(plane: Tensor | None, p: Tensor, q: Tensor, sign: int = 1) -> Tensor:
        return p * q if plane is None else torch.addcmul(plane, p, q, value=sign)

    sums = total or (None, None)
    if len(x) == 2 and len(y) == 2:
        real = add_to(add_to(sums[0], x[0], y[0]), x[1], y[1], -1)
        imaginary = add_to(add_to(sums[1], x[0], y[1]), x[1], y[0])
        return real, imaginary
    if len(x) == 2:
        return add_to(sums[0], x[0], y[0]), add_to(sums[1], x[1], y[0])
    return tuple(add_to(plane, x[0], q) for plane, q in zip(sums, y, strict=False))
