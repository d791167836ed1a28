// Token ids to the residual stream: rows of the embedding matrix, read out of its tiles.
#include "native/layers/model.h"

namespace moestro {

void Model::embed() {
  const size_t hidden = dims_.hidden;
  const size_t groups = hidden / kGroup;
  pool_->for_each(tokens_, std::max(1, tokens_ / (pool_->threads() * 4)), [&](int begin, int end, int) {
    for (int t = begin; t < end; ++t) {
      const size_t row = ids_[t];
      float* x = s_.x + t * hidden;
      for (size_t g = 0; g < groups; ++g) {
        const size_t tile = (row / kTileRows) * groups + g;
        alignas(64) float scales[kTileRows];
        kernels_->f16_to_f32(embedding_.scales + tile * kTileRows, kTileRows, scales);
        const float scale = scales[row % kTileRows];
        const uint8_t* codes = embedding_.codes + tile * kTileWeights + (row % kTileRows) * 4;
        for (int c = 0; c < kGroup; ++c)
          x[g * kGroup + c] = scale * static_cast<float>(static_cast<int>(codes[(c / 4) * 64 + c % 4]) - 128);
      }
    }
  });
}

}  // namespace moestro
