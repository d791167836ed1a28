// Experts in slots, as the arena holds them after some evictions: a slot is one bit of one expert, and the slots of an
// expert lie anywhere. Cold calls walk over at least 1 GiB of experts before they come back to the first.
#include <algorithm>
#include <cstdio>
#include <cstring>
#include <numeric>

#include "native/base/random.h"
#include "native/kernels/bench/bench.h"
#include "native/layers/expert_batch.h"
#include "native/memory/memory.h"

namespace moestro::bench {
namespace {

constexpr size_t kColdBytes = size_t{1} << 30;
constexpr int kExpertsPerCall = 8;  // top-k of the models whose shapes these are

size_t round_up_page(size_t bytes) { return (bytes + 4095) / 4096 * 4096; }

PlaneTables test_tables() {
  constexpr int kT4[16] = {-127, -105, -81, -64, -48, -35, -22, -10, 2, 13, 25, 37, 51, 66, 85, 104};
  constexpr int kT3[8] = {-115, -72, -41, -16, 7, 30, 58, 92};
  constexpr int kT2[4] = {-88, -27, 18, 69};
  PlaneTables tables{};
  for (int i = 0; i < 16; ++i) {
    tables.t4[i] = static_cast<uint8_t>(kT4[i] + 128);
    tables.t3[i] = static_cast<uint8_t>(kT3[i % 8] + 128);
    tables.t2[i] = static_cast<uint8_t>(kT2[i % 4] + 128);
  }
  tables.residual_step = 3;
  tables.residual_offset = -23;
  return tables;
}

void fill_random(uint8_t* bytes, size_t n, Random* random) {
  for (size_t i = 0; i + 8 <= n; i += 8) {
    const uint64_t word = random->next();
    std::memcpy(bytes + i, &word, 8);
  }
}

// All experts of one shape at one level.
struct Experts {
  ExpertShape shape;
  int level;
  size_t bytes_each;  // read by a product at this level, scales included
  AlignedBuffer slots, scales;
  std::vector<ExpertPlanes> planes;

  bool make(const ExpertShape& wanted, int wanted_level, size_t least_bytes) {
    shape = wanted;
    level = wanted_level;
    const size_t weights = 3ull * shape.hidden * shape.inner;
    const size_t slot_bytes = round_up_page(weights / 8);
    const size_t rows = 2ull * shape.inner + shape.hidden;
    const size_t scale_bytes = weights / kGroup + 2 * rows;
    const size_t region = round_up_page(scale_bytes);
    bytes_each = weights / 8 * level + scale_bytes;
    const size_t count = std::max<size_t>(kExpertsPerCall, (least_bytes + bytes_each - 1) / bytes_each);
    auto bits = AlignedBuffer::allocate(count * level * slot_bytes, nullptr, "benchmark", true);
    auto all_scales = AlignedBuffer::allocate(count * region, nullptr, "benchmark", true);
    if (!bits.ok() || !all_scales.ok()) {
      std::fprintf(stderr, "Cannot hold %zu experts of %zu bytes: no memory\n", count, bytes_each);
      return false;
    }
    slots = std::move(bits.value());
    scales = std::move(all_scales.value());
    Random random(level);
    fill_random(slots.data(), slots.size(), &random);
    fill_random(scales.data(), scales.size(), &random);
    std::vector<size_t> order(count * level);
    std::iota(order.begin(), order.end(), size_t{0});
    for (size_t i = order.size(); i > 1; --i) std::swap(order[i - 1], order[random.between(0, i - 1)]);
    planes.assign(count, ExpertPlanes{});
    for (size_t e = 0; e < count; ++e) {
      uint8_t* own_scales = scales.data() + e * region;
      planes[e].scales = own_scales;
      for (int i = 0; i < level; ++i) planes[e].bits[i] = slots.data() + order[e * level + i] * slot_bytes;
      uint16_t* row_scales = reinterpret_cast<uint16_t*>(own_scales + weights / kGroup);
      for (size_t r = 0; r < rows; ++r) row_scales[r] = static_cast<uint16_t>(0x3a00 + random.between(0, 127));
    }
    return true;
  }
};

// The inputs and the scratch of a call of kExpertsPerCall experts with `tokens` tokens each.
struct Work {
  AlignedBuffer memory;
  Q8Buffer input;
  ExpertBatch batch;
  std::vector<int32_t> token_rows, local_rows;
  std::vector<ExpertGroup> groups;
  std::vector<ExpertGroup*> group_pointers;
  size_t pairs;

  bool make(const ExpertShape& shape, int level, int tokens, const Kernels& kernels) {
    pairs = static_cast<size_t>(kExpertsPerCall) * tokens;
    const size_t hidden = shape.hidden, inner = shape.inner;
    const size_t blocks = static_cast<size_t>(kExpertsPerCall) * packed_blocks(kernels, tokens);
    const size_t block_bytes = blocks * (hidden + inner) / kGroup * sizeof(Q8Block);
    const size_t q8_bytes = (tokens * hidden + pairs * inner) * 5 / 4;
    const size_t float_bytes = (tokens * hidden + pairs * (2 * inner + hidden)) * 4;
    const size_t need = block_bytes + q8_bytes + float_bytes;
    auto all = AlignedBuffer::allocate(need + 4096, nullptr, "benchmark", true);
    if (!all.ok()) return false;
    memory = std::move(all.value());
    uint8_t* at = memory.data();
    batch.input_blocks = reinterpret_cast<Q8Block*>(at);
    batch.hidden_blocks = batch.input_blocks + blocks * (hidden / kGroup);
    at += block_bytes;
    const auto floats = [&at](size_t count) {
      float* p = reinterpret_cast<float*>(at);
      at += count * 4;
      return p;
    };
    const auto q8 = [&at, &floats](size_t count) {
      Q8Buffer q;
      q.q = reinterpret_cast<int8_t*>(at);
      at += count;
      q.scale = floats(count / kGroup);
      q.sum = reinterpret_cast<int32_t*>(floats(count / kGroup));
      return q;
    };
    float* x = floats(tokens * hidden);
    input = q8(tokens * hidden);
    batch.hidden_gate = floats(pairs * inner);
    batch.hidden_up = floats(pairs * inner);
    batch.hidden_q8 = q8(pairs * inner);
    batch.partial = floats(pairs * hidden);
    Random random(tokens);
    for (size_t i = 0; i < tokens * hidden; ++i) x[i] = static_cast<float>(random.between(0, 2000)) / 1000.0f - 1.0f;
    kernels.quantize_q8(x, static_cast<int>(tokens * hidden), input.q, input.scale, input.sum);
    local_rows.resize(tokens);
    std::iota(local_rows.begin(), local_rows.end(), 0);
    for (size_t i = 0; i < pairs; ++i) token_rows.push_back(static_cast<int32_t>(i % tokens));
    batch.token_rows = token_rows.data();
    batch.local_rows = local_rows.data();
    for (int g = 0; g < kExpertsPerCall; ++g) {
      ExpertGroup group{};
      group.level = level;
      group.count = tokens;
      group.first_row = g * tokens;
      groups.push_back(group);
    }
    for (ExpertGroup& group : groups) group_pointers.push_back(&group);
    return true;
  }
};

// One way of measuring: `first` is the expert at which the walk stands.
struct Walk {
  const Experts* experts;
  bool cold;
  size_t first = 0;
  const ExpertPlanes& take(int i) {
    return experts
        ->planes[cold ? (first + i) % experts->planes.size() : static_cast<size_t>(i) % experts->planes.size()];
  }
  void next() { first = (first + kExpertsPerCall) % experts->planes.size(); }
};

void run_experts(const Kernels& kernels, ThreadPool& pool, const PlaneTables& tables, const Experts& experts,
                 Walk* walk, Work* work) {
  for (int g = 0; g < kExpertsPerCall; ++g) work->groups[g].planes = walk->take(walk->cold ? g : 0);
  run_expert_batch(kernels, pool, tables, experts.shape, work->input.view(experts.shape.hidden), work->group_pointers,
                   work->batch);
  walk->next();
}

// One matrix of every expert of a call, cut into the units of the expert product.
void run_matrix(const Kernels& kernels, ThreadPool& pool, const PlaneTables& tables, const Experts& experts,
                ExpertMatrix which, Walk* walk, Work* work) {
  const bool is_down = which == ExpertMatrix::down;
  const int rows = is_down ? experts.shape.hidden : experts.shape.inner;
  const int cols = is_down ? experts.shape.inner : experts.shape.hidden;
  const int tokens = work->groups[0].count;
  float* out = is_down ? work->batch.partial : work->batch.hidden_gate;
  const Q8Activations x = (is_down ? work->batch.hidden_q8 : work->input).view(cols);
  // What the last call of whole experts left: packed inputs of the first of them stand for all.
  const Q8Block* const blocks = is_down ? work->batch.hidden_blocks : work->batch.input_blocks;
  const bool packed = packed_blocks(kernels, tokens) > 0;
  for_each_rows(pool, kExpertsPerCall, rows, tokens, [&](int expert, int row, int end, bool) {
    const PlaneMatrix w = expert_matrix(walk->take(walk->cold ? expert : 0), experts.shape, experts.level, which);
    float* const y = out + static_cast<size_t>(expert) * tokens * rows;
    if (packed) {
      kernels.gemm_q8_planes_packed(w, tables, experts.level, blocks, tokens, row, end, y, rows);
    } else {
      kernels.gemm_q8_planes(w, tables, experts.level, x, work->batch.local_rows, tokens, row, end, y, rows);
    }
  });
  walk->next();
}

// The bits that a call leaves behind, as one number.
uint64_t checksum(const Work& work, size_t hidden) {
  uint64_t sum = 14695981039346656037ull;
  for (size_t i = 0; i < work.pairs * hidden; ++i) {
    uint32_t bits;
    std::memcpy(&bits, work.batch.partial + i, 4);
    sum = (sum ^ bits) * 1099511628211ull;
  }
  return sum;
}

// The same call by the scalar kernels gives the same bits.
bool agrees_with_scalar(const Options& options, const Shape& shape, int level, int tokens) {
  const PlaneTables tables = test_tables();
  Experts experts;
  Work work;
  const Kernels& scalar = kernels_for(Isa::scalar);
  if (!experts.make({shape.hidden, shape.inner}, level, 1) ||
      !work.make(experts.shape, level, tokens, kernels_for(options.isa))) {
    return false;
  }
  uint64_t sums[2];
  for (int i = 0; i < 2; ++i) {
    ThreadPool pool(i == 0 ? 1 : options.threads.back());
    Walk walk{&experts, true};
    run_experts(i == 0 ? scalar : kernels_for(options.isa), pool, tables, experts, &walk, &work);
    sums[i] = checksum(work, shape.hidden);
  }
  if (sums[0] == sums[1]) return true;
  std::fprintf(stderr, "Cannot trust these kernels: %s at level %d gives other bits than scalar\n",
               isa_name(options.isa), level);
  return false;
}

}  // namespace

bool bench_experts(const Options& options, Report report, void* context) {
  const PlaneTables tables = test_tables();
  const Kernels& kernels = kernels_for(options.isa);
  const auto wanted = [&](const char* name) {
    return std::find(options.kernels.begin(), options.kernels.end(), name) != options.kernels.end();
  };
  for (const Shape& shape : options.shapes) {
    for (int level : options.levels) {
      // The scalar kernels are slow: the smallest shape stands for all, at every level.
      for (int tokens : {1, 21}) {
        if (!agrees_with_scalar(options, {"", 256, 128}, level, tokens)) return false;
      }
      const bool any_cold = std::find(options.cold.begin(), options.cold.end(), true) != options.cold.end();
      Experts experts;
      if (!experts.make({shape.hidden, shape.inner}, level, any_cold ? kColdBytes : 1)) return false;
      const double weights = 3.0 * shape.hidden * shape.inner;
      for (int threads : options.threads) {
        ThreadPool pool(threads);
        for (int tokens : options.tokens) {
          Work work;
          if (!work.make(experts.shape, level, tokens, kernels)) return false;
          for (bool cold : options.cold) {
            Walk walk{&experts, cold};
            Row row{"", isa_name(options.isa), shape.name, level, tokens, 0, 0, threads, cold, 0, 0};
            // The hidden activations of this call stay behind for the single matrices below.
            const double s =
                seconds_per_call(options.quick, [&] { run_experts(kernels, pool, tables, experts, &walk, &work); });
            if (wanted("expert")) {
              row.kernel = "expert";
              row.rows = shape.inner;
              row.cols = shape.hidden;
              row.gbps = kExpertsPerCall * static_cast<double>(experts.bytes_each) / s / 1e9;
              row.gops = kExpertsPerCall * 2.0 * weights * tokens / s / 1e9;
              report(row, context);
            }
            if (!wanted("gemm_q8_planes")) continue;
            for (ExpertMatrix which : {ExpertMatrix::gate, ExpertMatrix::down}) {
              const double each = seconds_per_call(
                  options.quick, [&] { run_matrix(kernels, pool, tables, experts, which, &walk, &work); });
              row.kernel = "gemm_q8_planes";
              row.rows = which == ExpertMatrix::down ? shape.hidden : shape.inner;
              row.cols = which == ExpertMatrix::down ? shape.inner : shape.hidden;
              const double bytes = weights / 3 * level / 8 + weights / 3 / kGroup + 2.0 * row.rows;
              row.gbps = kExpertsPerCall * bytes / each / 1e9;
              row.gops = kExpertsPerCall * 2.0 * weights / 3 * tokens / each / 1e9;
              report(row, context);
            }
          }
        }
      }
    }
  }
  return true;
}

}  // namespace moestro::bench
