// A vector register's worth of numbers, and functions of them.
//
// REAL, VECTOR_BYTES and, for what is built on this, DEGREE and PLANES are macros: constant bounds let loops be
// unrolled and keep everything in registers. Exponential and error function of vectors are here since compilers take
// one number after the other to the library, which would be most of the time of training plain models.

#pragma once

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <type_traits>

using Real = REAL;

constexpr bool SINGLE = sizeof(Real) == 4;
constexpr int LANES = VECTOR_BYTES / sizeof(Real);

using Whole = std::conditional_t<SINGLE, std::int32_t, std::int64_t>;
typedef Real Lanes __attribute__((vector_size(VECTOR_BYTES)));
typedef Whole Wholes __attribute__((vector_size(VECTOR_BYTES)));

#define INLINE [[gnu::always_inline]] inline
#define INLINED __attribute__((always_inline))  // of a lambda: a call would put what it is given into memory

// A loop that is unrolled where it stands, so that what it indexes can be a register.
template <int From, int To, class Body>
INLINE void each(const Body& body) {
    if constexpr (From < To) {
        body(std::integral_constant<int, From>{});
        each<From + 1, To>(body);
    }
}

// ---- Functions of one number or of all lanes ----

INLINE Real larger(Real x, Real y) { return std::max(x, y); }
INLINE Real root(Real x) { return std::sqrt(x); }
INLINE Real exponential(Real x) { return std::exp(x); }
INLINE Real error_function(Real x) { return std::erf(x); }

INLINE Lanes larger(Lanes x, Lanes y) { return x > y ? x : y; }

INLINE Lanes root(Lanes x) {
    for (int lane = 0; lane < LANES; ++lane) x[lane] = std::sqrt(x[lane]);
    return x;
}

// 2^n · Σ r^k / k! for x = n·ln 2 + r; held where the result is a normal number, so that it is never infinite.
INLINE Lanes exponential(Lanes x) {
    constexpr Real LEAST = SINGLE ? -87 : -708, MOST = SINGLE ? 88 : 709;
    constexpr Real PER_TURN = 1.44269504088896340736, ROUNDING = SINGLE ? 0x1.8p23 : 0x1.8p52;
    constexpr Real TURN = SINGLE ? 0x1.62e4p-1 : 0x1.62e42fefa38p-1;  // ln 2 in few digits, and what they leave out
    constexpr Real TURN_REST = SINGLE ? 1.42860682030941723e-6 : 5.49792301870837115e-14;
    constexpr int MANTISSA = SINGLE ? 23 : 52, BIAS = SINGLE ? 127 : 1023, TERMS = SINGLE ? 7 : 13;
    x = x < LEAST ? Lanes{} + LEAST : x;
    x = x > MOST ? Lanes{} + MOST : x;
    const Lanes turns = (x * PER_TURN + ROUNDING) - ROUNDING;
    const Lanes rest = (x - turns * TURN) - turns * TURN_REST;
    Lanes sum = rest * 0 + Real(1);
    each<0, TERMS>([&](auto k) INLINED { sum = sum * rest / Real(TERMS - k) + Real(1); });
    const Wholes power = (__builtin_convertvector(turns, Wholes) + BIAS) << MANTISSA;
    return sum * std::bit_cast<Lanes>(power);
}

// Chebyshev coefficients of log(erfc(z)·exp(z²) / t) over 2t - 1, t = 2 / (2 + z), computed in 40 digits.
constexpr double COMPLEMENT[] = {
    -1.30265371978170943,     0.64196979235649026,      0.0194764732041858363,    -0.00956151478680863164,
    -0.000946595344482036866, 0.000366839497852761452,  0.0000425233248069077716, -0.0000202785781125342432,
    -1.62429000464702551e-6,  1.3036558355805232e-6,    1.56264417220661432e-8,   -8.52380959149265425e-8,
    6.5290544390988515e-9,    5.05934349555146894e-9,   -9.91364156493033087e-10, -2.27365122293183586e-10,
    9.6467911020155268e-11,   2.39403808303911474e-12,  -6.8860275264975534e-12,  8.94487927309072572e-13,
    3.13092139934295808e-13,  -1.12708223613672524e-13, 3.81090525518923206e-16,  7.10609761360923699e-15,
    -1.5230282014571043e-15,  -9.457494571291234e-17,   1.21023718922427899e-16,  -2.81666308774717697e-17,
};

INLINE Lanes error_function(Lanes x) {
    constexpr int TERMS = SINGLE ? 15 : 28;
    const Lanes z = x < 0 ? -x : x, t = Real(2) / (Real(2) + z), twice = Real(4) * t - Real(2);
    Lanes sum = x * 0, before = sum;  // Clenshaw's recurrence
    each<1, TERMS>([&](auto k) INLINED {
        const Lanes next = twice * sum - before + Real(COMPLEMENT[TERMS - k]);
        before = sum;
        sum = next;
    });
    const Lanes logarithm = Real(0.5) * (Real(COMPLEMENT[0]) + twice * sum) - before;
    const Lanes complement = t * exponential(logarithm - z * z);
    return x < 0 ? complement - Real(1) : Real(1) - complement;
}
