// Puts the table of kernels together for each instruction set: for every kernel the best variant within it.
#include "native/kernels/kernels.h"

#include "native/kernels/attention/attention.h"
#include "native/kernels/f16/f16.h"
#include "native/kernels/gemm_f32/gemm_f32.h"
#include "native/kernels/gemm_q8_dense/gemm_q8_dense.h"
#include "native/kernels/gemm_q8_planes/gemm_q8_planes.h"
#include "native/kernels/kv_store/kv_store.h"
#include "native/kernels/quantize_q8/quantize_q8.h"
#include "native/kernels/rmsnorm/rmsnorm.h"
#include "native/kernels/rope/rope.h"
#include "native/kernels/select_logits/select_logits.h"
#include "native/kernels/swiglu/swiglu.h"
#include "native/kernels/topk_router/topk_router.h"

namespace moestro {
namespace {

// Measured: below, decoding weights in registers for each few tokens is faster than a panel of them for all.
int packed_from(Isa isa) { return isa == Isa::amx ? 8 : isa >= Isa::avx512 ? 9 : 5; }

Kernels best_within(Isa isa) {
  Kernels table;
  table.isa = isa;
  table.quantize_q8 = quantize_q8_variants().best(isa);
  table.gemm_q8_dense = gemm_q8_dense_variants().best(isa);
  table.gemm_q8_planes = gemm_q8_planes_variants().best(isa);
  table.packed_tokens = packed_from(isa);
  table.gemm_q8_planes_packed = gemm_q8_planes_packed_variants().best(isa);
  table.gemm_f32 = gemm_f32_variants().best(isa);
  table.rmsnorm_f32 = rmsnorm_f32_variants().best(isa);
  table.rope_f32 = rope_f32_variants().best(isa);
  table.swiglu_f32 = swiglu_f32_variants().best(isa);
  table.axpy_f32 = axpy_f32_variants().best(isa);
  table.kv_store = kv_store_variants().best(isa);
  table.attention = attention_variants().best(isa);
  table.attention_merge = attention_merge_variants().best(isa);
  table.attention_finish = attention_finish_variants().best(isa);
  table.topk_router = topk_router_variants().best(isa);
  table.find_largest = find_largest_variants().best(isa);
  table.find_from = find_from_variants().best(isa);
  table.sigmoid = sigmoid_variants().best(isa);
  table.f16_to_f32 = f16_to_f32_variants().best(isa);
  return table;
}

}  // namespace

const Kernels& kernels_for(Isa isa) {
  static const Kernels kTables[] = {best_within(Isa::scalar), best_within(Isa::neon),       best_within(Isa::avx2),
                                    best_within(Isa::avx512), best_within(Isa::avx512vbmi), best_within(Isa::amx)};
  return kTables[static_cast<int>(isa)];
}

}  // namespace moestro
