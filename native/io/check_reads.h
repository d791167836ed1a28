// What the checks of the fake and of the real backends share: random requests over known bytes.
#pragma once
#include <map>
#include <utility>

#include "native/base/check.h"
#include "native/base/random.h"
#include "native/io/read_queue.h"
#include "native/memory/memory.h"

namespace moestro {

using ByteRanges = std::vector<std::pair<uint64_t, uint64_t>>;

std::vector<uint8_t> random_bytes(Random* random, size_t bytes);

// A request of one segment without checksums.
ReadRequest plain_request(uint32_t ticket, uint64_t offset, uint8_t* data, uint32_t bytes,
                          ReadPriority priority = ReadPriority::demand);

// Waits until nothing is queued or in flight; the error of each ticket. A ticket that ends twice gets -1.
std::map<uint32_t, int> wait_for_all(ReadQueue* queue);

struct RandomReads {
  int requests = 500;
  int outstanding_max = 40;  // more than the queue's depth, so that some wait
  uint64_t align = 4096;     // of offsets and sizes; 1 for buffered queues
  ByteRanges failing;        // where EIO is expected
  double wrong_crc_share = 0.1;
  double cancel_share = 0.05;
};

// Submits random requests and expects of each: exactly one completion, with the right bytes, EIO where it touches
// `failing`, EBADMSG where its checksum is wrong, ECANCELED only where cancel() said so.
// Returns the tickets in order of completion.
std::vector<uint32_t> check_random_reads(CheckLog* log, Random* random, ReadQueue* queue,
                                         const std::vector<uint8_t>& content, const RandomReads& options,
                                         const std::string& what);

void check_fake_disk(CheckLog* log, uint64_t seed);
void check_real_disk(CheckLog* log, uint64_t seed, const std::string& scratch_directory);

}  // namespace moestro
