// What the process takes of the machine's memory.
#pragma once
#include <cstdint>

namespace moestro {

// Resident bytes of this process; 0 where the system does not say. Asked ten times a second while tokens are drawn: one
// system call on a file that stays open.
uint64_t resident_bytes();

}  // namespace moestro
