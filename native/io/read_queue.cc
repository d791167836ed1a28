// Chooses the backend: io_uring where the system grants it, else a pool of threads in pread.
#include "native/io/read_queue.h"

#include "native/io/queue_core.h"

namespace moestro {
namespace {

constexpr int kQueueDepthMax = 256;
constexpr int kPreadThreadsMax = 64;

Status check_option(const char* name, int value, int most) {
  if (value >= 1 && value <= most) return Status();
  return Status("INVALID_ARGUMENT", std::string("Cannot create the read queue: got ") + name + " " +
                                        std::to_string(value) + ", needed 1 to " + std::to_string(most));
}

}  // namespace

Result<std::unique_ptr<ReadQueue>> ReadQueue::create(const ReadQueueOptions& options) {
  if (Status status = check_option("queue depth", options.queue_depth, kQueueDepthMax); !status.ok()) return status;
  if (Status status = check_option("pread threads", options.pread_threads, kPreadThreadsMax); !status.ok()) {
    return status;
  }
  if (options.part_bytes < 4096) {
    return Status("INVALID_ARGUMENT", "Cannot create the read queue: got parts of " +
                                          std::to_string(options.part_bytes) + " bytes, needed at least 4096");
  }
  switch (options.backend) {
    case IoBackend::io_uring:
      return make_io_uring_queue(options);
    case IoBackend::pread:
      return make_pread_queue(options);
    case IoBackend::fake:
      return make_fake_queue(options);
    case IoBackend::automatic:
      break;
  }
  auto queue = make_io_uring_queue(options);
  // Containers often forbid io_uring; any other failure (a missing file) would meet pread just the same.
  if (queue.ok() || queue.status().code() != "IO_UNAVAILABLE") return queue;
  return make_pread_queue(options);
}

}  // namespace moestro
