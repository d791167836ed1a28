#include "native/kernels/check_random.h"

#include "native/kernels/check_random_tools.h"

namespace moestro {
namespace {

constexpr float kUntouched = 12345.0f;

// int8 activations: what quantize_q8 makes of hostile values (its sums and scales are part of the contract), or the
// extreme codes with scales of any bits.
struct Activations {
  std::vector<int8_t> q;
  std::vector<float> scale;
  std::vector<int32_t> sum;
  Q8Activations view;
};
Activations make_hostile_activations(int tokens, int cols, Random* random) {
  Activations a;
  const size_t n = static_cast<size_t>(tokens) * cols;
  if (random->happens(0.5)) {
    const std::vector<float> x = hostile_values(n, random);
    a.q.resize(n), a.scale.resize(n / 32), a.sum.resize(n / 32);
    kernels_for(Isa::scalar).quantize_q8(x.data(), static_cast<int>(n), a.q.data(), a.scale.data(), a.sum.data());
  } else {
    TestActivations made =
        make_activations(random->happens(0.5) ? Values::largest : Values::usual, tokens, cols, random);
    a.q = made.q, a.sum = made.sum;
    a.scale = hostile_values(n / 32, random);
  }
  a.view = {a.q.data(), a.scale.data(), a.sum.data(), cols};
  return a;
}

// Rows [begin, end) of a matrix, all of them half of the time.
struct RowRange {
  int begin, end;
};
RowRange pick_rows(int rows, Random* random) {
  if (random->happens(0.5)) return {0, rows};
  const int begin = pick(random, 0, rows / 16);
  return {16 * begin, 16 * pick(random, begin, rows / 16)};
}

std::string shape(int rows, int cols, int tokens) {
  return std::to_string(rows) + " x " + std::to_string(cols) + ", " + std::to_string(tokens) + " tokens";
}

void quantize_q8(Comparison* c) {
  const std::vector<float> x = hostile_values(32 * static_cast<size_t>(pick_size(70, c->random())), c->random());
  Outputs out;
  out.bytes.resize(x.size()), out.floats.resize(x.size() / 32), out.ints.resize(x.size() / 32);
  c->compare("quantize_q8 of " + std::to_string(x.size()), out, [&](const Kernels& k, Outputs* o) {
    k.quantize_q8(x.data(), static_cast<int>(x.size()), reinterpret_cast<int8_t*>(o->bytes.data()), o->floats.data(),
                  o->ints.data());
  });
}

void gemm_q8_dense(Comparison* c) {
  Random* random = c->random();
  constexpr int kBits[] = {4, 6, 8};
  const int bits = kBits[random->between(0, 2)];
  const int rows = 16 * pick(random, 1, 4), cols = 32 * pick_size(40, random), tokens = pick_size(40, random);
  const size_t tiles = static_cast<size_t>(rows / 16) * (cols / 32);
  const std::vector<uint8_t> codes = random_integers<uint8_t>(tiles * 64 * bits, bits == 8 ? 1 : 0, 255, random);
  const std::vector<uint16_t> scales = random->happens(0.7) ? make_half_scales(tiles * 16, random)
                                                            : random_integers<uint16_t>(tiles * 16, 0, 65535, random);
  const std::vector<uint8_t> group_scales = random_integers<uint8_t>(tiles * 16, 0, 255, random);
  const std::vector<uint16_t> row_scales = random_integers<uint16_t>(rows, 0, 65535, random);
  const DenseMatrix w = {bits, codes.data(), scales.data(), group_scales.data(), row_scales.data(), rows, cols};
  const Activations a = make_hostile_activations(tokens, cols, random);
  const RowRange range = pick_rows(rows, random);
  const size_t stride = rows + pick(random, 0, 20);
  Outputs out;
  out.floats.assign(stride * tokens, kUntouched);
  c->compare("gemm_q8_dense of " + std::to_string(bits) + " bits, " + shape(rows, cols, tokens), out,
             [&](const Kernels& k, Outputs* o) {
               k.gemm_q8_dense(w, a.view, tokens, range.begin, range.end, o->floats.data(), stride);
             });
}

void gemm_q8_planes(Comparison* c) {
  Random* random = c->random();
  constexpr int kLevels[] = {2, 3, 4, 8};
  const int level = kLevels[random->between(0, 3)];
  const int rows = 16 * pick(random, 1, 4), cols = 32 * pick_size(70, random), tokens = pick_size(40, random);
  const size_t tiles = static_cast<size_t>(rows / 16) * (cols / 32);
  PlaneMatrix w = {{}, nullptr, nullptr, rows, cols};
  std::vector<uint8_t> slots[8];
  for (int s = 0; s < level; ++s) {
    slots[s] = random_integers<uint8_t>(tiles * kBitTileBytes, 0, 255, random);
    w.slots[s] = slots[s].data();
  }
  const std::vector<uint8_t> group_scales = random_integers<uint8_t>(tiles * kScaleTileBytes, 0, 255, random);
  const std::vector<uint16_t> row_scales = random_integers<uint16_t>(rows, 0, 65535, random);
  w.group_scales = group_scales.data();
  w.row_scales = row_scales.data();
  PlaneTables tables;
  const std::vector<uint8_t> entries = random_integers<uint8_t>(16, 1, 255, random);
  for (int i = 0; i < 16; ++i) {
    tables.t4[i] = entries[i], tables.t3[i] = entries[i % 8], tables.t2[i] = entries[i % 4];
  }
  tables.residual_step = pick(random, 1, 8);
  tables.residual_offset = pick(random, 0, 254) - 127;
  const int stored = pick(random, 1, tokens + 2);
  const Activations a = make_hostile_activations(stored, cols, random);
  const std::vector<int32_t> token_rows = random_integers<int32_t>(tokens, 0, stored - 1, random);
  const RowRange range = pick_rows(rows, random);
  const size_t stride = rows + pick(random, 0, 20);
  Outputs out;
  out.floats.assign(stride * tokens, kUntouched);
  c->compare("gemm_q8_planes at level " + std::to_string(level) + ", " + shape(rows, cols, tokens), out,
             [&](const Kernels& k, Outputs* o) {
               k.gemm_q8_planes(w, tables, level, a.view, token_rows.data(), tokens, range.begin, range.end,
                                o->floats.data(), stride);
             });
  const size_t groups = cols / kGroup;
  std::vector<Q8Block> blocks((tokens + kBlockTokens - 1) / kBlockTokens * groups);
  for (int i = 0; i < tokens; ++i) {
    for (size_t g = 0; g < groups; ++g) {
      Q8Block& block = blocks[i / kBlockTokens * groups + g];
      const size_t from = token_rows[i] * groups + g, t = i % kBlockTokens;
      std::memcpy(block.q[t], a.q.data() + from * kGroup, kGroup);
      block.scale[t] = a.scale[from];
      block.bias[t] = -128 * a.sum[from];
    }
  }
  c->compare("gemm_q8_planes_packed at level " + std::to_string(level) + ", " + shape(rows, cols, tokens), out,
             [&](const Kernels& k, Outputs* o) {
               k.gemm_q8_planes_packed(w, tables, level, blocks.data(), tokens, range.begin, range.end,
                                       o->floats.data(), stride);
             });
}

void gemm_f32(Comparison* c) {
  Random* random = c->random();
  const int rows = pick_size(40, random), cols = 16 * pick_size(20, random), tokens = pick_size(9, random);
  const std::vector<float> w = hostile_values(static_cast<size_t>(rows) * cols, random);
  const std::vector<float> x = hostile_values(static_cast<size_t>(tokens) * cols, random);
  const size_t stride = rows + pick(random, 0, 20);
  Outputs out;
  out.floats.assign(stride * tokens, kUntouched);
  c->compare("gemm_f32 " + shape(rows, cols, tokens), out, [&](const Kernels& k, Outputs* o) {
    k.gemm_f32(w.data(), rows, cols, x.data(), tokens, o->floats.data(), stride);
  });
}

void rows_of_floats(Comparison* c) {
  Random* random = c->random();
  const int n = 16 * pick_size(64, random);
  const std::vector<float> x = hostile_values(n, random), other = hostile_values(n, random);
  const std::string of = " of " + std::to_string(n);
  Outputs out;
  out.floats = hostile_values(n, random);
  c->compare("rmsnorm_f32" + of, out,
             [&](const Kernels& k, Outputs* o) { k.rmsnorm_f32(x.data(), other.data(), n, 1e-6f, o->floats.data()); });
  c->compare("swiglu_f32" + of, out,
             [&](const Kernels& k, Outputs* o) { k.swiglu_f32(x.data(), other.data(), n, o->floats.data()); });
  c->compare("axpy_f32" + of, out,
             [&](const Kernels& k, Outputs* o) { k.axpy_f32(other[0], x.data(), n, o->floats.data()); });
  c->compare("sigmoid" + of, out, [&](const Kernels& k, Outputs* o) {
    for (int i = 0; i < n; ++i) o->floats[i] = k.sigmoid(x[i]);
  });
  const std::vector<uint16_t> halves = random_integers<uint16_t>(n, 0, 65535, random);
  c->compare("f16_to_f32" + of, out,
             [&](const Kernels& k, Outputs* o) { k.f16_to_f32(halves.data(), n, o->floats.data()); });
}

void rope_f32(Comparison* c) {
  Random* random = c->random();
  const int d = 32 * pick(random, 1, 8);
  const std::vector<float> cos = hostile_values(d / 2, random), sin = hostile_values(d / 2, random);
  Outputs out;
  out.floats = hostile_values(d, random);
  c->compare("rope_f32 of " + std::to_string(d), out,
             [&](const Kernels& k, Outputs* o) { k.rope_f32(o->floats.data(), d, cos.data(), sin.data()); });
}

void kv_store(Comparison* c) {
  Random* random = c->random();
  const KvType type = random->happens(0.5) ? KvType::f16 : KvType::int8;
  const int heads = pick(random, 1, 3), d = 32 * pick(random, 1, 4), block_tokens = 16 * pick(random, 1, 2);
  const std::vector<float> keys = hostile_values(heads * d, random), values = hostile_values(heads * d, random);
  const int block = pick(random, 0, 1), position = pick(random, 0, block_tokens - 1);
  const size_t rows = static_cast<size_t>(2) * heads * block_tokens;
  Outputs out;
  out.bytes.assign(rows * d * (type == KvType::f16 ? 2 : 1), 0x5a);
  out.more_bytes = out.bytes;
  if (type == KvType::int8) out.floats.assign(rows, kUntouched), out.more_floats = out.floats;
  c->compare(
      "kv_store of " + std::to_string(heads) + " x " + std::to_string(d), out, [&](const Kernels& k, Outputs* o) {
        const KvLayer kv = {type, o->bytes.data(), o->more_bytes.data(), o->floats.data(), o->more_floats.data(), heads,
                            d,    block_tokens};
        k.kv_store(kv, block, position, keys.data(), values.data());
      });
}

// 64-byte aligned floats of a call's scratch and state; no numbers at first.
struct AlignedFloats {
  std::vector<float> floats;
  explicit AlignedFloats(size_t n) : floats(n + 16, std::numeric_limits<float>::quiet_NaN()) {}
  float* data() { return reinterpret_cast<float*>((reinterpret_cast<uintptr_t>(floats.data()) + 63) & ~uintptr_t{63}); }
};

// A cache of one sequence in shuffled blocks, keys and values of any bits now and then, read in one call or span by
// span.
void attention(Comparison* c) {
  Random* random = c->random();
  const KvType type = random->happens(0.5) ? KvType::f16 : KvType::int8;
  const int kv_heads = pick(random, 1, 2), d = 16 * pick(random, 1, 8), block_tokens = 16 * pick(random, 1, 4);
  const int group = random->happens(0.9) ? pick(random, 1, 8) : pick(random, 9, 40);
  const int tokens = pick(random, 1, attention_tokens(group));
  const int position = random->happens(0.5) ? pick_size(300, random) - 1 : pick(random, 0, 700);
  const int end = position + tokens, window = random->happens(0.5) ? 0 : pick(random, 1, end + 10);
  const int blocks = (end + block_tokens - 1) / block_tokens;
  std::vector<int32_t> block_table(blocks);
  for (int i = 0; i < blocks; ++i) block_table[i] = i;
  for (int i = blocks - 1; i > 0; --i) std::swap(block_table[i], block_table[pick(random, 0, i)]);
  const size_t rows = static_cast<size_t>(blocks) * kv_heads * block_tokens;
  const uint64_t most = random->happens(0.2) ? 0xffff : 0x3fff;
  std::vector<uint16_t> k16, v16;
  std::vector<float> k_scale, v_scale;
  if (type == KvType::f16) {
    k16 = random_integers<uint16_t>(rows * d, 0, most, random),
    v16 = random_integers<uint16_t>(rows * d, 0, most, random);
    for (uint16_t& half : k16) half = static_cast<uint16_t>(half ^ (random->next() & 0x8000));
  } else {
    k16 = random_integers<uint16_t>(rows * d / 2, 0, 0xffff, random);
    v16 = random_integers<uint16_t>(rows * d / 2, 0, 0xffff, random);
    k_scale = hostile_values(rows, random), v_scale = hostile_values(rows, random);
  }
  const KvLayer kv = {type,
                      reinterpret_cast<uint8_t*>(k16.data()),
                      reinterpret_cast<uint8_t*>(v16.data()),
                      k_scale.data(),
                      v_scale.data(),
                      kv_heads,
                      d,
                      block_tokens};
  const size_t width = static_cast<size_t>(group) * d;
  const std::vector<float> q = hostile_values(tokens * width, random);
  const AttentionQueries queries = {block_table.data(),
                                    pick(random, 0, kv_heads - 1),
                                    group,
                                    position,
                                    tokens,
                                    window,
                                    q.data(),
                                    width,
                                    random->happens(0.9) ? 0.1f : 30.0f};
  const bool in_spans = tokens == 1 && random->happens(0.5);
  const int first = queries.begin(0) / kAttentionSpan, last = (end + kAttentionSpan - 1) / kAttentionSpan;
  Outputs out;
  out.floats.assign(tokens * width, kUntouched);
  c->compare("attention of " + std::to_string(group) + " x " + std::to_string(d) + " at " + std::to_string(position) +
                 ", " + std::to_string(tokens) + " tokens",
             out, [&](const Kernels& k, Outputs* o) {
               const size_t state_width = group * attention_state(d);
               AlignedFloats scratch(attention_scratch(queries.count(), d)), state(tokens * state_width);
               AlignedFloats later(state_width);
               k.attention(kv, queries, first, in_spans ? first + 1 : last, scratch.data(), state.data());
               for (int span = first + 1; in_spans && span < last; ++span) {
                 k.attention(kv, queries, span, span + 1, scratch.data(), later.data());
                 k.attention_merge(later.data(), group, d, state.data());
               }
               for (int t = 0; t < tokens; ++t) {
                 k.attention_finish(state.data() + t * state_width, group, d, o->floats.data() + t * width);
               }
             });
}

void topk_router(Comparison* c) {
  Random* random = c->random();
  const int n = random->happens(0.9) ? pick_size(130, random) : pick(random, 131, 1024);
  const int k_best = pick(random, 1, n < 64 ? n : 64);
  const bool normalize = random->happens(0.5);
  const std::vector<float> logits = hostile_values(n, random);
  Outputs out;
  out.halves.assign(k_best, 0), out.floats.assign(k_best, 0);
  c->compare("topk_router " + std::to_string(k_best) + " of " + std::to_string(n), out,
             [&](const Kernels& k, Outputs* o) {
               k.topk_router(logits.data(), n, k_best, normalize, o->halves.data(), o->floats.data());
             });
}

void select_logits(Comparison* c) {
  Random* random = c->random();
  std::vector<float> x = hostile_values(pick_size(300, random), random);
  const int n = static_cast<int>(x.size()), begin = pick(random, 0, n);
  const float bound = random->happens(0.5) ? x[pick(random, 0, n - 1)] : hostile_values(1, random)[0];
  Outputs out;
  out.ints.assign(n + 2, -7);
  c->compare("select_logits of " + std::to_string(n), out, [&](const Kernels& k, Outputs* o) {
    o->ints[n] = k.find_largest(x.data(), n);
    o->ints[n + 1] = k.find_from(x.data(), begin, n, bound, o->ints.data());
  });
}

}  // namespace

RandomCases check_random_cases(uint64_t seed, int cases) {
  // The matrix products, which branch the most, come most often.
  constexpr void (*kKernels[])(Comparison*) = {
      quantize_q8, gemm_q8_dense,  gemm_q8_dense, gemm_q8_dense, gemm_q8_planes, gemm_q8_planes, gemm_q8_planes,
      gemm_f32,    rows_of_floats, rope_f32,      kv_store,      attention,      topk_router,    select_logits,
  };
  constexpr int kCount = sizeof kKernels / sizeof kKernels[0];
  Comparison comparison(seed, cases);
  while (!comparison.is_done()) kKernels[comparison.random()->between(0, kCount - 1)](&comparison);
  return comparison.take();
}

}  // namespace moestro
