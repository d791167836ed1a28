// 16-bit floats to float32 and back, rounding half to even.
#pragma once
#include <bit>
#include <cstdint>

namespace moestro {

inline float float_of_bits(uint32_t bits) { return std::bit_cast<float>(bits); }
inline uint32_t bits_of_float(float value) { return std::bit_cast<uint32_t>(value); }

inline float f16_value(uint16_t half) {
  const uint32_t sign = static_cast<uint32_t>(half & 0x8000) << 16;
  const uint32_t exponent = (half >> 10) & 31;
  const uint32_t mantissa = half & 1023;
  if (exponent == 31) return float_of_bits(sign | 0x7F800000 | mantissa << 13);
  if (exponent != 0) return float_of_bits(sign | (exponent + 112) << 23 | mantissa << 13);
  // Subnormal: mantissa units of 2^-24, exact in float32.
  return float_of_bits(sign | bits_of_float(static_cast<float>(mantissa) * 0x1p-24f));
}

// Infinite where |value| rounds beyond 65504.
inline uint16_t f16_of(float value) {
  const uint32_t bits = bits_of_float(value);
  const uint16_t sign = static_cast<uint16_t>(bits >> 16 & 0x8000);
  const uint32_t magnitude = bits & 0x7FFFFFFF;
  if (magnitude > 0x7F800000) return sign | 0x7E00;
  if (magnitude >= 0x477FF000) return sign | 0x7C00;
  if (magnitude < 0x38800000) {
    // Adding 0.5 puts the bits of a subnormal half at the bottom of the float32 mantissa, rounded by the hardware.
    return sign | static_cast<uint16_t>(bits_of_float(float_of_bits(magnitude) + 0.5f) - 0x3F000000);
  }
  const uint32_t rounded = magnitude + 0xFFF + (magnitude >> 13 & 1);
  return sign | static_cast<uint16_t>((rounded - 0x38000000) >> 13);
}

inline float bf16_value(uint16_t half) { return float_of_bits(static_cast<uint32_t>(half) << 16); }

// For finite values only.
inline uint16_t bf16_of(float value) {
  const uint32_t bits = bits_of_float(value);
  return static_cast<uint16_t>((bits + 0x7FFF + (bits >> 16 & 1)) >> 16);
}

}  // namespace moestro
