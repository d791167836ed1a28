// Closes what simd/avx2.h or simd/avx512.h opened. Not guarded: every file of an instruction set ends with it.
#if defined(__clang__)
#pragma clang attribute pop
#endif
