// What the model is made of: matrices of jets, linear maps, norms, softmax, each with its pullback, and Adam.
//
// Every product of matrices is inner products of rows and columns. As soon as a weight's gradient is known, Adam moves
// the weight: gradients are never stored, so a pullback of the input has to come before the update of the weight.

#pragma once

#include "jet.h"

struct Matrix {
    Jets jets;
    int rows, columns;

    INLINE Line row(int at) const { return {jets + std::ptrdiff_t(at) * columns, 1}; }
    INLINE Line column(int at) const { return {jets + at, columns}; }
    INLINE Jet at(int r, int c) const { return jets[std::ptrdiff_t(r) * columns + c]; }
    INLINE void set(int r, int c, const Jet& x) const { jets.set(std::ptrdiff_t(r) * columns + c, x); }
    INLINE void add(int r, int c, const Jet& x) const { set(r, c, at(r, c) + x); }
};

// Hands out matrices from one block of memory; with none, it counts what would be needed.
class Arena {
  public:
    explicit Arena(void* memory) : memory_(static_cast<char*>(memory)) {}

    Jets jets(std::ptrdiff_t count) {
        auto* constant = static_cast<Constant*>(bytes(count * sizeof(Constant)));
        return {constant, static_cast<Lanes*>(bytes(count * HIGHER * sizeof(Lanes)))};
    }
    Matrix matrix(int rows, int columns) { return {jets(std::ptrdiff_t(rows) * columns), rows, columns}; }
    std::size_t used() const { return used_; }

  private:
    void* bytes(std::size_t size) {
        void* here = memory_ == nullptr ? nullptr : memory_ + used_;
        used_ += (size + VECTOR_BYTES - 1) / VECTOR_BYTES * VECTOR_BYTES;
        return here;
    }

    char* memory_;
    std::size_t used_ = 0;
};

// ---- Linear maps: y = x Wᵀ for W of [outputs, inputs], over the first rows of x ----

// Inner products of two rows of x with every line of the weight: the rows stay in the nearest cache, and what is loaded
// of the weight is used twice.
template <class LineOf, class Take>
INLINE void products(const Matrix& x, int rows, int count, const LineOf& line, int length, const Take& take) {
    for (int t = 0; t < rows; t += 2)
        for (int o = 0; o < count; ++o)
            dots(
                std::min(2, rows - t), [&](int n) INLINED { return x.row(t + n); }, line(o), length,
                [&](int n, const Jet& sum) INLINED { take(t + n, o, sum); });
}

inline void linear(const Matrix& x, const Matrix& weight, const Matrix& y, int rows) {
    products(
        x, rows, weight.rows, [&](int o) INLINED { return weight.row(o); }, weight.columns,
        [&](int t, int o, const Jet& sum) INLINED { y.set(t, o, sum); });
}

inline void add_linear(const Matrix& x, const Matrix& weight, const Matrix& y, int rows) {
    products(
        x, rows, weight.rows, [&](int o) INLINED { return weight.row(o); }, weight.columns,
        [&](int t, int o, const Jet& sum) INLINED { y.add(t, o, sum); });
}

// dx = dy W
inline void linear_pullback(const Matrix& dy, const Matrix& weight, const Matrix& dx, int rows) {
    products(
        dy, rows, weight.columns, [&](int i) INLINED { return weight.column(i); }, weight.rows,
        [&](int t, int i, const Jet& sum) INLINED { dx.set(t, i, sum); });
}

inline void add_linear_pullback(const Matrix& dy, const Matrix& weight, const Matrix& dx, int rows) {
    products(
        dy, rows, weight.columns, [&](int i) INLINED { return weight.column(i); }, weight.rows,
        [&](int t, int i, const Jet& sum) INLINED { dx.add(t, i, sum); });
}

// ---- Adam: θ -= rate · m / sqrt(second_correction · v + epsilon) ----

struct Rates {
    Real beta1, beta2, second_correction, rate, epsilon;  // as of engine.train.adam_rates
};

// A parameter matrix and its moments.
struct Weight {
    Matrix value;
    Jets first, second;

    INLINE void update(std::ptrdiff_t at, const Jet& gradient, const Rates& rates) const {
        move(at, first[at] * rates.beta1 + gradient * (1 - rates.beta1),
             second[at] * rates.beta2 + square(gradient) * (1 - rates.beta2), rates);
    }

    // Where the gradient is zero, momentum goes on.
    INLINE void coast(std::ptrdiff_t at, const Rates& rates) const {
        move(at, first[at] * rates.beta1, second[at] * rates.beta2, rates);
    }

    // With the gradient dyᵀ x of a linear map, over the first rows of both.
    void update(const Matrix& dy, const Matrix& x, int rows, const Rates& rates) const {
        for (int o = 0; o < value.rows; ++o)
            dots(
                value.columns, [&](int i) INLINED { return x.column(i); }, dy.column(o), rows,
                [&](int i, const Jet& sum) INLINED { update(std::ptrdiff_t(o) * value.columns + i, sum, rates); });
    }

  private:
    INLINE void move(std::ptrdiff_t at, const Jet& m, Jet v, const Rates& rates) const {
        first.set(at, m);
        second.set(at, v);
        v *= rates.second_correction;
        v.constant += rates.epsilon;
        value.jets.set(at, value.jets[at] - (m * power<-1>(v)) * rates.rate);
    }
};

// ---- RMSNorm: y = x · factor, factor = 1 / sqrt(mean(x²) + epsilon); x and y may be one ----

inline void rmsnorm(const Matrix& x, double epsilon, const Matrix& y, const Jets& factor, int rows) {
    for (int t = 0; t < rows; ++t) {
        Jet mean;
        for (int i = 0; i < x.columns; ++i) mean += square(x.at(t, i));
        mean *= Real(1) / Real(x.columns);
        mean.constant += Real(epsilon);
        const Jet inverse_root = power<-1>(mean);
        factor.set(t, inverse_root);
        for (int i = 0; i < x.columns; ++i) y.set(t, i, x.at(t, i) * inverse_root);
    }
}

// factor · (dy - y · mean(y · dy)), handed on.
template <class Take>
INLINE void rmsnorm_pullback(const Matrix& y, const Jets& factor, const Matrix& dy, int rows, const Take& take) {
    for (int t = 0; t < rows; ++t) {
        Jet mean;
        for (int i = 0; i < y.columns; ++i) add_product(mean, y.at(t, i), dy.at(t, i));
        mean *= Real(1) / Real(y.columns);
        const Jet scale = factor[t];
        for (int i = 0; i < y.columns; ++i) take(t, i, (dy.at(t, i) - y.at(t, i) * mean) * scale);
    }
}

// ---- Softmax of the first `count` of a line, in place; the shift by the largest constant term is itself a constant
// ----

inline void softmax(const Line& x, int count) {
    Constant largest = x[0].constant;
    for (int i = 1; i < count; ++i) largest = larger(largest, x[i].constant);
    Jet total;
    for (int i = 0; i < count; ++i) {
        Jet shifted = x[i];
        shifted.constant -= largest;
        const Jet raised = exponential(shifted);
        total += raised;
        x.set(i, raised);
    }
    const Jet reciprocal = power<-2>(total);
    for (int i = 0; i < count; ++i) x.set(i, x[i] * reciprocal);
}

// p · (dp - Σ p · dp), in place of dp.
inline void softmax_pullback(const Line& p, const Line& dp, int count) {
    Jet total;
    for (int i = 0; i < count; ++i) add_product(total, p[i], dp[i]);
    for (int i = 0; i < count; ++i) dp.set(i, p[i] * (dp[i] - total));
}
