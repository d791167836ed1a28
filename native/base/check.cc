#include "native/base/check.h"

#include <algorithm>
#include <thread>

#include "native/base/crc32c.h"
#include "native/base/random.h"
#include "native/base/thread_pool.h"
#include "native/base/unit_split.h"

namespace moestro {
namespace {

// Every item once, by a worker that exists, in pieces of `grain` that start at multiples of it.
void check_one_run(CheckLog* log, ThreadPool* pool, int count, int grain) {
  const std::string what = "ThreadPool(" + std::to_string(pool->threads()) + ").run(" + std::to_string(count) + ", " +
                           std::to_string(grain) + ") ";
  std::vector<uint8_t> visits(static_cast<size_t>(std::max(count, 0)), 0);
  std::vector<uint8_t> strange(visits.size(), 0);
  pool->for_each(count, grain, [&](int begin, int end, int worker) {
    const bool regular = begin % grain == 0 && (end - begin == grain || end == count) && worker >= 0 &&
                         worker < pool->threads() && begin < end;
    for (int i = begin; i < end; ++i) {
      ++visits[i];
      strange[i] = !regular;
    }
  });
  log->expect(std::all_of(visits.begin(), visits.end(), [](uint8_t n) { return n == 1; }),
              what + "does not visit every item exactly once");
  log->expect(std::all_of(strange.begin(), strange.end(), [](uint8_t s) { return s == 0; }),
              what + "hands out a piece that is not one of its pieces, or a worker that is not one of its workers");
}

// Back-to-back runs of changing sizes: a worker that comes late must neither take nor lose a piece of another run.
void check_many_runs(CheckLog* log, ThreadPool* pool, uint64_t seed) {
  constexpr int kRuns = 10000;
  Random random(seed);
  std::vector<uint32_t> stamp(64, 0);
  for (uint32_t run = 1; run <= kRuns; ++run) {
    const int count = static_cast<int>(random.between(1, stamp.size()));
    const int grain = static_cast<int>(random.between(1, 4));
    bool clean = true;
    pool->for_each(count, grain, [&](int begin, int end, int) {
      for (int i = begin; i < end; ++i) stamp[i] = stamp[i] == run ? UINT32_MAX : run;
    });
    for (int i = 0; i < count; ++i) clean = clean && stamp[i] == run;
    if (!log->expect(clean, "ThreadPool(" + std::to_string(pool->threads()) + ") loses or repeats an item in run " +
                                std::to_string(run) + " of " + std::to_string(kRuns))) {
      return;
    }
  }
}

void check_thread_pool(CheckLog* log, uint64_t seed) {
  for (const int threads : {1, 2, 3, 5}) {
    ThreadPool pool(threads);
    log->expect(pool.threads() == threads, "ThreadPool(" + std::to_string(threads) + ") has another size");
    for (const int count : {0, 1, 2, 3, 7, 64, 1000, 4097}) {
      for (const int grain : {1, 2, 5, 64, 100000}) check_one_run(log, &pool, count, grain);
    }
    check_many_runs(log, &pool, seed);
    // Between pieces the caller, and nobody else, is called as often as it ran one.
    struct Calls {
      std::thread::id caller = std::this_thread::get_id();
      int between = 0, own = 0, foreign = 0;
    } calls;
    pool.set_between_pieces(
        [](void* c) {
          Calls* const own = static_cast<Calls*>(c);
          ++(std::this_thread::get_id() == own->caller ? own->between : own->foreign);
        },
        &calls);
    for (const int count : {1, 3, 1000}) {
      pool.for_each(count, 1, [&](int, int, int worker) {
        if (worker == 0) ++calls.own;
      });
    }
    log->expect(calls.between == calls.own && calls.foreign == 0,
                "ThreadPool(" + std::to_string(threads) + ") called between pieces " + std::to_string(calls.between) +
                    " times for " + std::to_string(calls.own) + " pieces");
  }
}

// Pieces follow each other from the first unit to the last and hold one at least: so each unit is in one piece.
bool check_one_split(CheckLog* log, int units, int threads, int percent) {
  const UnitSplit split(units, threads, percent);
  const int pieces = split.pieces();
  int end = split.begin(0);
  bool sound = end == 0;
  for (int piece = 1; sound && piece <= pieces; ++piece) {
    const int next = split.begin(piece);
    sound = next > end;
    end = next;
  }
  return log->expect(sound && end == units, "UnitSplit(" + std::to_string(units) + ", " + std::to_string(threads) +
                                                ", " + std::to_string(percent) +
                                                ") has an empty piece, or not every unit in one");
}

void check_unit_split(CheckLog* log, uint64_t seed) {
  for (const int percent : {50, 88}) {
    for (int threads = 1; threads <= 96; ++threads) {
      for (int units = 0; units <= 600; ++units) {
        if (!check_one_split(log, units, threads, percent)) return;
      }
    }
  }
  Random random(seed);
  for (int i = 0; i < 300; ++i) {
    const int units = static_cast<int>(random.between(601, 200000)), threads = static_cast<int>(random.between(1, 256));
    if (!check_one_split(log, units, threads, static_cast<int>(random.between(1, 100)))) return;
  }
}

void check_crc32c(CheckLog* log, uint64_t seed) {
  // RFC 3720, appendix B.4, and the check value of the CRC catalogue.
  const std::vector<uint8_t> zeros(32, 0x00), ones(32, 0xff);
  std::vector<uint8_t> rising(32), falling(32);
  for (uint8_t i = 0; i < 32; ++i) rising[i] = falling[31 - i] = i;
  const struct {
    const char* name;
    const void* data;
    size_t bytes;
    uint32_t crc;
  } vectors[] = {
      {"32 zeros", zeros.data(), 32, 0x8A9136AA}, {"32 ones", ones.data(), 32, 0x62A8AB43},
      {"0 to 31", rising.data(), 32, 0x46DD794E}, {"31 to 0", falling.data(), 32, 0x113FDB5C},
      {"123456789", "123456789", 9, 0xE3069283},  {"nothing", "", 0, 0x00000000},
  };
  for (const auto& v : vectors) {
    log->expect(crc32c(0, v.data, v.bytes) == v.crc, std::string("crc32c() of ") + v.name + " differs from RFC 3720");
    log->expect(crc32c_table(0, v.data, v.bytes) == v.crc,
                std::string("crc32c_table() of ") + v.name + " differs from RFC 3720");
  }

  Random random(seed);
  std::vector<uint8_t> bytes(200000);
  for (uint8_t& b : bytes) b = static_cast<uint8_t>(random.next());
  // Around the sizes where the interleaved streams begin (3 x 256, 3 x 8192, 3 x 65536), at any alignment.
  for (int i = 0; i < 300; ++i) {
    const size_t start = random.between(0, 64);
    const size_t around = i % 3 == 0 ? 768 : i % 3 == 1 ? 24576 : 196608;
    const size_t length = random.between(around - 40, around + 40);
    const size_t cut = random.between(0, length);
    const uint8_t* p = bytes.data() + start;
    const uint32_t whole = crc32c(0, p, length);
    const std::string at = " for " + std::to_string(length) + " bytes from " + std::to_string(start);
    log->expect(whole == crc32c_table(0, p, length), "crc32c() differs from crc32c_table()" + at);
    log->expect(whole == crc32c(crc32c(0, p, cut), p + cut, length - cut),
                "crc32c() of two parts differs from the whole" + at + " cut at " + std::to_string(cut));
  }
}

}  // namespace

std::vector<std::string> check_threads_and_checksums(uint64_t seed) {
  CheckLog log(seed);
  check_thread_pool(&log, seed);
  check_unit_split(&log, seed);
  check_crc32c(&log, seed);
  return log.take();
}

}  // namespace moestro
