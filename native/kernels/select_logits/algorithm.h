// The algorithm of select_logits, for any 16 lanes.
#pragma once

namespace moestro {
namespace {

inline int largest_index(const float* x, int n) {
  const float lowest = -__builtin_inff();
  const int whole = n / 16 * 16;
  F32x16 lanes[4] = {set1(lowest), set1(lowest), set1(lowest), set1(lowest)};
  int i = 0;
  for (; i + 64 <= whole; i += 64) {
    for (int j = 0; j < 4; ++j) lanes[j] = max(load(x + i + 16 * j), lanes[j]);
  }
  for (; i < whole; i += 16) lanes[0] = max(load(x + i), lanes[0]);
  float most = reduce_max(max(max(lanes[0], lanes[1]), max(lanes[2], lanes[3])));
  for (; i < n; ++i) most = x[i] > most ? x[i] : most;
  if (most == lowest) return 0;
  const F32x16 bound = set1(most);
  for (i = 0; i < whole; i += 16) {
    const uint32_t found = at_least(load(x + i), bound);
    if (found != 0) return i + __builtin_ctz(found);
  }
  while (i < n && !(x[i] >= most)) ++i;
  return i;
}

inline int indices_from(const float* x, int begin, int end, float least, int32_t* ids) {
  const F32x16 bound = set1(least);
  int count = 0, i = begin;
  for (; i + 16 <= end; i += 16) {
    for (uint32_t found = at_least(load(x + i), bound); found != 0; found &= found - 1)
      ids[count++] = i + __builtin_ctz(found);
  }
  for (; i < end; ++i) {
    if (x[i] >= least) ids[count++] = i;
  }
  return count;
}

}  // namespace
}  // namespace moestro
