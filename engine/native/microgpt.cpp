// microgpt trained and measured in the ring, for one group of LANES directions or plain models: the fast twin of
// engine/model.py and engine/train.py, which are its oracles. What Python calls is at the end.
//
// T tokens of a document, E width, H heads, V tokens of the vocabulary with BOS. The causal mask is loops that end
// where it begins.

#include <memory>
#include <new>
#include <vector>
#if defined(__SSE__)
#include <immintrin.h>
#endif

#include "layers.h"

namespace {

struct Shape {
    std::int32_t vocabulary, width, heads, context, layers;  // V, E, H, the most T
    double rmsnorm_epsilon;
};

// P
std::ptrdiff_t parameter_count(const Shape& shape) {
    const std::ptrdiff_t width = shape.width;
    return (2 * shape.vocabulary + shape.context + 12 * shape.layers * width) * width;
}

// All parameters of a group, in the order of ModelConfiguration.shapes.
struct Parameters {
    struct Block {
        Weight wq, wk, wv, wo, fc1, fc2;
    };
    Weight wte, wpe, lm_head;
    std::vector<Block> blocks;

    // The moments may be null where nothing is trained.
    Parameters(const Shape& shape, const Jets& values, const Jets& first, const Jets& second) : blocks(shape.layers) {
        std::ptrdiff_t at = 0;
        const auto take = [&](int rows, int columns) {
            const Weight taken{{values + at, rows, columns}, first + at, second + at};
            at += std::ptrdiff_t(rows) * columns;
            return taken;
        };
        const int width = shape.width;
        wte = take(shape.vocabulary, width);
        wpe = take(shape.context, width);
        lm_head = take(shape.vocabulary, width);
        for (Block& block : blocks) {
            for (Weight* square : {&block.wq, &block.wk, &block.wv, &block.wo}) *square = take(width, width);
            block.fc1 = take(4 * width, width);
            block.fc2 = take(width, 4 * width);
        }
    }
};

// What the forward pass leaves for the backward pass, and room for gradients.
struct Workspace {
    struct Block {
        Matrix normed1, q, k, v, attention, mixed, normed2, slope, active;
        Jets factor1, factor2;
    };
    Matrix embedded, x, logits, narrow, wide, d_attention, dq, dk, dv;
    Jets factor;
    std::vector<Block> blocks;

    Workspace(const Shape& shape, Arena& arena) : blocks(shape.layers) {
        const int length = shape.context, width = shape.width;
        for (Matrix* matrix : {&embedded, &x, &narrow, &dq, &dk, &dv}) *matrix = arena.matrix(length, width);
        logits = arena.matrix(length, shape.vocabulary);
        wide = arena.matrix(length, 4 * width);
        d_attention = arena.matrix(length, length);
        factor = arena.jets(length);
        for (Block& block : blocks) {
            for (Matrix* matrix : {&block.normed1, &block.q, &block.k, &block.v, &block.mixed, &block.normed2})
                *matrix = arena.matrix(length, width);
            for (Matrix* matrix : {&block.slope, &block.active}) *matrix = arena.matrix(length, 4 * width);
            block.attention = arena.matrix(shape.heads * length, length);
            block.factor1 = arena.jets(length);
            block.factor2 = arena.jets(length);
        }
    }
};

// The model on one document.
class Microgpt {
  public:
    Microgpt(const Shape& shape, const Parameters& parameters, Workspace& work)
        : shape_(shape),
          size_(shape.width / shape.heads),
          root_(Real(1 / std::sqrt(double(size_)))),
          parameters_(parameters),
          work_(work) {}

    // Probabilities of the next token at every position, [T, V], in `logits` of the workspace.
    void forward(const std::int32_t* inputs, int length) const {
        const Matrix &wte = parameters_.wte.value, &wpe = parameters_.wpe.value;
        for (int t = 0; t < length; ++t)
            for (int i = 0; i < shape_.width; ++i) work_.embedded.set(t, i, wte.at(inputs[t], i) + wpe.at(t, i));
        rmsnorm(work_.embedded, shape_.rmsnorm_epsilon, work_.embedded, work_.factor, length);
        for (int t = 0; t < length; ++t)
            for (int i = 0; i < shape_.width; ++i) work_.x.set(t, i, work_.embedded.at(t, i));
        for (int layer = 0; layer < shape_.layers; ++layer) {
            const Parameters::Block& weights = parameters_.blocks[layer];
            const Workspace::Block& kept = work_.blocks[layer];
            rmsnorm(work_.x, shape_.rmsnorm_epsilon, kept.normed1, kept.factor1, length);
            attention(weights, kept, length);
            add_linear(kept.mixed, weights.wo.value, work_.x, length);
            rmsnorm(work_.x, shape_.rmsnorm_epsilon, kept.normed2, kept.factor2, length);
            linear(kept.normed2, weights.fc1.value, kept.active, length);
            for (int t = 0; t < length; ++t)
                for (int i = 0; i < 4 * shape_.width; ++i) {
                    Jet value, slope;
                    gelu(kept.active.at(t, i), value, slope);
                    kept.active.set(t, i, value);
                    kept.slope.set(t, i, slope);
                }
            add_linear(kept.active, weights.fc2.value, work_.x, length);
        }
        linear(work_.x, parameters_.lm_head.value, work_.logits, length);
        for (int t = 0; t < length; ++t) softmax(work_.logits.row(t), shape_.vocabulary);
    }

    // One step of training: the mean cross-entropy's gradient times `weight`, backward, and Adam. `x` becomes dx.
    void backward(const std::int32_t* inputs, const std::int32_t* targets, int length, const Jet& weight,
                  const Rates& rates) const {
        const Matrix &logits = work_.logits, &dx = work_.x, &d_normed = work_.narrow;
        for (int t = 0; t < length; ++t)
            for (int token = 0; token < shape_.vocabulary; ++token) {
                Jet gradient = logits.at(t, token);
                if (token == targets[t]) gradient.constant -= Real(1);
                logits.set(t, token, gradient * (Real(1) / Real(length)) * weight);
            }
        // The weight's update wants the input, which dx is about to overwrite.
        linear_pullback(logits, parameters_.lm_head.value, d_normed, length);
        parameters_.lm_head.update(logits, work_.x, length, rates);
        for (int t = 0; t < length; ++t)
            for (int i = 0; i < shape_.width; ++i) dx.set(t, i, d_normed.at(t, i));
        const auto add_to_dx = [&](int t, int i, const Jet& d) INLINED { dx.add(t, i, d); };
        for (int layer = shape_.layers - 1; layer >= 0; --layer) {
            const Parameters::Block& weights = parameters_.blocks[layer];
            const Workspace::Block& kept = work_.blocks[layer];
            linear_pullback(dx, weights.fc2.value, work_.wide, length);
            weights.fc2.update(dx, kept.active, length, rates);
            for (int t = 0; t < length; ++t)
                for (int i = 0; i < 4 * shape_.width; ++i)
                    work_.wide.set(t, i, work_.wide.at(t, i) * kept.slope.at(t, i));
            linear_pullback(work_.wide, weights.fc1.value, d_normed, length);
            weights.fc1.update(work_.wide, kept.normed2, length, rates);
            rmsnorm_pullback(kept.normed2, kept.factor2, d_normed, length, add_to_dx);
            attention_backward(weights, kept, length, rates);
            rmsnorm_pullback(kept.normed1, kept.factor1, d_normed, length, add_to_dx);
        }
        rmsnorm_pullback(work_.embedded, work_.factor, dx, length,
                         [&](int t, int i, const Jet& d) INLINED { dx.set(t, i, d); });
        embedding_update(inputs, length, rates);
    }

  private:
    // From normed1 to mixed, all heads side by side.
    void attention(const Parameters::Block& weights, const Workspace::Block& kept, int length) const {
        linear(kept.normed1, weights.wq.value, kept.q, length);
        linear(kept.normed1, weights.wk.value, kept.k, length);
        linear(kept.normed1, weights.wv.value, kept.v, length);
        for (int t = 0; t < length; ++t)
            for (int i = 0; i < shape_.width; ++i) kept.q.set(t, i, kept.q.at(t, i) * root_);
        for (int head = 0, from = 0; head < shape_.heads; ++head, from += size_)
            for (int t = 0; t < length; ++t) {
                const Line scores = kept.attention.row(head * shape_.context + t);
                dots(
                    t + 1, [&](int u) INLINED { return kept.k.row(u) + from; }, kept.q.row(t) + from, size_,
                    [&](int u, const Jet& sum) INLINED { scores.set(u, sum); });
                softmax(scores, t + 1);
                dots(
                    size_, [&](int i) INLINED { return kept.v.column(from + i); }, scores, t + 1,
                    [&](int i, const Jet& sum) INLINED { kept.mixed.set(t, from + i, sum); });
            }
    }

    // From dx to the gradient of normed1, in `narrow`.
    void attention_backward(const Parameters::Block& weights, const Workspace::Block& kept, int length,
                            const Rates& rates) const {
        const Matrix &d_mixed = work_.narrow, &d_scores = work_.d_attention, &d_normed = work_.narrow;
        linear_pullback(work_.x, weights.wo.value, d_mixed, length);
        weights.wo.update(work_.x, kept.mixed, length, rates);
        for (int head = 0, from = 0; head < shape_.heads; ++head, from += size_) {
            const Matrix probabilities{kept.attention.row(head * shape_.context).from, length, shape_.context};
            for (int t = 0; t < length; ++t) {
                dots(
                    t + 1, [&](int u) INLINED { return kept.v.row(u) + from; }, d_mixed.row(t) + from, size_,
                    [&](int u, const Jet& sum) INLINED { d_scores.set(t, u, sum); });
                softmax_pullback(probabilities.row(t), d_scores.row(t), t + 1);
                dots(
                    size_, [&](int i) INLINED { return kept.k.column(from + i); }, d_scores.row(t), t + 1,
                    [&](int i, const Jet& sum) INLINED { work_.dq.set(t, from + i, sum * root_); });
            }
            for (int u = 0; u < length; ++u) {
                dots(
                    size_, [&](int i) INLINED { return kept.q.column(from + i) + u; }, d_scores.column(u) + u,
                    length - u, [&](int i, const Jet& sum) INLINED { work_.dk.set(u, from + i, sum); });
                dots(
                    size_, [&](int i) INLINED { return d_mixed.column(from + i) + u; }, probabilities.column(u) + u,
                    length - u, [&](int i, const Jet& sum) INLINED { work_.dv.set(u, from + i, sum); });
            }
        }
        linear_pullback(work_.dq, weights.wq.value, d_normed, length);
        add_linear_pullback(work_.dk, weights.wk.value, d_normed, length);
        add_linear_pullback(work_.dv, weights.wv.value, d_normed, length);
        weights.wq.update(work_.dq, kept.normed1, length, rates);
        weights.wk.update(work_.dk, kept.normed1, length, rates);
        weights.wv.update(work_.dv, kept.normed1, length, rates);
    }

    // From dx, the gradient of the sum of token and position embedding.
    void embedding_update(const std::int32_t* inputs, int length, const Rates& rates) const {
        const int width = shape_.width;
        for (int token = 0; token < shape_.vocabulary; ++token) {
            const bool seen = std::find(inputs, inputs + length, token) != inputs + length;
            for (int i = 0; i < width; ++i) {
                const std::ptrdiff_t at = std::ptrdiff_t(token) * width + i;
                if (!seen) {
                    parameters_.wte.coast(at, rates);
                    continue;
                }
                Jet gradient;
                for (int t = 0; t < length; ++t)
                    if (inputs[t] == token) gradient += work_.x.at(t, i);
                parameters_.wte.update(at, gradient, rates);
            }
        }
        for (int t = 0; t < shape_.context; ++t)
            for (int i = 0; i < width; ++i) {
                const std::ptrdiff_t at = std::ptrdiff_t(t) * width + i;
                if (t < length)
                    parameters_.wpe.update(at, work_.x.at(t, i), rates);
                else
                    parameters_.wpe.coast(at, rates);
            }
    }

    const Shape& shape_;
    const int size_;   // of a head
    const Real root_;  // 1 / sqrt(size)
    const Parameters& parameters_;
    Workspace& work_;
};

// Momenta of what a document never visits decay into denormal numbers, with which processors are slow: they count as
// zero while this lives.
class NoDenormals {
  public:
#if defined(__SSE__)
    NoDenormals() : before_(_mm_getcsr()) { _mm_setcsr(before_ | 0x8040); }
    ~NoDenormals() { _mm_setcsr(before_); }

  private:
    unsigned before_;
#else
    NoDenormals() {}
#endif
};

// Of the loss of a unit: 1 - z·ψ along directions, and what is given of plain models.
template <class Of>
Jet weight_of(const Lanes* weights, std::int32_t unit) {
    Jet weight;
    Of& constant = weight.constant;
    if constexpr (std::is_same_v<Of, Lanes>) {
        constant = weights[unit];
    } else {
        constant = Real(1);
        each<0, PLANES>([&](auto p) INLINED { weight.higher[0].plane[p] = -weights[unit * PLANES + p]; });
    }
    return weight;
}

std::unique_ptr<void, decltype(&std::free)> allocate(std::size_t bytes) {
    void* memory = std::aligned_alloc(VECTOR_BYTES, bytes);
    if (memory == nullptr) throw std::bad_alloc();
    return {memory, &std::free};
}

std::size_t workspace_bytes(const Shape& shape) {
    Arena arena(nullptr);
    Workspace counted(shape, arena);
    return arena.used();
}

}  // namespace

extern "C" {

// Directions, or models, of a group.
int lanes() { return LANES; }

// Train over some steps of the schedule.
//
//   lengths, inputs, targets    of the documents, [steps], and [steps, context] each
//   units                       of the documents, [steps]
//   weights                     of the units' losses, [m, planes, LANES]: the downweight's direction ψ, or, of plain
//                               models, the weight itself, [m, LANES]
//   rates                       [steps, 5], as of engine.train.adam_rates
//   values, first, second       parameters and moments, constants [P] (of plain models [P, LANES]) and higher
//                               coefficients [P, orders, planes, LANES], aligned to LANES numbers
//
// Returns 0, or 1 where memory is short.
int train(const Shape* shape, int steps, const std::int32_t* lengths, const std::int32_t* inputs,
          const std::int32_t* targets, const std::int32_t* units, const Lanes* weights, const double* rates,
          Constant* values, Lanes* higher_values, Constant* first, Lanes* higher_first, Constant* second,
          Lanes* higher_second) {
    try {
        const NoDenormals no_denormals;
        const auto memory = allocate(workspace_bytes(*shape));
        Arena arena(memory.get());
        Workspace work(*shape, arena);
        const Parameters parameters(*shape, {values, higher_values}, {first, higher_first}, {second, higher_second});
        const Microgpt model(*shape, parameters, work);
        for (int step = 0; step < steps; ++step) {
            const Jet weight = weight_of<Constant>(weights, units[step]);
            const double* now = rates + 5 * step;
            const Rates of_step{Real(now[0]), Real(now[1]), Real(now[2]), Real(now[3]), Real(now[4])};
            const std::ptrdiff_t at = std::ptrdiff_t(step) * shape->context;
            model.forward(inputs + at, lengths[step]);
            model.backward(inputs + at, targets + at, lengths[step], weight, of_step);
        }
        return 0;
    } catch (const std::bad_alloc&) {
        return 1;
    }
}

// Probabilities of chosen next tokens of some texts, for some groups that lie one behind the other.
//
//   lengths, inputs             of the texts, [texts], and [texts, context]
//   counts                      targets of the texts, [texts]; N in all
//   positions, tokens           of all targets, one text's after the other's, [N]
//   values, higher_values       as of train; plain models' constants, and all higher coefficients, have [groups] in
//   front found, higher_found         where the jets of the targets' probabilities go: the same with N in place of P
//
// Returns 0, or 1 where memory is short.
int measure(const Shape* shape, int groups, int texts, const std::int32_t* lengths, const std::int32_t* inputs,
            const std::int32_t* counts, const std::int32_t* positions, const std::int32_t* tokens, Constant* values,
            Lanes* higher_values, Constant* found, Lanes* higher_found) {
    try {
        const NoDenormals no_denormals;
        const auto memory = allocate(workspace_bytes(*shape));
        Arena arena(memory.get());
        Workspace work(*shape, arena);
        constexpr bool SHARED = DEGREE > 0;  // constant terms
        std::ptrdiff_t targets = 0;
        for (int text = 0; text < texts; ++text) targets += counts[text];
        for (int group = 0; group < groups; ++group) {
            const std::ptrdiff_t at = group * parameter_count(*shape), to = group * targets;
            const Jets group_values{SHARED ? values : values + at, higher_values + at * HIGHER};
            const Parameters parameters(*shape, group_values, {nullptr, nullptr}, {nullptr, nullptr});
            const Microgpt model(*shape, parameters, work);
            const Jets group_found{SHARED ? found : found + to, higher_found + to * HIGHER};
            for (int text = 0, n = 0; text < texts; ++text) {
                model.forward(inputs + std::ptrdiff_t(text) * shape->context, lengths[text]);
                for (const int last = n + counts[text]; n < last; ++n)
                    group_found.set(n, work.logits.at(positions[n], tokens[n]));
            }
        }
        return 0;
    } catch (const std::bad_alloc&) {
        return 1;
    }
}
}
