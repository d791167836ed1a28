#include "native/kernels/check_tools.h"
#include "native/kernels/gemm_q8_planes/gemm_q8_planes.h"

namespace moestro {
namespace {

struct Case {
  int level, rows, cols, tokens, row_begin, row_end;
  Values values;
};

constexpr float kUntouched = 12345.0f;

// A random expert matrix; slots beyond the level stay null, as they do for an expert of which no more is resident.
struct TestMatrix {
  std::vector<uint8_t> slots[8];
  std::vector<uint8_t> group_scales;
  std::vector<uint16_t> row_scales;
  PlaneTables tables;
  PlaneMatrix matrix;
};

void make_matrix(const Case& c, Random* random, TestMatrix* out) {
  const size_t tiles = static_cast<size_t>(c.rows / 16) * (c.cols / 32);
  const auto fill = [&](std::vector<uint8_t>* bytes, size_t n) {
    bytes->resize(n);
    for (uint8_t& byte : *bytes) byte = static_cast<uint8_t>(random->next() >> 32);
  };
  out->matrix = {{}, nullptr, nullptr, c.rows, c.cols};
  for (int s = 0; s < c.level; ++s) {
    fill(&out->slots[s], tiles * kBitTileBytes);
    out->matrix.slots[s] = out->slots[s].data();
  }
  fill(&out->group_scales, tiles * kScaleTileBytes);
  for (int r = 0; r < c.rows; ++r) {
    const float scale = std::fabs(one_value(Values::spread, random)) * 0.01f;
    uint32_t bits;
    std::memcpy(&bits, &scale, 4);
    out->row_scales.push_back(static_cast<uint16_t>(bits >> 16));
  }
  out->matrix.group_scales = out->group_scales.data();
  out->matrix.row_scales = out->row_scales.data();

  const auto entry = [&]() -> uint8_t {
    const uint8_t any = static_cast<uint8_t>(random->between(1, 255));
    return c.values == Values::largest ? (any < 128 ? 1 : 255) : any;
  };
  for (int i = 0; i < 16; ++i) out->tables.t4[i] = entry();
  for (int i = 0; i < 16; ++i) out->tables.t3[i] = i < 8 ? entry() : out->tables.t3[i - 8];
  for (int i = 0; i < 16; ++i) out->tables.t2[i] = i < 4 ? entry() : out->tables.t2[i - 4];
  // Beyond int8 now and then, where products of signed bytes cannot hold what is multiplied.
  const bool is_wide = c.values == Values::largest && c.rows == 32;
  out->tables.residual_step = is_wide ? 20 : 3;
  out->tables.residual_offset = is_wide ? -150 : -23;
}

// formats.h read bit by bit.
double weight_at(const TestMatrix& m, int level, int row, int col) {
  const size_t tile = static_cast<size_t>(row / 16) * (m.matrix.cols / 32) + col / 32;
  const int step = (col % 32) / 4, byte = (row % 16) * 4 + col % 4;
  const size_t at = tile * kBitTileBytes;
  const auto bit = [&](int slot) { return (m.slots[slot][at + step * 8 + byte / 8] >> (byte % 8)) & 1; };

  int code = (m.slots[step / 4][at + byte] >> (2 * (step % 4))) & 3;
  double entry;
  if (level == 2) {
    entry = m.tables.t2[code] - 128;
  } else {
    code = code << 1 | bit(2);
    if (level == 3) {
      entry = m.tables.t3[code] - 128;
    } else {
      code = code << 1 | bit(3);
      entry = m.tables.t4[code] - 128;
    }
  }
  if (level == 8) {
    const int residual = (m.slots[4 + step / 2][at + byte] >> (step % 2 * 4)) & 15;
    entry = (2 * entry + m.tables.residual_step * residual + m.tables.residual_offset) / 2;
  }
  const uint8_t scale = m.group_scales[tile * kScaleTileBytes + row % 16];
  const double group = std::ldexp(1 + (scale & 15) / 16.0, ((scale >> 4) & 7) - 7) * (scale & 0x80 ? -1 : 1);
  const uint32_t row_bits = static_cast<uint32_t>(m.row_scales[row]) << 16;
  float row_scale;
  std::memcpy(&row_scale, &row_bits, 4);
  return row_scale * group * entry;
}

void check_formula(CheckLog* log, const std::string& what, const TestMatrix& m, const Case& c, const Q8Activations& x,
                   const std::vector<int32_t>& token_rows, const std::vector<float>& y) {
  const int groups = c.cols / 32;
  for (int r = c.row_begin; r < c.row_end; ++r) {
    std::vector<double> weights(c.cols);
    for (int col = 0; col < c.cols; ++col) weights[col] = weight_at(m, c.level, r, col);
    for (int i = 0; i < c.tokens; ++i) {
      double sum = 0, magnitude = 0;
      for (int col = 0; col < c.cols; ++col) {
        const size_t t = token_rows[i];
        const double product = weights[col] * x.scale[t * groups + col / 32] * x.q[t * c.cols + col];
        sum += product;
        magnitude += std::fabs(product);
      }
      const double tolerance = (groups + 3) * kEps * magnitude + 1e-37;
      if (!expect_near(log, what, y[static_cast<size_t>(i) * c.rows + r], sum, tolerance)) return;
    }
  }
}

// The tokens that `token_rows` names, in blocks of 16; what fills the last block up is anything, NaN among it.
std::vector<Q8Block> pack_blocks(const Q8Activations& x, const std::vector<int32_t>& token_rows) {
  const size_t groups = x.cols / kGroup, tokens = token_rows.size();
  std::vector<Q8Block> blocks((tokens + kBlockTokens - 1) / kBlockTokens * groups);
  if (!blocks.empty()) std::memset(blocks.data(), 0xff, blocks.size() * sizeof(Q8Block));
  for (size_t i = 0; i < tokens; ++i) {
    for (size_t g = 0; g < groups; ++g) {
      Q8Block& block = blocks[i / kBlockTokens * groups + g];
      const size_t from = token_rows[i] * groups + g, t = i % kBlockTokens;
      std::memcpy(block.q[t], x.q + from * kGroup, kGroup);
      block.scale[t] = x.scale[from];
      block.bias[t] = -128 * x.sum[from];
    }
  }
  return blocks;
}

void check_case(CheckLog* log, Random* random, const Case& c) {
  TestMatrix m;
  make_matrix(c, random, &m);
  const int stored_tokens = c.tokens + 3;
  const TestActivations a = make_activations(c.values, stored_tokens, c.cols, random);
  const Q8Activations x = {a.q.data(), a.scale.data(), a.sum.data(), c.cols};
  std::vector<int32_t> token_rows(c.tokens);
  for (int32_t& row : token_rows) row = static_cast<int32_t>(random->between(0, stored_tokens - 1));
  const auto run = [&](GemmQ8Planes* function, int first, int tokens) {
    std::vector<float> y(static_cast<size_t>(tokens) * c.rows, kUntouched);
    function(m.matrix, m.tables, c.level, x, token_rows.data() + first, tokens, c.row_begin, c.row_end, y.data(),
             c.rows);
    return y;
  };

  const std::string what = "gemm_q8_planes at level " + std::to_string(c.level) + ", " + std::to_string(c.rows) +
                           " x " + std::to_string(c.cols) + ", " + std::to_string(c.tokens) + " tokens, " +
                           name_of(c.values) + ", ";
  const std::vector<float> expected = run(gemm_q8_planes_scalar, 0, c.tokens);
  if (c.values != Values::huge && c.values != Values::any_bits) {
    check_formula(log, what + "scalar", m, c, x, token_rows, expected);
  }
  for (size_t i = 0; i < expected.size(); ++i) {
    const int row = static_cast<int>(i % c.rows);
    if (row >= c.row_begin && row < c.row_end) continue;
    if (!log->expect(expected[i] == kUntouched, what + "scalar writes outside its rows")) break;
  }
  for (const auto& variant : variants_to_check(gemm_q8_planes_variants())) {
    const std::string name = what + isa_name(variant.isa);
    expect_same_bits(log, name, expected, run(variant.function, 0, c.tokens));
    for (int i = 0; i < c.tokens; ++i) {  // one token at a time gives what the batch gave
      const auto from = expected.begin() + static_cast<ptrdiff_t>(i) * c.rows;
      expect_same_bits(log, name + ", alone", std::vector<float>(from, from + c.rows), run(variant.function, i, 1));
    }
  }
  const std::vector<Q8Block> blocks = pack_blocks(x, token_rows);
  const auto run_packed = [&](GemmQ8PlanesPacked* function) {
    std::vector<float> y(static_cast<size_t>(c.tokens) * c.rows, kUntouched);
    function(m.matrix, m.tables, c.level, blocks.data(), c.tokens, c.row_begin, c.row_end, y.data(), c.rows);
    return y;
  };
  expect_same_bits(log, what + "scalar, packed", expected, run_packed(gemm_q8_planes_packed_scalar));
  for (const auto& variant : variants_to_check(gemm_q8_planes_packed_variants())) {
    expect_same_bits(log, what + isa_name(variant.isa) + ", packed", expected, run_packed(variant.function));
  }
}

}  // namespace

void check_gemm_q8_planes(CheckLog* log, Random* random) {
  for (int level : {2, 3, 4, 8}) {
    for (Values values : kAllValues) check_case(log, random, {level, 32, 96, 2, 0, 32, values});
    for (int tokens = 0; tokens <= 19; ++tokens) {
      check_case(log, random, {level, 48, 64, tokens, 16, 48, Values::usual});
    }
    check_case(log, random, {level, 16, 32, 1, 0, 0, Values::usual});
    check_case(log, random, {level, 32, 2048, 1, 0, 32, Values::largest});
    // Panels of 32 groups: one group short of two, two, and one group more.
    for (int tokens : {31, 32, 33, 64}) check_case(log, random, {level, 16, 96, tokens, 0, 16, Values::usual});
    for (int groups : {63, 64, 65}) check_case(log, random, {level, 16, 32 * groups, 11, 0, 16, Values::largest});
  }
}

}  // namespace moestro
