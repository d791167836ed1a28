#include <algorithm>

#include "native/kernels/attention/attention.h"
#include "native/kernels/check_tools.h"

namespace moestro {
namespace {

constexpr int kKvHeads = 2;
constexpr float kNoNumber = std::numeric_limits<float>::quiet_NaN();

// Tokens at [position, position + tokens) of a sequence.
struct Case {
  KvType type;
  int d, block_tokens, position, tokens, group, window;
  Values values;
  int end() const { return position + tokens; }
};

// A cache of one layer whose blocks lie in a shuffled order. What no token has stored is no number: all of slot 0,
// which no table names, and every position at or past `end`.
struct TestCache {
  std::vector<uint16_t> k16, v16;
  std::vector<int8_t> k8, v8;
  std::vector<float> k_scale, v_scale;
  std::vector<int32_t> block_table;
  KvLayer layer;

  size_t row_at(int kv_head, int position) const {
    const size_t block = block_table[position / layer.block_tokens];
    return (block * kKvHeads + kv_head) * layer.block_tokens + position % layer.block_tokens;
  }
  size_t key_at(size_t row, int c) const {
    return row / kKvChunk * kKvChunk * layer.head_dim + static_cast<size_t>(c) * kKvChunk + row % kKvChunk;
  }
  size_t value_at(size_t row, int c) const { return row * layer.head_dim + c; }
  double key(size_t row, int c) const { return element(k16, k8, k_scale, row, key_at(row, c)); }
  double value(size_t row, int c) const { return element(v16, v8, v_scale, row, value_at(row, c)); }
  double element(const std::vector<uint16_t>& half, const std::vector<int8_t>& bytes, const std::vector<float>& scales,
                 size_t row, size_t at) const {
    return layer.type == KvType::f16 ? half_to_double(half[at]) : static_cast<double>(bytes[at]) * scales[row];
  }
};

// Magnitudes up to 2, small ones and denormals among them.
uint16_t some_half(Values values, Random* random) {
  if (values == Values::zeros) return 0;
  return static_cast<uint16_t>(random->next() % 0x4000 | (random->next() & 0x8000));
}

// Fills what stands at one position in all kv heads: with numbers, or with none.
void fill_position(const Case& c, int position, bool is_stored, Random* random, TestCache* out) {
  for (int head = 0; head < kKvHeads; ++head) {
    const size_t row = out->row_at(head, position);
    for (int i = 0; i < c.d; ++i) {
      const size_t k = out->key_at(row, i), v = out->value_at(row, i);
      if (c.type == KvType::f16) {
        out->k16[k] = is_stored ? some_half(c.values, random) : 0x7e00;
        out->v16[v] = is_stored ? some_half(c.values, random) : 0x7e00;
      } else {
        out->k8[k] = static_cast<int8_t>(static_cast<int>(random->between(0, 254)) - 127);
        out->v8[v] = static_cast<int8_t>(static_cast<int>(random->between(0, 254)) - 127);
      }
    }
    if (c.type != KvType::int8) continue;
    out->k_scale[row] = is_stored ? std::fabs(one_value(Values::usual, random)) / 200 : kNoNumber;
    out->v_scale[row] = is_stored ? std::fabs(one_value(Values::usual, random)) / 200 : kNoNumber;
  }
}

void make_cache(const Case& c, Random* random, TestCache* out) {
  const int blocks = (c.end() + c.block_tokens - 1) / c.block_tokens;
  for (int i = 0; i < blocks; ++i) out->block_table.push_back(i + 1);
  for (int i = blocks - 1; i > 0; --i) std::swap(out->block_table[i], out->block_table[random->between(0, i)]);
  const size_t rows = static_cast<size_t>(blocks + 1) * kKvHeads * c.block_tokens;
  out->layer = {c.type, nullptr, nullptr, nullptr, nullptr, kKvHeads, c.d, c.block_tokens};
  if (c.type == KvType::f16) {
    out->k16.assign(rows * c.d, 0x7e00), out->v16 = out->k16;
    out->layer.k = reinterpret_cast<uint8_t*>(out->k16.data());
    out->layer.v = reinterpret_cast<uint8_t*>(out->v16.data());
  } else {
    out->k8.assign(rows * c.d, 100), out->v8 = out->k8;
    out->k_scale.assign(rows, kNoNumber), out->v_scale = out->k_scale;
    out->layer.k = reinterpret_cast<uint8_t*>(out->k8.data());
    out->layer.v = reinterpret_cast<uint8_t*>(out->v8.data());
    out->layer.k_scale = out->k_scale.data();
    out->layer.v_scale = out->v_scale.data();
  }
  for (int position = 0; position < c.end(); ++position) fill_position(c, position, true, random, out);
}

struct Functions {
  Attention* attention;
  AttentionMerge* merge;
  AttentionFinish* finish;
};

// Floats that start on a cache line, as the contract wants; no numbers at first.
class Floats {
 public:
  explicit Floats(size_t n) : floats_(n + 16, kNoNumber) {}
  float* data() {
    return reinterpret_cast<float*>((reinterpret_cast<uintptr_t>(floats_.data()) + 63) & ~uintptr_t{63});
  }

 private:
  std::vector<float> floats_;
};

struct Inputs {
  const Case* c;
  const TestCache* cache;
  int kv_head;
  std::vector<float> q;  // [tokens][group][d]
};

// Outputs [tokens][group][d] of tokens [0, tokens), `chunk` of them in a call; `split`: each span in a call of its own.
std::vector<float> run(const Functions& functions, const Inputs& in, int chunk, bool split) {
  const Case& c = *in.c;
  const size_t width = static_cast<size_t>(c.group) * c.d, state_width = c.group * attention_state(c.d);
  Floats scratch(attention_scratch(chunk * c.group, c.d)), state(chunk * state_width), later(chunk * state_width);
  std::vector<float> out(c.tokens * width, kNoNumber);
  for (int t = 0; t < c.tokens; t += chunk) {
    AttentionQueries queries = {in.cache->block_table.data(),
                                in.kv_head,
                                c.group,
                                c.position + t,
                                0,
                                c.window,
                                in.q.data() + t * width,
                                width,
                                1 / std::sqrt(static_cast<float>(c.d))};
    queries.tokens = std::min(chunk, c.tokens - t);
    const int first = queries.begin(0) / kAttentionSpan;
    const int last = (queries.end(queries.tokens - 1) + kAttentionSpan - 1) / kAttentionSpan;
    if (split) {
      functions.attention(in.cache->layer, queries, first, first + 1, scratch.data(), state.data());
      for (int span = first + 1; span < last; ++span) {
        functions.attention(in.cache->layer, queries, span, span + 1, scratch.data(), later.data());
        functions.merge(later.data(), c.group, c.d, state.data());
      }
    } else {
      functions.attention(in.cache->layer, queries, first, last, scratch.data(), state.data());
    }
    for (int i = 0; i < queries.tokens; ++i)
      functions.finish(state.data() + i * state_width, c.group, c.d, out.data() + (t + i) * width);
  }
  return out;
}

// One query in double. Its scores err by `steepest` units of rounding for every step of their sums, and a score's error
// is a relative one of its weight; then the sums of weights and of values, a step a position, and the rescalings.
void check_formula(CheckLog* log, const std::string& what, const Inputs& in, int query, const std::vector<float>& out) {
  const Case& c = *in.c;
  const int end = c.position + query / c.group + 1, begin = c.window > 0 ? std::max(0, end - c.window) : 0;
  const int n = end - begin;
  const float* q = in.q.data() + static_cast<size_t>(query) * c.d;
  std::vector<double> scores(n);
  double steepest = 0;
  for (int i = 0; i < n; ++i) {
    double sum = 0, magnitude = 0;
    for (int j = 0; j < c.d; ++j) {
      const double product = q[j] * in.cache->key(in.cache->row_at(in.kv_head, begin + i), j);
      sum += product;
      magnitude += std::fabs(product);
    }
    scores[i] = sum / std::sqrt(static_cast<double>(c.d));
    steepest = std::max(steepest, magnitude / std::sqrt(static_cast<double>(c.d)));
  }
  const double most = *std::max_element(scores.begin(), scores.end());
  double total = 0;
  for (double& score : scores) total += score = std::exp(score - most);
  for (int j = 0; j < c.d; ++j) {
    double expected = 0, largest = 0;
    for (int i = 0; i < n; ++i) {
      const double value = in.cache->value(in.cache->row_at(in.kv_head, begin + i), j);
      expected += scores[i] / total * value;
      largest = std::max(largest, std::fabs(value));
    }
    const double tolerance = kEps * largest * (2 * steepest * (c.d + 8) + 1.1 * n + 40);
    if (!expect_near(log, what, out[static_cast<size_t>(query) * c.d + j], expected, tolerance)) return;
  }
}

// A token does not see what stands after it: with no number at the last position, all others are what they were.
void check_blind(CheckLog* log, const std::string& what, const Functions& functions, const Inputs& in,
                 const std::vector<float>& expected, Random* random) {
  const Case& c = *in.c;
  TestCache poisoned = *in.cache;
  if (c.type == KvType::f16) {
    poisoned.layer.k = reinterpret_cast<uint8_t*>(poisoned.k16.data());
    poisoned.layer.v = reinterpret_cast<uint8_t*>(poisoned.v16.data());
  } else {
    poisoned.layer.k = reinterpret_cast<uint8_t*>(poisoned.k8.data());
    poisoned.layer.v = reinterpret_cast<uint8_t*>(poisoned.v8.data());
    poisoned.layer.k_scale = poisoned.k_scale.data();
    poisoned.layer.v_scale = poisoned.v_scale.data();
  }
  fill_position(c, c.end() - 1, false, random, &poisoned);
  Inputs other = in;
  other.cache = &poisoned;
  const auto all_but_last = [&](std::vector<float> out) {
    out.resize(out.size() - static_cast<size_t>(c.group) * c.d);
    return out;
  };
  const std::vector<float> actual = run(functions, other, attention_tokens(c.group), false);
  expect_same_bits(log, what + ", last position poisoned", all_but_last(expected), all_but_last(actual));
  log->expect(actual.back() != actual.back(), what + ", last position poisoned: its own token does not show it");
}

std::string describe(const Case& c) {
  return std::string("attention ") + (c.type == KvType::f16 ? "f16" : "int8") + " head_dim " + std::to_string(c.d) +
         ", " + std::to_string(c.tokens) + " tokens at " + std::to_string(c.position) + ", blocks of " +
         std::to_string(c.block_tokens) + ", " + std::to_string(c.group) + " heads, window " +
         std::to_string(c.window) + ", " + name_of(c.values);
}

void check_case(CheckLog* log, Random* random, const Case& c) {
  TestCache cache;
  make_cache(c, random, &cache);
  const Inputs in = {&c, &cache, static_cast<int>(random->between(0, kKvHeads - 1)),
                     make_values(c.values, static_cast<size_t>(c.tokens) * c.group * c.d, random)};
  const std::string what = describe(c) + ", ";
  const Functions scalar = {attention_scalar, attention_merge_scalar, attention_finish_scalar};
  const std::vector<float> expected = run(scalar, in, 1, false);
  const bool is_tame = c.values != Values::huge && c.values != Values::any_bits;
  for (int query = 0; is_tame && query < c.tokens * c.group; ++query)
    check_formula(log, what + "scalar", in, query, expected);
  const auto merges = variants_to_check(attention_merge_variants());
  const auto finishes = variants_to_check(attention_finish_variants());
  const auto variants = variants_to_check(attention_variants());
  std::vector<Functions> all = {scalar};
  std::vector<std::string> names = {"scalar"};
  for (size_t i = 0; i < variants.size(); ++i) {
    all.push_back({variants[i].function, merges[i].function, finishes[i].function});
    names.push_back(isa_name(variants[i].isa));
  }
  for (size_t i = 0; i < all.size(); ++i) {
    const std::string name = what + names[i];
    expect_same_bits(log, name + ", spans apart", expected, run(all[i], in, 1, true));
    const int most = attention_tokens(c.group);
    for (int chunk : {1, 1 + static_cast<int>(random->between(0, most - 1)), most})
      expect_same_bits(log, name + ", chunks of " + std::to_string(chunk), expected, run(all[i], in, chunk, false));
    if (is_tame && c.tokens > 1) check_blind(log, name, all[i], in, expected, random);
  }
}

// Scores that leave nothing of each other: one position weighs all, the last or the first, or all weigh the same.
void check_extremes(CheckLog* log, KvType type) {
  constexpr int kPositions = 300, kDim = 64;
  const Case c = {type, kDim, 32, kPositions - 1, 1, 1, 0, Values::zeros};
  for (int chosen : {0, 63, 64, 255, 256, kPositions - 1, -1}) {
    Random random(1);
    TestCache cache;
    make_cache(c, &random, &cache);
    for (int position = 0; position < kPositions; ++position) {
      for (int head = 0; head < kKvHeads; ++head) {
        const size_t row = cache.row_at(head, position);
        const int key = position == chosen ? 100 : -100, value = position == chosen ? 64 : 32;
        if (type == KvType::int8) cache.k_scale[row] = 0x1p10f, cache.v_scale[row] = 1;
        for (int i = 0; i < kDim; ++i) {
          if (type == KvType::f16) {
            cache.k16[cache.key_at(row, i)] = static_cast<uint16_t>(key < 0 ? 0xfb00 : 0x7b00);  // 57344
            cache.v16[cache.value_at(row, i)] = static_cast<uint16_t>(value == 64 ? 0x5400 : 0x5000);
          } else {
            cache.k8[cache.key_at(row, i)] = static_cast<int8_t>(key);
            cache.v8[cache.value_at(row, i)] = static_cast<int8_t>(value);
          }
        }
      }
    }
    const Inputs in = {&c, &cache, 1, std::vector<float>(kDim, 1e25f)};
    const std::vector<float> expected(kDim, chosen < 0 ? 32.0f : 64.0f);
    const Functions scalar = {attention_scalar, attention_merge_scalar, attention_finish_scalar};
    std::vector<Functions> all = {scalar};
    for (const auto& variant : variants_to_check(attention_variants()))
      all.push_back({variant.function, attention_merge_scalar, attention_finish_scalar});
    for (const Functions& functions : all) {
      for (float actual : run(functions, in, 1, false))
        expect_near(log, describe(c) + ", one position of all weight: " + std::to_string(chosen), actual, expected[0],
                    kEps * 64 * 40);
    }
  }
}

}  // namespace

void check_attention(CheckLog* log, Random* random) {
  for (KvType type : {KvType::f16, KvType::int8}) {
    for (Values values : kAllValues) check_case(log, random, {type, 64, 16, 30, 7, 3, 0, values});
    for (int end : {1, 2, 15, 16, 17, 63, 64, 65, 100, 255, 256, 257})
      check_case(log, random, {type, 32, 16, end - 1, 1, 4, 0, Values::usual});
    for (int position : {0, 13, 50, 62, 190, 250}) {
      const int tokens = static_cast<int>(random->between(3, 70));
      check_case(log, random, {type, 32, 48, position, tokens, 1, 0, Values::usual});
    }
    for (int window : {1, 2, 15, 16, 17, 64, 70, 300})
      check_case(log, random, {type, 96, 32, 60 + window / 2, 19, 2, window, Values::usual});
    for (int group : {1, 2, 3, 4, 5, 8, 9, 40})
      check_case(log, random, {type, 128, 64, 85, 5, group, 0, Values::usual});
    for (int d : {160, 192, 224, 256}) check_case(log, random, {type, d, 32, 250, 9, 1, 0, Values::usual});
    check_case(log, random, {type, 32, 16, 500, 40, 2, 0, Values::spread});
    check_extremes(log, type);
  }
}

}  // namespace moestro
