// Which units of work one piece of a run of the pool holds.
#pragma once
#include <algorithm>
#include <cstdint>

namespace moestro {

// How `total` units of work are shared out among threads: in rounds of one piece a thread, each round
// `percent` of what is left. Large pieces come first, because a thread reads long runs of planes faster than short ones
// (the first lines of every run come from DRAM unasked), and small ones last, so that all threads end together
// (factoring; Hummel, Schonberg and Flynn, 1992).
struct UnitSplit {
  int total, threads, percent, least;
  UnitSplit(int units, int thread_count, int percent_a_round)
      : total(units),
        threads(thread_count),
        percent(percent_a_round),
        least(std::max(1, units / (64 * thread_count))) {}
  // The pieces of the round that begins at `unit`.
  int piece_units(int unit) const {
    return std::max(least, static_cast<int>(int64_t{total - unit} * percent / (100 * threads)));
  }
  int begin(int piece) const {
    int unit = 0;
    for (; piece >= threads && unit < total; piece -= threads) unit += threads * piece_units(unit);
    return unit < total ? std::min(total, unit + piece * piece_units(unit)) : total;
  }
  int pieces() const {
    int count = 0, unit = 0;
    for (; unit < total; unit += threads * piece_units(unit)) {
      count += std::min(threads, (total - unit + piece_units(unit) - 1) / piece_units(unit));
    }
    return count;
  }
};

}  // namespace moestro
