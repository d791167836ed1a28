// One record in a file of its own: a header, pieces of memory one after another, and the CRC-32C over both, as a
// little-endian u32. Written and read whole, through the page cache, which is told to forget it afterwards.
#pragma once
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "native/base/status.h"

namespace moestro {

using Pieces = std::vector<std::span<uint8_t>>;

// Makes `path`, readable by its owner alone; nothing stays there on failure. It is not made durable: a record that a
// crash cuts short fails its check. Errors: IO_ERROR (also when there is such a file), DISK_FULL.
Status write_record(const std::string& path, std::span<const uint8_t> header, const Pieces& pieces);

// Fills `pieces` from `path`, which must hold `header_bytes` before them and nothing else. What pieces hold after a
// failure is undefined. Errors: IO_ERROR (missing, a link, of another length, another checksum).
Status read_record(const std::string& path, size_t header_bytes, const Pieces& pieces);

}  // namespace moestro
