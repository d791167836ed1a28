// Asks the CPU, and the OS behind it, which vector registers may be used.
#include "native/base/cpu.h"

#if defined(__x86_64__)
#include <cpuid.h>
#if defined(__linux__)
#include <sys/syscall.h>
#include <unistd.h>
#endif
#elif defined(__aarch64__) && defined(__linux__)
#include <sys/auxv.h>
#endif

namespace moestro {
namespace {

constexpr Isa kAll[] = {Isa::amx, Isa::avx512vbmi, Isa::avx512, Isa::avx2, Isa::neon, Isa::scalar};

#if defined(__x86_64__)
// __builtin_cpu_supports answers yes for AVX and AVX-512 only when XCR0 says that the OS saves those registers. Not
// every compiler of ours knows the name "f16c", hence CPUID leaf 1, ECX bit 29; its registers are those of AVX.
bool has_f16c() {
  unsigned eax = 0, ebx = 0, ecx = 0, edx = 0;
  return __get_cpuid(1, &eax, &ebx, &ecx, &edx) && (ecx & (1u << 29));
}

// AMX with int8: CPUID leaf 7, EDX bits 24 (tiles) and 25; the registers of tiles are 8 KiB a thread, so that Linux
// hands them out only to a process that asked, once, for all its threads. It refuses where a signal stack is too small.
bool has_amx() {
  unsigned eax = 0, ebx = 0, ecx = 0, edx = 0;
  if (!__get_cpuid_count(7, 0, &eax, &ebx, &ecx, &edx) || (edx >> 24 & 3) != 3) return false;
#if defined(__linux__)
  constexpr long kRequestPermission = 0x1023, kTileData = 18;
  return syscall(SYS_arch_prctl, kRequestPermission, kTileData) == 0;
#else
  return false;
#endif
}
#elif defined(__aarch64__) && defined(__linux__)
// AT_HWCAP's bit for the int8 dot product; the kernel's ABI gives the number, which older headers do not name.
constexpr unsigned long kHwcapDotProduct = 1ul << 20;
bool has_dot_product() { return (getauxval(AT_HWCAP) & kHwcapDotProduct) != 0; }
#elif defined(__aarch64__) && defined(__APPLE__)
bool has_dot_product() { return true; }  // every 64-bit Mac has it
#elif defined(__aarch64__)
bool has_dot_product() { return false; }  // no way to ask is known here
#endif

bool is_supported(Isa isa) {
#if defined(__x86_64__)
  __builtin_cpu_init();
  const bool avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && has_f16c();
  if (isa == Isa::avx2) return avx2;
  if (isa >= Isa::avx512) {
    const bool avx512 = avx2 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                        __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl") &&
                        __builtin_cpu_supports("avx512vnni");
    const bool vbmi = avx512 && __builtin_cpu_supports("avx512vbmi") && __builtin_cpu_supports("gfni");
    return isa == Isa::avx512 ? avx512 : vbmi && (isa == Isa::avx512vbmi || has_amx());
  }
#elif defined(__aarch64__)
  if (isa == Isa::neon) return has_dot_product();
#endif
  return isa == Isa::scalar;
}

}  // namespace

const char* isa_name(Isa isa) {
  switch (isa) {
    case Isa::amx:
      return "amx";
    case Isa::avx512vbmi:
      return "avx512vbmi";
    case Isa::avx512:
      return "avx512";
    case Isa::avx2:
      return "avx2";
    case Isa::neon:
      return "neon";
    case Isa::scalar:
      break;
  }
  return "scalar";
}

std::vector<Isa> detected_isas() {
  std::vector<Isa> found;
  for (Isa isa : kAll) {
    if (is_supported(isa)) found.push_back(isa);
  }
  return found;
}

bool parse_isa(const std::string& name, Isa* isa) {
  for (Isa candidate : kAll) {
    if (name == isa_name(candidate)) {
      *isa = candidate;
      return true;
    }
  }
  return false;
}

}  // namespace moestro
