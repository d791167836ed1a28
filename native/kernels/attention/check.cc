#include <algorithm>

#include "native/kernels/attention/attention.h"
#include "native/kernels/check_tools.h"

namespace moestro {
namespace {

constexpr int kKvHeads = 2;

struct Case {
  KvType type;
  int d, block_tokens, begin, end, group;
  Values values;
};

// A cache of one layer whose blocks lie in a shuffled order; slot 0 is never used, so that a wrong block shows.
struct TestCache {
  std::vector<uint16_t> k16, v16;
  std::vector<int8_t> k8, v8;
  std::vector<float> k_scale, v_scale;
  std::vector<int32_t> block_table;
  KvLayer layer;
};

void make_cache(const Case& c, Random* random, TestCache* out) {
  const int blocks = (c.end + c.block_tokens - 1) / c.block_tokens;
  for (int i = 0; i < blocks; ++i) out->block_table.push_back(i + 1);
  for (int i = blocks - 1; i > 0; --i) std::swap(out->block_table[i], out->block_table[random->between(0, i)]);
  const size_t rows = static_cast<size_t>(blocks + 1) * kKvHeads * c.block_tokens;
  out->layer = {c.type, nullptr, nullptr, nullptr, nullptr, kKvHeads, c.d, c.block_tokens};
  if (c.type == KvType::f16) {
    for (std::vector<uint16_t>* half : {&out->k16, &out->v16}) {
      half->resize(rows * c.d);
      // Magnitudes up to 2, small ones and denormals among them.
      for (uint16_t& value : *half) {
        value =
            c.values == Values::zeros ? 0 : static_cast<uint16_t>(random->next() % 0x4000 | (random->next() & 0x8000));
      }
    }
    out->layer.k = reinterpret_cast<uint8_t*>(out->k16.data());
    out->layer.v = reinterpret_cast<uint8_t*>(out->v16.data());
    return;
  }
  for (std::vector<int8_t>* bytes : {&out->k8, &out->v8}) {
    bytes->resize(rows * c.d);
    for (int8_t& value : *bytes) value = static_cast<int8_t>(static_cast<int>(random->between(0, 254)) - 127);
  }
  for (std::vector<float>* scales : {&out->k_scale, &out->v_scale}) {
    *scales = make_values(Values::usual, rows, random);
    for (float& scale : *scales) scale = std::fabs(scale) / 200;
  }
  out->layer.k = reinterpret_cast<uint8_t*>(out->k8.data());
  out->layer.v = reinterpret_cast<uint8_t*>(out->v8.data());
  out->layer.k_scale = out->k_scale.data();
  out->layer.v_scale = out->v_scale.data();
}

double element(const Case& c, const std::vector<uint16_t>& half, const std::vector<int8_t>& bytes,
               const std::vector<float>& scales, size_t row, int i) {
  return c.type == KvType::f16 ? half_to_double(half[row * c.d + i])
                               : static_cast<double>(bytes[row * c.d + i]) * scales[row];
}

void check_formula(CheckLog* log, const std::string& what, const Case& c, const TestCache& cache, int kv_head,
                   const std::vector<float>& q, float scale, const std::vector<float>& out) {
  const int n = c.end - c.begin;
  const auto row_at = [&](int position) {
    const size_t block = cache.block_table[position / c.block_tokens];
    return (block * kKvHeads + kv_head) * c.block_tokens + position % c.block_tokens;
  };
  for (int h = 0; h < c.group; ++h) {
    std::vector<double> scores(n);
    double steepest = 0;
    for (int i = 0; i < n; ++i) {
      double sum = 0, magnitude = 0;
      for (int j = 0; j < c.d; ++j) {
        const double product = q[h * c.d + j] * element(c, cache.k16, cache.k8, cache.k_scale, row_at(c.begin + i), j);
        sum += product;
        magnitude += std::fabs(product);
      }
      scores[i] = sum * scale;
      steepest = std::max(steepest, magnitude * scale);
    }
    const double most = *std::max_element(scores.begin(), scores.end());
    double total = 0;
    for (double& score : scores) total += score = std::exp(score - most);
    for (int j = 0; j < c.d; ++j) {
      double expected = 0, largest = 0;
      for (int i = 0; i < n; ++i) {
        const double value = element(c, cache.v16, cache.v8, cache.v_scale, row_at(c.begin + i), j);
        expected += scores[i] / total * value;
        largest = std::max(largest, std::fabs(value));
      }
      const double tolerance = kEps * largest * (2 * steepest * (c.d / 16 + 8) + n + 20);
      if (!expect_near(log, what, out[h * c.d + j], expected, tolerance)) return;
    }
  }
}

void check_case(CheckLog* log, Random* random, const Case& c) {
  TestCache cache;
  make_cache(c, random, &cache);
  const std::vector<float> q = make_values(c.values, static_cast<size_t>(c.group) * c.d, random);
  const float scale = 1 / std::sqrt(static_cast<float>(c.d));
  const size_t padded = (c.end - c.begin + 15) / 16 * 16;
  const int kv_head = static_cast<int>(random->between(0, kKvHeads - 1));
  const auto run = [&](Attention* function, int first, int heads) {
    std::vector<float> scores(heads * padded), out(static_cast<size_t>(heads) * c.d);
    function(cache.layer, cache.block_table.data(), c.begin, c.end, kv_head, heads, q.data() + first * c.d, scale,
             scores.data(), out.data());
    return out;
  };
  const std::string what = std::string("attention ") + (c.type == KvType::f16 ? "f16" : "int8") + " head_dim " +
                           std::to_string(c.d) + ", positions " + std::to_string(c.begin) + " to " +
                           std::to_string(c.end) + ", blocks of " + std::to_string(c.block_tokens) + ", " +
                           std::to_string(c.group) + " heads, " + name_of(c.values) + ", ";
  const std::vector<float> expected = run(attention_scalar, 0, c.group);
  if (c.values != Values::huge && c.values != Values::any_bits) {
    check_formula(log, what + "scalar", c, cache, kv_head, q, scale, expected);
  }
  for (const auto& variant : variants_to_check(attention_variants())) {
    const std::string name = what + isa_name(variant.isa);
    expect_same_bits(log, name, expected, run(variant.function, 0, c.group));
    for (int h = 0; h < c.group; ++h) {  // a head alone gives what the group gave
      const auto from = expected.begin() + static_cast<ptrdiff_t>(h) * c.d;
      expect_same_bits(log, name + ", alone", std::vector<float>(from, from + c.d), run(variant.function, h, 1));
    }
  }
}

}  // namespace

void check_attention(CheckLog* log, Random* random) {
  for (KvType type : {KvType::f16, KvType::int8}) {
    for (Values values : kAllValues) check_case(log, random, {type, 64, 16, 0, 37, 3, values});
    for (int end : {1, 2, 15, 16, 17, 32, 33, 100}) check_case(log, random, {type, 32, 16, 0, end, 4, Values::usual});
    for (int begin : {1, 15, 16, 31, 47}) check_case(log, random, {type, 96, 32, begin, 48, 2, Values::usual});
    for (int group = 1; group <= 9; ++group) check_case(log, random, {type, 128, 64, 5, 90, group, Values::usual});
  }
}

}  // namespace moestro
