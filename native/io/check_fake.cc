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
    options.part_bytes = static_cast<uint32_t>(random.between(1, 8) * kPage);
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

// Two requests of four parts each at depth 2: what is cancelled or promoted halfway.
void check_parts(CheckLog* log, uint64_t seed) {
  ReadQueueOptions options = fake_options(std::vector<uint8_t>(64 * kPage, 1), seed, 2);
  options.fake.latency_min_us = options.fake.latency_max_us = 100;
  options.part_bytes = kPage;
  auto memory = AlignedBuffer::allocate(64 * kPage, nullptr, "check");
  if (!log->expect(memory.ok(), "parts: no memory")) return;
  uint8_t* const data = memory.value().data();
  enum class Then { nothing, cancel, promote };
  for (const Then then : {Then::nothing, Then::cancel, Then::promote}) {
    auto made = ReadQueue::create(options);
    if (!log->expect(made.ok(), "parts: no queue")) return;
    ReadQueue& q = *made.value();
    std::fill_n(data, 64 * kPage, uint8_t{0});
    const auto submit = [&](uint32_t ticket, ReadPriority priority) {
      const Status status =
          q.submit(plain_request(ticket, ticket * 4 * kPage, data + ticket * 4 * kPage, 4 * kPage, priority));
      log->expect(status.ok(), "parts: " + status.message());
    };
    submit(0, ReadPriority::speculation);
    submit(1, ReadPriority::speculation);
    log->expect(q.stats().in_flight == 1, "parts: speculation takes more than half of the depth");
    if (then == Then::cancel) {
      log->expect(q.cancel(0) && !q.cancel(0), "parts: cannot be cancelled halfway, or twice");
    } else if (then == Then::promote) {
      log->expect(q.promote(1, ReadPriority::demand) && !q.promote(9, ReadPriority::demand),
                  "parts: cannot be promoted, or what was never there can");
      log->expect(q.stats().in_flight == 2, "parts: what is promoted does not go on at once");
    }
    std::vector<ReadCompletion> out;
    while (q.wait(&out) > 0) {
    }
    if (!log->expect(out.size() == 2, "parts: other than two completions")) return;
    const uint32_t first = then == Then::promote ? 1 : 0;
    log->expect(out[0].ticket == first && out[1].ticket == 1 - first, "parts: requests end in another order");
    log->expect(out[0].error == (then == Then::cancel ? ECANCELED : 0) && out[1].error == 0, "parts: wrong errors");
    log->expect(out[0].bytes == (then == Then::cancel ? 1 : 4) * kPage && out[1].bytes == 4 * kPage,
                "parts: reports other bytes than were read");
    log->expect(q.stats().bytes_read == out[0].bytes + out[1].bytes, "parts: bytes read are not counted");
    log->expect(data[kPage - 1] == 1 && data[kPage] == (then == Then::cancel ? 0 : 1),
                "parts: a cancelled read writes what was not in flight");
  }
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
  options = fake_options({}, seed, 1);
  options.part_bytes = 0;
  log->expect(ReadQueue::create(options).status().code() == "INVALID_ARGUMENT", "refusals: takes parts of nothing");
}

}  // namespace

void check_fake_disk(CheckLog* log, uint64_t seed) {
  check_faults(log, seed);
  check_priorities(log, seed);
  check_cancel(log, seed);
  check_parts(log, seed);
  check_refusals(log, seed);
}

}  // namespace moestro
