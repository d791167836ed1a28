// The kernel benchmark: how fast are the matrix kernels, beside what this machine can do at most?
#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <thread>

#include "native/kernels/bench/bench.h"

namespace moestro::bench {
namespace {

const Shape kShapes[] = {{"olmoe", 2048, 1024}, {"qwen3", 2048, 768}, {"pocket", 256, 128}};

constexpr char kHelp[] =
    "Usage: bench-kernels [options]\n"
    "Measures the matrix kernels beside this machine's DRAM read rate and int8 peak.\n\n"
    "  --json             print { dramGbps, int8Gops, rows: [...] } instead of a table\n"
    "  --levels LIST      of 2,3,4,8 (all)\n"
    "  --tokens LIST      tokens of each expert (1,2,4,8,16,32,64,128)\n"
    "  --threads LIST     (1 and all that the machine has)\n"
    "  --shape LIST       of olmoe,qwen3,pocket (all)\n"
    "  --kernel LIST      of expert,gemm_q8_planes,gemm_q8_dense (all)\n"
    "  --cold, --hot      only a walk over 1 GiB of experts, or only one expert (both)\n"
    "  --isa NAME         instruction set (the best there is)\n"
    "  --quick            fewer tokens, threads and samples: a minute instead of several\n"
    "  --help             this text\n";

// The pieces of "a,b,c".
std::vector<std::string> split(const std::string& list) {
  std::vector<std::string> parts;
  size_t from = 0;
  while (from <= list.size()) {
    const size_t to = std::min(list.find(',', from), list.size());
    parts.push_back(list.substr(from, to - from));
    from = to + 1;
  }
  return parts;
}

[[noreturn]] void refuse(const std::string& flag, const std::string& found, const char* needed) {
  std::fprintf(stderr, "Cannot run the benchmark: %s is \"%s\", needed %s\n", flag.c_str(), found.c_str(), needed);
  std::exit(2);
}

std::vector<int> numbers(const std::string& flag, const std::string& list, int most, const char* needed) {
  std::vector<int> values;
  for (const std::string& part : split(list)) {
    char* end = nullptr;
    const long value = std::strtol(part.c_str(), &end, 10);
    if (part.empty() || *end != '\0' || value < 1 || value > most) refuse(flag, list, needed);
    values.push_back(static_cast<int>(value));
  }
  return values;
}

struct Request {
  Options options;
  bool json = false;
};

Request parse(int count, char** arguments) {
  Request r;
  Options& o = r.options;
  const int machine_threads = std::max(1u, std::thread::hardware_concurrency());
  o.isa = detected_isas().front();
  bool only_cold = false, only_hot = false;
  for (int i = 1; i < count; ++i) {
    std::string flag = arguments[i], value;
    const size_t equals = flag.find('=');
    const auto take = [&] {
      if (equals != std::string::npos) {
        value = flag.substr(equals + 1);
        flag = flag.substr(0, equals);
      } else if (++i < count) {
        value = arguments[i];
      } else {
        refuse(flag, "", "a value");
      }
      return value;
    };
    const std::string name = flag.substr(0, equals);
    if (name == "--help") {
      std::fputs(kHelp, stdout);
      std::exit(0);
    } else if (name == "--json") {
      r.json = true;
    } else if (name == "--quick") {
      o.quick = true;
    } else if (name == "--cold") {
      only_cold = true;
    } else if (name == "--hot") {
      only_hot = true;
    } else if (name == "--levels") {
      o.levels = numbers(name, take(), 8, "levels of 2, 3, 4 and 8");
      for (int level : o.levels) {
        if (level != 2 && level != 3 && level != 4 && level != 8) refuse(name, value, "levels of 2, 3, 4 and 8");
      }
    } else if (name == "--tokens") {
      o.tokens = numbers(name, take(), 1024, "counts of 1 to 1024");
    } else if (name == "--threads") {
      o.threads = numbers(name, take(), 256, "counts of 1 to 256");
    } else if (name == "--shape") {
      for (const std::string& part : split(take())) {
        const auto found =
            std::find_if(std::begin(kShapes), std::end(kShapes), [&](const Shape& s) { return s.name == part; });
        if (found == std::end(kShapes)) refuse(name, part, "olmoe, qwen3 or pocket");
        o.shapes.push_back(*found);
      }
    } else if (name == "--kernel") {
      for (const std::string& part : split(take())) {
        if (std::find(std::begin(kKernelNames), std::end(kKernelNames), part) == std::end(kKernelNames)) {
          refuse(name, part, "expert, gemm_q8_planes or gemm_q8_dense");
        }
        o.kernels.push_back(part);
      }
    } else if (name == "--isa") {
      const std::vector<Isa> all = detected_isas();
      if (!parse_isa(take(), &o.isa) || std::find(all.begin(), all.end(), o.isa) == all.end()) {
        refuse(name, value, "an instruction set of this machine");
      }
    } else {
      refuse(flag, "", "a flag that --help shows");
    }
  }
  if (o.levels.empty()) o.levels = {2, 3, 4, 8};
  if (o.tokens.empty()) o.tokens = o.quick ? std::vector<int>{1, 8, 64} : std::vector<int>{1, 2, 4, 8, 16, 32, 64, 128};
  if (o.threads.empty()) {
    if (machine_threads > 1 && !o.quick) o.threads.push_back(1);
    o.threads.push_back(machine_threads);
  }
  if (o.shapes.empty()) o.shapes.assign(std::begin(kShapes), std::end(kShapes));
  if (o.kernels.empty()) o.kernels.assign(std::begin(kKernelNames), std::end(kKernelNames));
  if (only_cold || !only_hot) o.cold.push_back(true);
  if (only_hot || !only_cold) o.cold.push_back(false);
  return r;
}

// Where rows go as they come.
struct Printer {
  bool json;
  double dram, peak;
  bool first = true;
};

void print_row(const Row& row, void* context) {
  Printer& p = *static_cast<Printer*>(context);
  if (p.json) {
    std::printf(
        "%s\n    {\"kernel\":\"%s\",\"isa\":\"%s\",\"shape\":\"%s\",\"level\":%d,\"tokens\":%d,\"rows\":%d,\"cols\":%d,"
        "\"threads\":%d,\"cold\":%s,\"gbps\":%.3f,\"gops\":%.2f}",
        p.first ? "" : ",", row.kernel.c_str(), row.isa.c_str(), row.shape.c_str(), row.level, row.tokens, row.rows,
        row.cols, row.threads, row.cold ? "true" : "false", row.gbps, row.gops);
  } else {
    std::printf("%-15s %-7s %5d %6d %5d x %-5d %7d  %-4s %7.2f %4.0f %% %8.1f %4.0f %%\n", row.kernel.c_str(),
                row.shape.c_str(), row.level, row.tokens, row.rows, row.cols, row.threads, row.cold ? "cold" : "hot",
                row.gbps, p.dram > 0 ? 100 * row.gbps / p.dram : 0, row.gops, p.peak > 0 ? 100 * row.gops / p.peak : 0);
  }
  std::fflush(stdout);
  p.first = false;
}

int run(int count, char** arguments) {
  const Request request = parse(count, arguments);
  const Options& o = request.options;
  const int threads = *std::max_element(o.threads.begin(), o.threads.end());
  ThreadPool one(1), all(threads);
  const double dram_one = dram_read_gbps(one, o.isa, o.quick), dram = dram_read_gbps(all, o.isa, o.quick);
  const double peak_one = int8_peak_gops(one, o.isa), peak = int8_peak_gops(all, o.isa);
  Printer printer{request.json, dram, peak};
  if (request.json) {
    std::printf(
        "{\n  \"dramGbps\": %.3f,\n  \"int8Gops\": %.2f,\n  \"dramGbpsOneThread\": %.3f,\n"
        "  \"int8GopsOneThread\": %.2f,\n  \"threads\": %d,\n  \"isa\": \"%s\",\n  \"rows\": [",
        dram, peak, dram_one, peak_one, threads, isa_name(o.isa));
  } else {
    std::printf(
        "instruction set %s, %d threads: DRAM reads %.2f GB/s (one thread %.2f), int8 peak%s %.1f GOP/s (one %.1f)\n"
        "Shares are of what all %d threads reach at most. GB/s: weights and scales read; GOP/s: two a "
        "multiply-add.\n\n%-15s %-7s %5s %6s %13s %7s  %-4s %7s %6s %8s %6s\n",
        isa_name(o.isa), threads, dram, dram_one, o.isa == Isa::amx ? " of vectors" : "", peak, peak_one, threads,
        "kernel", "shape", "level", "tokens", "rows x cols", "threads", "", "GB/s", "", "GOP/s", "");
  }
  const bool good = bench_experts(o, print_row, &printer) && bench_dense(o, print_row, &printer);
  if (request.json) std::printf("\n  ]\n}\n");
  return good ? 0 : 1;
}

}  // namespace
}  // namespace moestro::bench

int main(int count, char** arguments) { return moestro::bench::run(count, arguments); }
