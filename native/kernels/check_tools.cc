#include "native/kernels/check_tools.h"

namespace moestro {

std::string name_of(Values values) {
  constexpr const char* kNames[] = {"usual", "zeros", "largest", "tiny", "huge", "spread", "any bits"};
  return kNames[static_cast<int>(values)];
}

float one_value(Values values, Random* random) {
  const double share = static_cast<double>(random->next() >> 11) * 0x1p-52 - 1.0;  // [-1, 1)
  switch (values) {
    case Values::usual:
      return static_cast<float>(share * 3);
    case Values::zeros:
      return random->happens(0.5) ? 0.0f : -0.0f;
    case Values::largest:
      return random->happens(0.5) ? 4.0f : -4.0f;
    case Values::tiny:  // denormals of float
      return static_cast<float>(share * 0x1p-127);
    case Values::huge:
      return static_cast<float>(share * 3e38);
    case Values::spread:
      return static_cast<float>(std::ldexp(share, static_cast<int>(random->between(0, 30)) - 15));
    case Values::any_bits:
      break;
  }
  const uint32_t bits = static_cast<uint32_t>(random->next());
  float value;
  std::memcpy(&value, &bits, 4);
  return value;
}

std::vector<float> make_values(Values values, size_t n, Random* random) {
  std::vector<float> out(n);
  for (float& value : out) value = one_value(values, random);
  return out;
}

TestActivations make_activations(Values values, int tokens, int cols, Random* random) {
  TestActivations out;
  out.q.resize(static_cast<size_t>(tokens) * cols);
  for (int8_t& q : out.q) {
    const int any = static_cast<int>(random->between(0, 254)) - 127;
    q = static_cast<int8_t>(values == Values::zeros ? 0 : values == Values::largest ? (any < 0 ? -127 : 127) : any);
  }
  // Runs of one sign make the sums as large as they can be.
  if (values == Values::largest) {
    for (size_t i = 0; i < out.q.size(); ++i) out.q[i] = (i / 64) % 2 ? out.q[i] : (i / 32) % 2 ? 127 : -127;
  }
  for (size_t begin = 0; begin < out.q.size(); begin += 32) {
    int32_t sum = 0;
    for (size_t i = begin; i < begin + 32; ++i) sum += out.q[i];
    out.sum.push_back(sum);
    const float scale = std::fabs(one_value(values, random));
    out.scale.push_back(std::isfinite(scale) ? scale : 1.0f);
  }
  return out;
}

std::vector<uint16_t> make_half_scales(size_t n, Random* random) {
  std::vector<uint16_t> out(n);
  for (uint16_t& half : out) half = static_cast<uint16_t>(random->next() % 0x7c00);
  if (n > 2) out[0] = 0, out[1] = 1, out[2] = 0x7bff;
  return out;
}

double half_to_double(uint16_t half) {
  const int exponent = (half >> 10) & 31, mantissa = half & 1023;
  const double magnitude = exponent == 0 ? std::ldexp(mantissa, -24) : std::ldexp(1024 + mantissa, exponent - 25);
  return half & 0x8000 ? -magnitude : magnitude;
}

bool expect_near(CheckLog* log, const std::string& what, double actual, double expected, double tolerance) {
  return log->expect(std::fabs(actual - expected) <= tolerance, what + " is " + std::to_string(actual) + ", expected " +
                                                                    std::to_string(expected) + " within " +
                                                                    std::to_string(tolerance));
}

}  // namespace moestro
