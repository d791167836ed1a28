// Which dense tensors a model has, where they lie in memory, and which of them have been loaded.
#include "native/layers/model.h"

namespace moestro {
namespace {

// "q4", "q6" or "q8"; 0 for "f32".
int bits_of(const std::string& kind) { return kind[0] == 'q' ? kind[1] - '0' : 0; }

// A matrix in its parts (DenseMatrix of kernels/formats.h); rows are those of whole tiles.
struct Parts {
  size_t codes, scales, row_scales;  // bytes
  Parts(int bits, size_t rows, size_t cols)
      : codes(rows * cols / 8 * bits),
        scales(rows * cols / kGroup * (bits == 4 ? 1 : 2)),
        row_scales(bits == 4 ? rows * 2 : 0) {}
};

size_t tensor_bytes(const std::string& kind, int rows, int cols) {
  const int bits = bits_of(kind);
  if (bits == 0) return static_cast<size_t>(rows) * cols * 4;
  const Parts parts(bits, round_up(rows, kTileRows), cols);
  return parts.codes + parts.scales + parts.row_scales;
}

}  // namespace

void Model::list_tensors() {
  const Dims& d = dims_;
  const auto add = [this](const std::string& name, const char* usual_kind, int rows, int cols) {
    const auto other = options_.dense_kinds.find(name);
    const bool is_other = usual_kind[0] == 'q' && other != options_.dense_kinds.end();
    const std::string kind = is_other ? other->second : usual_kind;
    const size_t bytes = tensor_bytes(kind, rows, cols);
    tensors_[name] = {kind, rows, cols, dense_bytes_, bytes, false};
    tensor_order_.push_back(name);
    dense_bytes_ += round_up(bytes, 64);
  };
  add("embedding", "q8", d.vocab, d.hidden);
  if (!d.tied_embeddings) add("head", "q8", d.vocab, d.hidden);
  add("final_norm", "f32", 1, d.hidden);
  for (int l = 0; l < d.layers; ++l) {
    const std::string p = "layers." + std::to_string(l) + ".";
    add(p + "attn_norm", "f32", 1, d.hidden);
    add(p + "q", "q8", d.q_width(), d.hidden);
    add(p + "k", "q8", d.kv_width(), d.hidden);
    add(p + "v", "q8", d.kv_width(), d.hidden);
    add(p + "o", "q8", d.hidden, d.q_width());
    if (d.attention_bias) {
      add(p + "q_bias", "f32", 1, d.q_width());
      add(p + "k_bias", "f32", 1, d.kv_width());
      add(p + "v_bias", "f32", 1, d.kv_width());
    }
    if (d.qk_norm != QkNorm::none) {
      const bool full = d.qk_norm == QkNorm::full;
      add(p + "q_norm", "f32", 1, full ? d.q_width() : d.head_dim);
      add(p + "k_norm", "f32", 1, full ? d.kv_width() : d.head_dim);
    }
    add(p + "ffn_norm", "f32", 1, d.hidden);
    if (d.is_moe[l]) {
      add(p + "router", "f32", d.experts, d.hidden);
      if (d.shared_size > 0) {
        add(p + "shared_gate", "q8", d.shared_size, d.hidden);
        add(p + "shared_up", "q8", d.shared_size, d.hidden);
        add(p + "shared_down", "q8", d.hidden, d.shared_size);
        if (d.shared_gate) add(p + "shared_router", "f32", 1, d.hidden);
      }
    } else {
      add(p + "ffn_gate", "q8", d.dense_ffn, d.hidden);
      add(p + "ffn_up", "q8", d.dense_ffn, d.hidden);
      add(p + "ffn_down", "q8", d.hidden, d.dense_ffn);
    }
  }
}

DenseMatrix Model::dense(const std::string& name) const {
  const auto found = tensors_.find(name);
  if (found == tensors_.end()) return {};
  const Tensor& t = found->second;
  const int bits = bits_of(t.kind), rows = static_cast<int>(round_up(t.rows, kTileRows));
  const Parts parts(bits, rows, t.cols);
  const uint8_t* codes = dense_.data() + t.offset;
  const uint8_t* scales = codes + parts.codes;
  if (bits == 4) {
    const auto* row_scales = reinterpret_cast<const uint16_t*>(scales + parts.scales);
    return {bits, codes, nullptr, scales, row_scales, rows, t.cols};
  }
  return {bits, codes, reinterpret_cast<const uint16_t*>(scales), nullptr, nullptr, rows, t.cols};
}

const float* Model::floats(const std::string& name) const {
  const auto found = tensors_.find(name);
  return found == tensors_.end() ? nullptr : reinterpret_cast<const float*>(dense_.data() + found->second.offset);
}

void Model::bind_weights() {
  embedding_ = dense("embedding");
  head_ = dims_.tied_embeddings ? embedding_ : dense("head");
  final_norm_ = floats("final_norm");
  for (int l = 0; l < dims_.layers; ++l) {
    const std::string p = "layers." + std::to_string(l) + ".";
    const std::string ffn = dims_.is_moe[l] ? "shared_" : "ffn_";
    LayerWeights w{};
    w.attn_norm = floats(p + "attn_norm");
    w.ffn_norm = floats(p + "ffn_norm");
    w.q_bias = floats(p + "q_bias");
    w.k_bias = floats(p + "k_bias");
    w.v_bias = floats(p + "v_bias");
    w.q_norm = floats(p + "q_norm");
    w.k_norm = floats(p + "k_norm");
    w.router = floats(p + "router");
    w.shared_router = floats(p + "shared_router");
    w.q = dense(p + "q");
    w.k = dense(p + "k");
    w.v = dense(p + "v");
    w.o = dense(p + "o");
    w.ffn_gate = dense(p + ffn + "gate");
    w.ffn_up = dense(p + ffn + "up");
    w.ffn_down = dense(p + ffn + "down");
    layers_.push_back(w);
  }
}

Result<Model::DenseTarget> Model::dense_target(const std::string& name, const std::string& kind, int rows, int cols) {
  const auto found = tensors_.find(name);
  if (found == tensors_.end())
    return Status("MODEL_INVALID",
                  "Cannot load dense tensor \"" + name + "\": this architecture has none of that name");
  const Tensor& t = found->second;
  if (t.kind != kind || t.rows != rows || t.cols != cols)
    return Status("MODEL_INVALID", "Cannot load dense tensor \"" + name + "\": found " + kind + " [" +
                                       std::to_string(rows) + ", " + std::to_string(cols) + "], needed " + t.kind +
                                       " [" + std::to_string(t.rows) + ", " + std::to_string(t.cols) + "]");
  return DenseTarget{dense_.data() + t.offset, t.bytes};
}

void Model::loaded(const std::string& name) { tensors_.at(name).loaded = true; }

Status Model::ready() const {
  for (const std::string& name : tensor_order_) {
    if (!tensors_.at(name).loaded)
      return Status("MODEL_INVALID", "Cannot start the model: dense tensor \"" + name + "\" is missing");
  }
  return Status();
}

}  // namespace moestro
