// The final norm, and the head, for the rows that somebody asked about.
#include <algorithm>
#include <cstring>

#include "native/layers/model.h"

namespace moestro {

void Model::hidden_states(std::span<const int32_t> rows, float* out) {
  const size_t hidden = dims_.hidden;
  for (size_t i = 0; i < rows.size(); ++i)
    kernels_->rmsnorm_f32(s_.x + rows[i] * hidden, final_norm_, dims_.hidden, dims_.eps, out + i * hidden);
}

void Model::logits(std::span<const int32_t> rows, float* out) {
  const int hidden = dims_.hidden;
  const size_t vocab = dims_.vocab;
  const int n = static_cast<int>(rows.size());
  // xn is the input of the last FFN, which is done with it.
  hidden_states(rows, s_.xn);
  quantize(s_.xn, n, hidden, s_.q8);
  if (vocab % kTileRows == 0) {
    const DenseJob job[] = {{head_, out, vocab}};
    run_dense(job, s_.q8.view(hidden), n);
    return;
  }
  // The matrix is padded to whole tiles and so are its outputs: through a row of scratch.
  for (size_t i = 0; i < static_cast<size_t>(n); ++i) {
    Q8Activations x = s_.q8.view(hidden);
    x.q += i * hidden;
    x.scale += i * (hidden / kGroup);
    x.sum += i * (hidden / kGroup);
    const DenseJob job[] = {{head_, s_.logit_row, static_cast<size_t>(head_.rows)}};
    run_dense(job, x, 1);
    std::memcpy(out + i * vocab, s_.logit_row, vocab * sizeof(float));
  }
}

}  // namespace moestro
