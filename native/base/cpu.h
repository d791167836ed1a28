// Which instruction sets this machine runs, best first. MOESTRO_ISA=scalar|neon|avx2|avx512|avx512vbmi|amx
// names another of them.
#pragma once
#include <string>
#include <vector>

namespace moestro {

// Ordered within an architecture: every set includes those before it. avx512 stands for F, BW, DQ, VL and VNNI
// together; avx512vbmi
// adds VBMI and GFNI, which Cascade Lake lacks; amx adds AMX's tiles and int8 products, for which the process has asked
// the system; avx2 for AVX2, FMA and F16C; neon for AArch64 with the int8 dot product (ARMv8.2 and FEAT_DotProd).
enum class Isa { scalar = 0, neon = 1, avx2 = 2, avx512 = 3, avx512vbmi = 4, amx = 5 };

const char* isa_name(Isa isa);

// The sets that this CPU and OS run, best first; `scalar` is always the last.
std::vector<Isa> detected_isas();

// True and `*isa` set when `name` is a known name ("scalar", "neon", "avx2", "avx512", "avx512vbmi", "amx").
bool parse_isa(const std::string& name, Isa* isa);

}  // namespace moestro
