// What several kernels compute over 16 lanes. Included after one of simd/{scalar,avx2,avx512}.h, which it is written
// in.
#pragma once

namespace moestro {
namespace {

// exp(x): x = n ln 2 + r with |r| <= ln 2 / 2, then 2^n times the series of exp(r) to the 7th power, which is off by
// r^8 / 8! < 6e-9. ln 2 is taken in two pieces, the first of 10 bits, so that n * piece is exact. Below -87.33, where
// 2^n would leave the normal numbers, the result is 0; above 88.376 n is 128, whose power of two has the bits of
// infinity. Relative error between them below 2e-7.
MOESTRO_INLINE F32x16 exp(F32x16 x) {
  const F32x16 lowest = set1(-87.33f);
  const F32x16 bounded = min(max(x, lowest), set1(88.8f));
  const I32x16 n = round_to_int(mul(bounded, set1(1.44269504f)));
  const F32x16 minus_n = negate(to_float(n));
  F32x16 r = fma(minus_n, set1(0.693359375f), bounded);
  r = fma(minus_n, set1(-2.12194440e-4f), r);
  F32x16 p = set1(1.0f / 5040);
  p = fma(p, r, set1(1.0f / 720));
  p = fma(p, r, set1(1.0f / 120));
  p = fma(p, r, set1(1.0f / 24));
  p = fma(p, r, set1(1.0f / 6));
  p = fma(p, r, set1(0.5f));
  p = fma(p, r, set1(1.0f));
  p = fma(p, r, set1(1.0f));
  return zero_where_less(x, lowest, mul(p, pow2(n)));
}

// Symmetric int8 over `n` values (n % 16 == 0): q = round(x / scale), scale = max|x| / 127. Returns the scale. Where
// max|x| is below 1e-35, 1 / scale could overflow, and the values count as zeros.
MOESTRO_INLINE float quantize_i8(const float* x, int n, int8_t* q, I32x16* sum) {
  F32x16 largest = set1(0.0f);
  for (int i = 0; i < n; i += 16) largest = max(largest, abs(load(x + i)));
  const float most = reduce_max(largest);
  const bool is_zero = most < 1e-35f;
  const float scale = is_zero ? 0.0f : most / 127.0f;
  const F32x16 inverse = set1(is_zero ? 0.0f : 1.0f / scale);
  I32x16 total = set1_i32(0);
  for (int i = 0; i < n; i += 16) {
    const F32x16 scaled = min(max(mul(load(x + i), inverse), set1(-127.0f)), set1(127.0f));
    const I32x16 rounded = round_to_int(scaled);
    store_i8(q + i, rounded);
    total = add_i32(total, rounded);
  }
  *sum = total;
  return scale;
}

}  // namespace
}  // namespace moestro
