// What the two int8 matrix kernels share: tokens by reference, and tiles of 8-bit codes times up to kTokensAtOnce of
// them. Included after one of simd/{scalar,avx2,avx512}.h.
#pragma once

namespace moestro {
namespace {

// One token's activations and where its outputs go.
struct Token {
  const int8_t* q;
  const float* scale;
  const int32_t* sum;
  float* y;
};

// Output i of a call; token_rows null means row i.
MOESTRO_INLINE Token token_at(const Q8Activations& x, const int32_t* token_rows, int i, float* y, size_t y_stride) {
  const size_t row = token_rows != nullptr ? static_cast<size_t>(token_rows[i]) : static_cast<size_t>(i);
  const size_t groups = static_cast<size_t>(x.cols) / kGroup;
  return {x.q + row * x.cols, x.scale + row * groups, x.sum + row * groups, y + i * y_stride};
}

MOESTRO_INLINE F32x16 load_scales(const uint16_t* p) { return load_f16(p); }
MOESTRO_INLINE F32x16 load_scales(const float* p) { return load(p); }

// acc = fma(float(dot), weight_scale * activation_scale, acc): the one way in which a group is added.
MOESTRO_INLINE F32x16 add_group(I32x16 dot, F32x16 weight_scales, float activation_scale, F32x16 acc) {
  return fma(to_float(dot), mul(weight_scales, set1(activation_scale)), acc);
}

// Where 16 rows stand in their columns: `groups` tiles of codes and of scales (f16 or f32, 16 a tile).
template <typename Scale>
struct Tiles {
  const uint8_t* codes;
  const Scale* scales;
  int groups;
};

template <int kTokens, int kStep>
MOESTRO_INLINE void add_step(const uint8_t* codes, const Token* tokens, size_t column, I32x16* dot) {
  const Weights w = load_weights(codes + 64 * kStep);
#pragma GCC unroll 8
  for (int t = 0; t < kTokens; ++t) dot[t] = dot4(dot[t], w, tokens[t].q + column + 4 * kStep);
}

// Adds the products of these tiles with tokens' columns [32 first_group, 32 (first_group + groups)) to acc.
// `is_cold`: the tiles come from DRAM, so lines are asked for ahead of their use.
template <int kTokens, typename Scale>
MOESTRO_INLINE void multiply_tiles(const Tiles<Scale>& tiles, int first_group, bool is_cold, const Token* tokens,
                                   F32x16* acc) {
  constexpr size_t kAhead = 4 * kTileWeights;  // prefetch distance: 2 KiB, some 16 lines in flight
  for (int g = 0; g < tiles.groups; ++g) {
    const uint8_t* codes = tiles.codes + static_cast<size_t>(g) * kTileWeights;
    const int group = first_group + g;
    const size_t column = static_cast<size_t>(group) * kGroup;
    if (is_cold) {
#pragma GCC unroll 8
      for (int line = 0; line < 8; ++line) prefetch(codes + kAhead + 64 * line);
    }
    I32x16 dot[kTokens];
#pragma GCC unroll 8
    for (int t = 0; t < kTokens; ++t) dot[t] = set1_i32(-kWeightBias * tokens[t].sum[group]);
    add_step<kTokens, 0>(codes, tokens, column, dot);
    add_step<kTokens, 1>(codes, tokens, column, dot);
    add_step<kTokens, 2>(codes, tokens, column, dot);
    add_step<kTokens, 3>(codes, tokens, column, dot);
    add_step<kTokens, 4>(codes, tokens, column, dot);
    add_step<kTokens, 5>(codes, tokens, column, dot);
    add_step<kTokens, 6>(codes, tokens, column, dot);
    add_step<kTokens, 7>(codes, tokens, column, dot);
    const F32x16 scales = load_scales(tiles.scales + static_cast<size_t>(g) * kTileRows);
#pragma GCC unroll 8
    for (int t = 0; t < kTokens; ++t) acc[t] = add_group(dot[t], scales, tokens[t].scale[group], acc[t]);
  }
}

}  // namespace
}  // namespace moestro
