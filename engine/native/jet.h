// The ring of jets on many directions at once; the fast twin of engine/jet.py, which is its oracle.
//
// A jet is a shared constant term and DEGREE higher coefficients of PLANES real numbers (1: real, 2: real and
// imaginary) for each of LANES directions, which lie innermost: one coefficient plane of all of them is one vector
// register, and whatever is done to one direction is done to its neighbours by the same instruction. With DEGREE 0
// there is nothing but a constant term, and that has the lanes: as many plain models as a register holds numbers.
//
// Formulas and sources: engine/jet.py.

#pragma once

#include "lanes.h"

constexpr int HIGHER = DEGREE * PLANES;  // vectors of a jet beside its constant term
using Constant = std::conditional_t<DEGREE == 0, Lanes, Real>;

// ---- Jets ----

struct Coefficient {
    Lanes plane[PLANES];
};

struct Jet {
    Constant constant{};
    Coefficient higher[DEGREE > 0 ? DEGREE : 1]{};
};

// total += x·y of coefficients, real or complex.
INLINE void add_product(Coefficient& total, const Coefficient& x, const Coefficient& y) {
    if constexpr (PLANES == 1) {
        total.plane[0] += x.plane[0] * y.plane[0];
    } else {
        total.plane[0] += x.plane[0] * y.plane[0];
        total.plane[1] += x.plane[0] * y.plane[1];
        total.plane[0] -= x.plane[1] * y.plane[1];
        total.plane[1] += x.plane[1] * y.plane[0];
    }
}

INLINE void add_scaled(Coefficient& total, Constant factor, const Coefficient& x) {
    each<0, PLANES>([&](auto p) INLINED { total.plane[p] += factor * x.plane[p]; });
}

INLINE void scale(Coefficient& x, Constant factor) {
    each<0, PLANES>([&](auto p) INLINED { x.plane[p] *= factor; });
}

// total += x·y: coefficient r is the sum over i of x_i·y_{r-i}.
INLINE void add_product(Jet& total, const Jet& x, const Jet& y) {
    total.constant += x.constant * y.constant;
    each<0, DEGREE>([&](auto r) INLINED {
        add_scaled(total.higher[r], x.constant, y.higher[r]);
        add_scaled(total.higher[r], y.constant, x.higher[r]);
        each<0, r>([&](auto i) INLINED { add_product(total.higher[r], x.higher[i], y.higher[r - 1 - i]); });
    });
}

INLINE Jet operator*(const Jet& x, const Jet& y) {
    Jet product;
    add_product(product, x, y);
    return product;
}

INLINE Jet& operator+=(Jet& x, const Jet& y) {
    x.constant += y.constant;
    each<0, DEGREE>([&](auto r) INLINED {
        each<0, PLANES>([&](auto p) INLINED { x.higher[r].plane[p] += y.higher[r].plane[p]; });
    });
    return x;
}

INLINE Jet& operator-=(Jet& x, const Jet& y) {
    x.constant -= y.constant;
    each<0, DEGREE>([&](auto r) INLINED {
        each<0, PLANES>([&](auto p) INLINED { x.higher[r].plane[p] -= y.higher[r].plane[p]; });
    });
    return x;
}

INLINE Jet& operator*=(Jet& x, Real factor) {
    x.constant *= factor;
    each<0, DEGREE>([&](auto r) INLINED { each<0, PLANES>([&](auto p) INLINED { x.higher[r].plane[p] *= factor; }); });
    return x;
}

INLINE Jet operator+(Jet x, const Jet& y) { return x += y; }
INLINE Jet operator-(Jet x, const Jet& y) { return x -= y; }
INLINE Jet operator*(Jet x, Real factor) { return x *= factor; }

// Each mixed product is taken once.
INLINE Jet square(const Jet& x) {
    Jet y;
    y.constant = x.constant * x.constant;
    const Constant twice = x.constant + x.constant;
    each<0, DEGREE>([&](auto r) INLINED {
        add_scaled(y.higher[r], twice, x.higher[r]);
        Coefficient mixed{};
        each<0, r / 2>([&](auto i) INLINED { add_product(mixed, x.higher[i], x.higher[r - 1 - i]); });
        each<0, PLANES>([&](auto p) INLINED { y.higher[r].plane[p] += mixed.plane[p] + mixed.plane[p]; });
        if constexpr (r % 2 == 1) add_product(y.higher[r], x.higher[r / 2], x.higher[r / 2]);
    });
    return y;
}

// exp: r·y_r = Σ_k k·x_k·y_{r-k}.
INLINE Jet exponential(const Jet& x) {
    Jet y;
    y.constant = exponential(x.constant);
    each<0, DEGREE>([&](auto r) INLINED {
        add_scaled(y.higher[r], y.constant, x.higher[r]);
        each<0, r>([&](auto i) INLINED {
            Coefficient part = x.higher[i];
            each<0, PLANES>([&](auto p) INLINED { part.plane[p] *= Real(i + 1) / Real(r + 1); });
            add_product(y.higher[r], part, y.higher[r - 1 - i]);
        });
    });
    return y;
}

// x^a from x_0^a: r·x_0·y_r = Σ_k (a·k - (r-k))·x_k·y_{r-k}; the exponent is Numerator / 2.
template <int Numerator>
INLINE Jet power(const Jet& x) {
    static_assert(Numerator == -1 || Numerator == -2);
    Jet y;
    const Constant reciprocal = Real(1) / x.constant;
    y.constant = Numerator == -2 ? reciprocal : root(reciprocal);
    each<0, DEGREE>([&](auto r) INLINED {
        add_scaled(y.higher[r], y.constant * (Real(Numerator) / 2), x.higher[r]);
        each<0, r>([&](auto i) INLINED {
            Coefficient part = x.higher[i];
            each<0, PLANES>([&](auto p) INLINED {
                part.plane[p] *= (Real(Numerator) / 2 * Real(i + 1) - Real(r - i)) / Real(r + 1);
            });
            add_product(y.higher[r], part, y.higher[r - 1 - i]);
        });
        scale(y.higher[r], reciprocal);
    });
    return y;
}

// x·Φ(x) and its derivative, both from the Taylor series at the constant term (Hermite recurrence).
inline void gelu(const Jet& x, Jet& value, Jet& slope) {
    constexpr Real ROOT_HALF = 0.70710678118654752440, DENSITY = 0.39894228040143267794;
    const Constant at = x.constant;
    const Constant density = exponential(Real(-0.5) * at * at) * DENSITY;
    const Constant cumulative = Real(0.5) * (Real(1) + error_function(at * ROOT_HALF));
    Constant hermite[DEGREE + 2], taylor[DEGREE + 2];
    hermite[0] = at - at + Real(1);
    hermite[1] = at;
    taylor[0] = at * cumulative;
    taylor[1] = cumulative + at * density;
    each<1, DEGREE + 1>([&](auto n) INLINED {
        hermite[n + 1] = (at * hermite[n] - hermite[n - 1]) / Real(n + 1);
        const Constant inner = at * hermite[n] / Real(n + 1) - hermite[n - 1] / Real(n);
        taylor[n + 1] = (n % 2 == 1 ? Real(-1) : Real(1)) * inner * density;
    });
    value = slope = Jet{};
    value.constant = taylor[0];
    slope.constant = taylor[1];
    Jet rest = x;  // the j-th power of the nilpotent part; orders below j aren't looked at
    each<1, DEGREE + 1>([&](auto j) INLINED {
        each<j - 1, DEGREE>([&](auto r) INLINED {
            add_scaled(value.higher[r], taylor[j], rest.higher[r]);
            add_scaled(slope.higher[r], Real(j + 1) * taylor[j + 1], rest.higher[r]);
        });
        Jet following;
        each<j, DEGREE>([&](auto r) INLINED {
            each<0, r - j + 1>([&](auto i)
                                   INLINED { add_product(following.higher[r], x.higher[i], rest.higher[r - 1 - i]); });
        });
        rest = following;
    });
}

// ---- Jets in memory: constants and higher coefficients apart, so that neither pads the other ----

struct Jets {
    Constant* constant;
    Lanes* higher;  // HIGHER vectors each: orders, and in each its planes

    INLINE Jet operator[](std::ptrdiff_t at) const {
        Jet x;
        x.constant = constant[at];
        const Lanes* from = higher + at * HIGHER;
        each<0, DEGREE>([&](auto r) INLINED {
            each<0, PLANES>([&](auto p) INLINED { x.higher[r].plane[p] = from[r * PLANES + p]; });
        });
        return x;
    }

    INLINE void set(std::ptrdiff_t at, const Jet& x) const {
        constant[at] = x.constant;
        Lanes* to = higher + at * HIGHER;
        each<0, DEGREE>([&](auto r) INLINED {
            each<0, PLANES>([&](auto p) INLINED { to[r * PLANES + p] = x.higher[r].plane[p]; });
        });
    }

    INLINE Jets operator+(std::ptrdiff_t by) const { return {constant + by, higher + by * HIGHER}; }
};

// A row or a column: every stride-th jet.
struct Line {
    Jets from;
    std::ptrdiff_t stride;

    INLINE Jet operator[](std::ptrdiff_t at) const { return from[at * stride]; }
    INLINE void set(std::ptrdiff_t at, const Jet& x) const { from.set(at * stride, x); }
    INLINE Line operator+(std::ptrdiff_t by) const { return {from + by * stride, stride}; }
};

// Inner products of `count` lines with one, handed on one by one. As long as registers hold them, two are in flight:
// what is loaded of `y` is used twice, and a multiplication need not wait for the one before.
template <class LineOf, class Take>
INLINE void dots(int count, const LineOf& x, const Line& y, int length, const Take& take) {
    constexpr bool PAIRS = HIGHER <= 6;
    int n = 0;
    for (; PAIRS && n + 1 < count; n += 2) {
        const Line one = x(n), other = x(n + 1);
        Jet first, second;
        for (int k = 0; k < length; ++k) {
            const Jet factor = y[k];
            add_product(first, one[k], factor);
            add_product(second, other[k], factor);
        }
        take(n, first);
        take(n + 1, second);
    }
    for (; n < count; ++n) {
        const Line one = x(n);
        Jet last;
        for (int k = 0; k < length; ++k) add_product(last, one[k], y[k]);
        take(n, last);
    }
}
