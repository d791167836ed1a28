// The queue's own rules, on a disk in memory whose every delay and fault comes from the seed.
#include <algorithm>
#include <cerrno>

#include "native/io/check_reads.h"

namespace moestro {
namespace {

constexpr uint32_t kPage = 4096;

ReadQueueOptions fake_options(std::vector<uint8_t> content, uint64_t seed, int depth) {
  ReadQueueOptions options;
  options.backend = IoBackend::fake;
  options.queue_depth = depth;
  options.fake.content = std::move(content);
  options.fake.seed = seed;
  return options;
}

void check_faults(CheckLog* log, uint64_t seed) {
  Random random(seed);
  for (const int depth : {1, 4, 16}) {
    ReadQueueOptions options = fake_options(random_bytes(&random, 1 << 20), random.next(), depth);
    options.direct = random.happens(0.5);
    options.fake.latency_min_us = static_cast<uint32_t>(random.between(0, 50));
    options.fake.latency_max_us = static_cast<uint32_t>(random.between(50, 5000));
    options.fake.short_read_share = 0.4;
    options.fake.bad_ranges = {{300000, 300001}, {700000, 740000}};
    options.fault_ranges = {{500000, 510000}};
    RandomReads reads;
    reads.align = options.direct ? kPage : 1;
    reads.failing = {{300000, 300001}, {500000, 510000}, {700000, 740000}};
    std::vector<uint32_t> orders[2];
    const uint64_t request_seed = random.next();
    for (auto& order : orders) {
      Random requests(request_seed);
      auto queue = ReadQueue::create(options);
      if (!log->expect(queue.ok(), "fake queue: " + queue.status().message())) return;
      order = check_random_reads(log, &requests, queue.value().get(), options.fake.content, reads,
                                 "fake queue of depth " + std::to_string(depth));
      const ReadQueueStats stats = queue.value()->stats();
      log->expect(stats.in_flight_max <= depth, "fake queue exceeds its depth");
      log->expect(stats.short_reads > 0, "fake queue never reads short");
    }
    log->expect(orders[0] == orders[1], "fake queue repeats a seed in another order");
  }
}

void check_priorities(CheckLog* log, uint64_t seed) {
  ReadQueueOptions options = fake_options(std::vector<uint8_t>(64 * kPage, 1), seed, 1);
  options.fake.latency_min_us = options.fake.latency_max_us = 100;
  auto queue = ReadQueue::create(options);
  auto memory = AlignedBuffer::allocate(64 * kPage, nullptr, "check");
  if (!log->expect(queue.ok() && memory.ok(), "priorities: no queue or no memory")) return;
  // Ticket 0 finds the disk idle and goes at once; the others wait and overtake by priority, in order within one.
  const ReadPriority priorities[] = {ReadPriority::speculation, ReadPriority::speculation, ReadPriority::upgrade,
                                     ReadPriority::demand,      ReadPriority::speculation, ReadPriority::demand,
                                     ReadPriority::upgrade};
  uint32_t ticket = 0;
  for (const ReadPriority priority : priorities) {
    const Status status = queue.value()->submit(
        plain_request(ticket, ticket * kPage, memory.value().data() + ticket * kPage, kPage, priority));
    log->expect(status.ok(), "priorities: " + status.message());
    ++ticket;
  }
  std::vector<ReadCompletion> out;
  while (queue.value()->wait(&out) > 0) {
  }
  std::vector<uint32_t> order;
  for (const ReadCompletion& c : out) order.push_back(c.ticket);
  log->expect(order == std::vector<uint32_t>{0, 3, 5, 2, 6, 1, 4}, "priorities: reads end in another order");
  log->expect(std::all_of(out.begin(), out.end(), [](const ReadCompletion& c) { return c.latency_ns == 100000; }),
              "priorities: latency includes the time in the queue");
  log->expect(queue.value()->stats().wait_ns == 700000, "priorities: waiting is not counted");
}

void check_cancel(CheckLog* log, uint64_t seed) {
  ReadQueueOptions options = fake_options(std::vector<uint8_t>(64 * kPage, 1), seed, 2);
  options.fake.latency_min_us = options.fake.latency_max_us = 100;
  auto queue = ReadQueue::create(options);
  auto memory = AlignedBuffer::allocate(64 * kPage, nullptr, "check");
  if (!log->expect(queue.ok() && memory.ok(), "cancel: no queue or no memory")) return;
  ReadQueue& q = *queue.value();
  for (uint32_t t = 0; t < 6; ++t) {
    const Status status = q.submit(plain_request(t, t * kPage, memory.value().data() + t * kPage, kPage));
    log->expect(status.ok(), "cancel: " + status.message());
  }
  log->expect(!q.cancel(0) && !q.cancel(1), "cancel: takes back what is in flight");
  log->expect(q.cancel(4), "cancel: keeps what is queued");
  log->expect(!q.cancel(4) && !q.cancel(99), "cancel: cancels twice, or what was never there");
  const auto errors = wait_for_all(&q);
  const std::map<uint32_t, int> wanted = {{0, 0}, {1, 0}, {2, 0}, {3, 0}, {4, ECANCELED}, {5, 0}};
  log->expect(errors == wanted, "cancel: requests end otherwise than they should");
  log->expect(memory.value().data()[4 * kPage] == 0, "cancel: writes the memory of a cancelled read");
  log->expect(q.stats().cancelled == 1 && q.stats().completed == 5, "cancel: is not counted");
}

void check_refusals(CheckLog* log, uint64_t seed) {
  auto queue = ReadQueue::create(fake_options(std::vector<uint8_t>(8 * kPage, 1), seed, 2));
  auto memory = AlignedBuffer::allocate(64 * kPage, nullptr, "check");
  if (!log->expect(queue.ok() && memory.ok(), "refusals: no queue or no memory")) return;
  uint8_t* const data = memory.value().data();
  const auto refuses = [&](const ReadRequest& request, const std::string& what) {
    const Status status = queue.value()->submit(request);
    log->expect(status.code() == "INVALID_ARGUMENT", "refusals: takes " + what);
  };
  refuses(plain_request(1, 1, data, kPage), "an offset of 1");
  refuses(plain_request(1, 0, data + 1, kPage), "an odd address");
  refuses(plain_request(1, 0, data, kPage + 1), "an odd size");
  refuses(plain_request(1, 0, data, 0), "an empty segment");
  ReadRequest request = plain_request(1, 0, data, kPage);
  request.segment_count = kMaxSegments + 1;
  refuses(request, "too many segments");
  request = plain_request(1, 0, data, kPage);
  request.check_count = 1;
  request.checks[0] = SegmentCheck{0, 2, 0};
  refuses(request, "a checksum over segments that are not there");
  std::vector<ReadCompletion> out;
  log->expect(queue.value()->wait(&out) == 0, "refusals: completes what it refused");
  ReadQueueOptions options = fake_options({}, seed, 0);
  log->expect(ReadQueue::create(options).status().code() == "INVALID_ARGUMENT", "refusals: takes a depth of 0");
}

}  // namespace

void check_fake_disk(CheckLog* log, uint64_t seed) {
  check_faults(log, seed);
  check_priorities(log, seed);
  check_cancel(log, seed);
  check_refusals(log, seed);
}

}  // namespace moestro
