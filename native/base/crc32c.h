// CRC-32C (Castagnoli, reflected polynomial 0x82F63B78), the checksum of every plane record and dense tensor.
// Hardware instruction where the CPU has it (three interleaved streams), table otherwise; equal results.
#pragma once
#include <cstddef>
#include <cstdint>

namespace moestro {

// Continues `crc` (0 to start) over `bytes` at `data`: crc32c(crc32c(0, a), b) == crc32c(0, a then b).
uint32_t crc32c(uint32_t crc, const void* data, size_t bytes);

// The same by tables, on any CPU: what the check compares the instruction with.
uint32_t crc32c_table(uint32_t crc, const void* data, size_t bytes);

// True when crc32c() uses the instruction on this CPU.
bool crc32c_has_instruction();

}  // namespace moestro
