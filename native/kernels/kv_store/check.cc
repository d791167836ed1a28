#include "native/kernels/check_tools.h"
#include "native/kernels/kv_store/kv_store.h"

namespace moestro {
namespace {

constexpr int kBlocks = 2, kHeads = 3, kSlots = 16;

struct Stored {
  std::vector<uint8_t> k, v;
  std::vector<float> k_scale, v_scale;
};

Stored run(KvStore* function, KvType type, int d, int position, const std::vector<float>& k,
           const std::vector<float>& v) {
  const size_t rows = kBlocks * kHeads * kSlots;
  const size_t bytes = rows * d * (type == KvType::f16 ? 2 : 1);
  Stored out = {std::vector<uint8_t>(bytes, 0x5a), std::vector<uint8_t>(bytes, 0x5a), {}, {}};
  if (type == KvType::int8) out.k_scale.assign(rows, -1), out.v_scale.assign(rows, -1);
  const KvLayer kv = {type, out.k.data(), out.v.data(), out.k_scale.data(), out.v_scale.data(), kHeads, d, kSlots};
  function(kv, 1, position, k.data(), v.data());
  return out;
}

void check_formula(CheckLog* log, const std::string& what, KvType type, int d, int position,
                   const std::vector<float>& x, const std::vector<uint8_t>& bytes, const std::vector<float>& scales,
                   bool is_key) {
  for (int head = 0; head < kHeads; ++head) {
    const size_t row = static_cast<size_t>(kHeads + head) * kSlots + position;
    for (int i = 0; i < d; ++i) {
      const double value = x[head * d + i];
      const size_t at = is_key ? (row / kKvChunk * d + i) * kKvChunk + row % kKvChunk : row * d + i;
      double stored, tolerance;
      if (type == KvType::f16) {
        uint16_t half;
        std::memcpy(&half, &bytes[at * 2], 2);
        stored = half_to_double(half);
        tolerance = std::fabs(value) * 0x1p-11 + 0x1p-25;
      } else {
        stored = static_cast<double>(static_cast<int8_t>(bytes[at])) * scales[row];
        tolerance = scales[row] * 0.5001;
      }
      if (!expect_near(log, what, stored, value, tolerance)) return;
    }
  }
}

}  // namespace

void check_kv_store(CheckLog* log, Random* random) {
  for (KvType type : {KvType::f16, KvType::int8}) {
    for (Values values : kAllValues) {
      for (int d : {32, 64, 128}) {
        const int position = static_cast<int>(random->between(0, kSlots - 1));
        const std::vector<float> k = make_values(values, kHeads * d, random),
                                 v = make_values(values, kHeads * d, random);
        const std::string what = std::string("kv_store ") + (type == KvType::f16 ? "f16" : "int8") + " of " +
                                 std::to_string(d) + " " + name_of(values) + " values, ";
        const Stored expected = run(kv_store_scalar, type, d, position, k, v);
        for (const auto& variant : variants_to_check(kv_store_variants())) {
          const Stored actual = run(variant.function, type, d, position, k, v);
          const std::string name = what + isa_name(variant.isa);
          expect_same_bits(log, name + " k", expected.k, actual.k);
          expect_same_bits(log, name + " v", expected.v, actual.v);
          expect_same_bits(log, name + " k scale", expected.k_scale, actual.k_scale);
          expect_same_bits(log, name + " v scale", expected.v_scale, actual.v_scale);
        }
        if (values == Values::tiny || values == Values::huge || values == Values::any_bits) continue;
        check_formula(log, what + "scalar k", type, d, position, k, expected.k, expected.k_scale, true);
        check_formula(log, what + "scalar v", type, d, position, v, expected.v, expected.v_scale, false);
      }
    }
  }
}

}  // namespace moestro
