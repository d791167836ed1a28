// Which of a vocabulary's logits are worth looking at? The two passes that a sampler makes over all of them.
//
// find_largest: the index of the highest of x f32 [n], the lower one among equals; 0 when none is above minus infinity.
// A NaN is never the highest.
// find_from: writes the indices in [begin, end) whose x is at least `bound`, ascending, to ids int32, which has room
// for end - begin; returns how many. A NaN is never among them.
//
// Results are indices, so all variants are equal.
#pragma once
#include <cstddef>
#include <cstdint>

#include "native/kernels/variant.h"

namespace moestro {

using FindLargest = int(const float* x, int n);
using FindFrom = int(const float* x, int begin, int end, float bound, int32_t* ids);
FindLargest find_largest_scalar, find_largest_neon, find_largest_avx2, find_largest_avx512;
FindFrom find_from_scalar, find_from_neon, find_from_avx2, find_from_avx512;
Variants<FindLargest> find_largest_variants();
Variants<FindFrom> find_from_variants();

}  // namespace moestro
