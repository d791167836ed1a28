#include "native/kernels/check_random_tools.h"

namespace moestro {

std::vector<float> hostile_values(size_t n, Random* random) {
  constexpr float kInfinity = std::numeric_limits<float>::infinity();
  constexpr float kStrewn[] = {
      0.0f,
      -0.0f,
      kInfinity,
      -kInfinity,
      std::numeric_limits<float>::quiet_NaN(),
      3.4028235e38f,  // the largest float
      -3.4028235e38f,
      0x1p-149f,  // the smallest denormal, the smallest normal number, and the largest below it
      0x1p-126f,
      0x1.fffffcp-127f,
      65504.0f,
      65520.0f,  // the largest half, and the first float that rounds to infinity
      0x1p-24f,
      0x1p-25f,  // the smallest half, and the largest float that rounds to zero
      -87.33f,
      -88.4f,
      88.37f,
      88.8f,  // around the ends of exp
      126.5f,
      127.0f,
      -127.5f,
  };
  constexpr int kCount = sizeof kStrewn / sizeof kStrewn[0];
  std::vector<float> out = make_values(kAllValues[random->between(0, 6)], n, random);
  // A third of all vectors stay as they are: one infinity drowns everything else in a sum.
  const double share = random->between(0, 2) == 0 ? 0 : 1.0 / pick(random, 1, 64);
  for (float& value : out) {
    if (random->happens(share)) value = kStrewn[random->between(0, kCount - 1)];
  }
  return out;
}

int pick_size(int most, Random* random) {
  constexpr int kEdges[] = {1, 2, 3, 4, 5, 7, 8, 9, 12, 15, 16, 17, 31, 32, 33};
  const int size = random->happens(0.5) ? kEdges[random->between(0, 14)] : pick(random, 1, most);
  return size > most ? pick(random, 1, most) : size;
}

}  // namespace moestro
