#include "native/addon/engine.h"

#include <algorithm>
#include <cstring>

#include "native/addon/args.h"
#include "native/base/crc32c.h"
#include "native/io/record_file.h"

namespace moestro {
namespace {

// Field positions of src/native/binding.ts, which says what each holds.
constexpr int kGroupStride = 16, kReadStride = 20, kCompletionStride = 4;
constexpr int kGroupExpert = 0, kGroupLevel = 1, kGroupTicket = 2, kGroupFirst = 3, kGroupCount = 4, kGroupScale = 5,
              kGroupBits = 6, kGroupError = 14, kGroupWaited = 15;
constexpr int kReadTicket = 0, kReadPriority = 1, kReadScale = 2, kReadBitCount = 3, kReadBits = 4, kReadChecks = 12,
              kReadCheckSegments = 13, kReadCheckCrcs = 14;

}  // namespace

Napi::FunctionReference* Engine::define(Napi::Env env) {
  Napi::Function constructor = DefineClass(env, "NativeEngine",
                                           {
                                               InstanceAccessor<&Engine::get_isa>("isa"),
                                               InstanceAccessor<&Engine::get_threads>("threads"),
                                               InstanceMethod<&Engine::load_dense>("loadDense"),
                                               InstanceMethod<&Engine::ready>("ready"),
                                               InstanceMethod<&Engine::set_batch>("setBatch"),
                                               InstanceMethod<&Engine::embed>("embed"),
                                               InstanceMethod<&Engine::attention>("attention"),
                                               InstanceMethod<&Engine::route>("route"),
                                               InstanceMethod<&Engine::submit_reads>("submitReads"),
                                               InstanceMethod<&Engine::shared_ffn>("sharedFfn"),
                                               InstanceMethod<&Engine::run_experts>("runExperts"),
                                               InstanceMethod<&Engine::finish_layer>("finishLayer"),
                                               InstanceMethod<&Engine::run_layers>("runLayers"),
                                               InstanceMethod<&Engine::hidden_states>("hiddenStates"),
                                               InstanceMethod<&Engine::logits>("logits"),
                                               InstanceMethod<&Engine::largest_logit>("largestLogit"),
                                               InstanceMethod<&Engine::best_logits>("bestLogits"),
                                               InstanceMethod<&Engine::take_completions>("takeCompletions"),
                                               InstanceMethod<&Engine::wait_completions>("waitCompletions"),
                                               InstanceMethod<&Engine::cancel_read>("cancelRead"),
                                               InstanceMethod<&Engine::promote_read>("promoteRead"),
                                               InstanceMethod<&Engine::predict>("predict"),
                                               InstanceMethod<&Engine::collect_importance>("collectImportance"),
                                               InstanceMethod<&Engine::importance>("importance"),
                                               InstanceMethod<&Engine::io_stats>("ioStats"),
                                               InstanceMethod<&Engine::memory>("memory"),
                                               InstanceMethod<&Engine::move_slots>("moveSlots"),
                                               InstanceMethod<&Engine::populate_slots>("populateSlots"),
                                               InstanceMethod<&Engine::discard_slots>("discardSlots"),
                                               InstanceMethod<&Engine::discard_kv>("discardKv"),
                                               InstanceMethod<&Engine::copy_kv>("copyKv"),
                                               InstanceMethod<&Engine::save_kv>("saveKv"),
                                               InstanceMethod<&Engine::load_kv>("loadKv"),
                                               InstanceMethod<&Engine::close>("close"),
                                           });
  auto* reference = new Napi::FunctionReference();
  *reference = Napi::Persistent(constructor);
  return reference;
}

Engine::Engine(const Napi::CallbackInfo& info) : Napi::ObjectWrap<Engine>(info) {
  const Napi::Env env = info.Env();
  const EngineOptions options = parse_engine_options(env, info[0]);
  ledger_ = std::make_shared<Ledger>();
  auto arena = SlotArena::create(options.arena.bit_slots, options.arena.bit_slot_bytes, options.arena.scale_slots,
                                 options.arena.scale_slot_bytes, ledger_);
  if (!arena.ok()) throw_status(env, arena.status());
  arena_ = std::move(arena.value());
  auto model = Model::create(options.dims, options.model, ledger_);
  if (!model.ok()) throw_status(env, model.status());
  model_ = std::move(model.value());
  auto queue = ReadQueue::create(options.io);
  if (!queue.ok()) throw_status(env, queue.status());
  queue_ = std::move(queue.value());
  ticket_state_.assign(kTickets, kIdle);
  // The disk has work for some ms at a time, which a long product would let it finish without more to follow.
  model_->set_between_pieces(
      [](void* engine) {
        Engine* const self = static_cast<Engine*>(engine);
        if (self->reads_open_ > 0) self->advance(false);
      },
      this);
  assigned_.resize(static_cast<size_t>(options.model.max_batch_tokens) * options.dims.top_k);
  expert_first_.resize(options.dims.experts);
  assignments_.resize(assigned_.size());
}

// The queue goes first: its reads land in the arena.
Engine::~Engine() { queue_.reset(); }

void Engine::check_open(Napi::Env env) const {
  if (model_ == nullptr) throw_error(env, "ENGINE_CLOSED", "Cannot use the engine: it is closed");
}

void Engine::check_batch(Napi::Env env) const {
  check_open(env);
  if (model_->batch_tokens() == 0) throw_error(env, "INVALID_ARGUMENT", "Cannot run a step: no batch is set");
}

int Engine::layer_argument(const Napi::CallbackInfo& info) const {
  check_batch(info.Env());
  return to_int(info.Env(), info[0], "layer", 0, model_->dims().layers - 1);
}

Napi::Value Engine::get_isa(const Napi::CallbackInfo& info) {
  check_open(info.Env());
  return Napi::String::New(info.Env(), isa_name(model_->isa()));
}

Napi::Value Engine::get_threads(const Napi::CallbackInfo& info) {
  check_open(info.Env());
  return Napi::Number::New(info.Env(), model_->threads());
}

void Engine::load_dense(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  check_open(env);
  const std::string path = to_string(env, info[0], "path");
  const Napi::Object t = to_object(env, info[1], "tensor");
  const std::string name = to_string(env, t.Get("name"), "tensor.name");
  const std::string kind = to_string(env, t.Get("kind"), "tensor.kind");
  auto target = model_->dense_target(name, kind, to_int(env, t.Get("rows"), "tensor.rows", 0, 1 << 30),
                                     to_int(env, t.Get("cols"), "tensor.cols", 0, 1 << 30));
  if (!target.ok()) throw_status(env, target.status());
  const auto offset = static_cast<uint64_t>(to_number(env, t.Get("offset"), "tensor.offset", 0, 1e15));
  const auto bytes = static_cast<uint64_t>(to_number(env, t.Get("bytes"), "tensor.bytes", 0, 1e15));
  const auto wanted = static_cast<uint32_t>(to_number(env, t.Get("crc32c"), "tensor.crc32c", 0, 4294967295.0));
  if (bytes != target.value().bytes)
    throw_error(env, "MODEL_INVALID",
                "Cannot load dense tensor \"" + name + "\": found " + std::to_string(bytes) + " bytes, needed " +
                    std::to_string(target.value().bytes));
  check(env, read_file_uncached(path, offset, target.value().bytes, target.value().data));
  const uint32_t found = crc32c(0, target.value().data, target.value().bytes);
  if (found != wanted)
    throw_error(env, "MODEL_CORRUPT",
                "Cannot load dense tensor \"" + name + "\" from \"" + path + "\": its CRC-32C is " +
                    std::to_string(found) + ", the manifest says " + std::to_string(wanted));
  model_->loaded(name);
}

void Engine::ready(const Napi::CallbackInfo& info) {
  check_open(info.Env());
  check(info.Env(), model_->ready());
}

void Engine::set_batch(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  check_open(env);
  const auto tokens = to_span<int32_t>(env, info[0], "tokenIds", 1);
  const auto positions = to_span<int32_t>(env, info[1], "positions", tokens.size());
  const auto sequences = to_span<int32_t>(env, info[2], "sequences", tokens.size());
  const auto tables = to_span<int32_t>(env, info[3], "blockTables", 1);
  const int per_sequence = to_int(env, info[4], "blocksPerSequence", 1, 1 << 20);
  check(env, model_->set_batch(tokens, positions.first(tokens.size()), sequences.first(tokens.size()), tables,
                               per_sequence));
}

void Engine::embed(const Napi::CallbackInfo& info) {
  check_batch(info.Env());
  model_->embed();
}

void Engine::attention(const Napi::CallbackInfo& info) {
  model_->attention(layer_argument(info));
  advance(false);  // so that speculation goes on
}

void Engine::route(const Napi::CallbackInfo& info) {
  const int layer = layer_argument(info);
  const size_t count = static_cast<size_t>(model_->batch_tokens()) * model_->dims().top_k;
  if (!model_->dims().is_moe[layer]) throw_argument(info.Env(), "layer", "one with experts");
  const auto ids = to_span<uint16_t>(info.Env(), info[1], "ids", count);
  const auto weights = to_span<float>(info.Env(), info[2], "weights", count);
  model_->route(layer, ids.data(), weights.data());
  std::fill_n(assigned_.begin(), count, 0);
}

void Engine::submit_reads(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  check_open(env);
  const int count = to_int(env, info[0], "count", 0, kTickets);
  const auto reads = to_span<int32_t>(env, info[1], "reads", static_cast<size_t>(count) * kReadStride);
  const auto offsets = to_span<double>(env, info[2], "offsets", count);
  for (int i = 0; i < count; ++i) {
    const int32_t* r = reads.data() + static_cast<size_t>(i) * kReadStride;
    ReadRequest request{};
    request.ticket = static_cast<uint32_t>(r[kReadTicket]);
    int32_t& state = ticket_state_[request.ticket % kTickets];
    if (state == kPending) throw_argument(env, "a read's ticket", "free, found one in flight");
    if (r[kReadPriority] < 0 || r[kReadPriority] > 2) throw_argument(env, "a read's priority", "0, 1 or 2");
    request.priority = static_cast<ReadPriority>(r[kReadPriority]);
    if (!(offsets[i] >= 0 && offsets[i] < 1e15)) throw_argument(env, "a read's offset", "not negative");
    request.offset = static_cast<uint64_t>(offsets[i]);
    const int bit_count = r[kReadBitCount];
    if (bit_count < 0 || bit_count > 8) throw_argument(env, "a read's bit slots", "0 to 8");
    int segments = 0;
    if (r[kReadScale] >= 0) {
      if (r[kReadScale] >= arena_->scale_slots()) throw_argument(env, "a read's scale slot", "one of the arena");
      request.segments[segments++] = {arena_->scale_slot(r[kReadScale]),
                                      static_cast<uint32_t>(arena_->scale_slot_bytes())};
    }
    for (int b = 0; b < bit_count; ++b) {
      const int slot = r[kReadBits + b];
      if (slot < 0 || slot >= arena_->bit_slots()) throw_argument(env, "a read's bit slot", "one of the arena");
      request.segments[segments++] = {arena_->bit_slot(slot), static_cast<uint32_t>(arena_->bit_slot_bytes())};
    }
    if (segments == 0) throw_argument(env, "a read", "of at least one slot");
    request.segment_count = segments;
    const int checks = r[kReadChecks];
    if (checks < 0 || checks > kMaxChecks) throw_argument(env, "a read's checks", "0 to 4");
    int first = 0;
    for (int c = 0; c < checks; ++c) {
      const int covered = (static_cast<uint32_t>(r[kReadCheckSegments]) >> (8 * c)) & 0xff;
      if (covered < 1 || first + covered > segments) throw_argument(env, "a read's check", "within its segments");
      request.checks[c] = {static_cast<uint8_t>(first), static_cast<uint8_t>(covered),
                           static_cast<uint32_t>(r[kReadCheckCrcs + c])};
      first += covered;
    }
    request.check_count = checks;
    check(env, queue_->submit(request, i + 1 < count));
    ++reads_open_;
    state = kPending;
  }
}

void Engine::shared_ffn(const Napi::CallbackInfo& info) { model_->shared_ffn(layer_argument(info)); }

bool Engine::finished(int64_t ticket, int* error) {
  const int32_t state = ticket_state_[static_cast<size_t>(ticket) % kTickets];
  if (state < 0) return false;
  *error = state;
  return true;
}

bool Engine::advance(bool block) {
  fresh_.clear();
  const int count = block ? queue_->wait(&fresh_) : queue_->poll(&fresh_);
  for (const ReadCompletion& done : fresh_) {
    ticket_state_[done.ticket % kTickets] = done.error;
    --reads_open_;
    landed_.push_back(done);
  }
  return count > 0;
}

ExpertPlanes Engine::planes_of(Napi::Env env, const char* whose, int level, int scale_slot,
                               const int32_t* bit_slots) const {
  ExpertPlanes planes{};
  if (scale_slot < 0 || scale_slot >= arena_->scale_slots())
    throw_argument(env, std::string(whose) + "scale slot", "one of the arena");
  planes.scales = arena_->scale_slot(scale_slot);
  for (int b = 0; b < level; ++b) {
    if (bit_slots[b] < 0 || bit_slots[b] >= arena_->bit_slots())
      throw_argument(env, std::string(whose) + "bit slot", "one of the arena");
    planes.bits[b] = arena_->bit_slot(bit_slots[b]);
  }
  return planes;
}

Napi::Value Engine::run_experts(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  const int layer = layer_argument(info);
  const Dims& d = model_->dims();
  if (!d.is_moe[layer]) throw_argument(env, "layer", "one with experts");
  const int count = to_int(env, info[1], "groupCount", 0, 1 << 20);
  const auto fields = to_span<int32_t>(env, info[2], "groups", static_cast<size_t>(count) * kGroupStride);
  const auto assignments = to_span<int32_t>(env, info[3], "assignments", 0);
  const int64_t assignment_max = static_cast<int64_t>(model_->batch_tokens()) * d.top_k;
  groups_.clear();
  for (int i = 0; i < count; ++i) {
    const int32_t* f = fields.data() + static_cast<size_t>(i) * kGroupStride;
    ExpertGroup g{};
    g.expert = f[kGroupExpert];
    g.level = f[kGroupLevel];
    g.ticket = f[kGroupTicket];
    g.count = f[kGroupCount];
    if (g.expert < 0 || g.expert >= d.experts) throw_argument(env, "a group's expert", "one of the layer");
    if (g.level != 2 && g.level != 3 && g.level != 4 && g.level != 8)
      throw_argument(env, "a group's level", "2, 3, 4 or 8");
    if (f[kGroupFirst] < 0 || g.count < 1 || g.count > model_->batch_tokens() ||
        static_cast<size_t>(f[kGroupFirst]) + g.count > assignments.size())
      throw_argument(env, "a group's assignments", "within the array and at most one a token");
    g.assignments = assignments.data() + f[kGroupFirst];
    for (int a = 0; a < g.count; ++a) {
      const int32_t assignment = g.assignments[a];
      if (assignment < 0 || assignment >= assignment_max) throw_argument(env, "an assignment", "token * topK + rank");
      if (assigned_[assignment] != 0) throw_argument(env, "an assignment", "run once a layer, found it twice");
      assigned_[assignment] = 1;
    }
    g.planes = planes_of(env, "a group's ", g.level, f[kGroupScale], f + kGroupBits);
    groups_.push_back(g);
  }
  const uint64_t stall_ns = model_->run_experts(layer, groups_, *this);
  for (int i = 0; i < count; ++i) {
    int32_t* f = fields.data() + static_cast<size_t>(i) * kGroupStride;
    f[kGroupError] = groups_[i].error;
    f[kGroupWaited] = groups_[i].waited ? 1 : 0;
  }
  return Napi::Number::New(env, static_cast<double>(stall_ns) / 1e6);
}

void Engine::finish_layer(const Napi::CallbackInfo& info) {
  const int layer = layer_argument(info);
  const size_t count = static_cast<size_t>(model_->batch_tokens()) * model_->dims().top_k;
  const auto weights = to_span<float>(info.Env(), info[1], "weights", model_->dims().is_moe[layer] ? count : 0);
  model_->finish_layer(layer, weights.data());
}

std::span<const int32_t> Engine::rows_argument(const Napi::CallbackInfo& info) const {
  const Napi::Env env = info.Env();
  check_batch(env);
  const auto rows = to_span<int32_t>(env, info[0], "rows", 1);
  for (const int32_t row : rows) {
    if (row < 0 || row >= model_->batch_tokens()) throw_argument(env, "a row", "a token of the batch");
  }
  return rows;
}

std::span<const float> Engine::logits_argument(const Napi::CallbackInfo& info) const {
  const auto logits = to_span<float>(info.Env(), info[0], "logits", 1);
  if (logits.size() > size_t{1} << 30) throw_argument(info.Env(), "logits", "of at most 2^30 elements");
  return logits;
}

void Engine::hidden_states(const Napi::CallbackInfo& info) {
  const auto rows = rows_argument(info);
  const auto out = to_span<float>(info.Env(), info[1], "out", rows.size() * model_->dims().hidden);
  model_->hidden_states(rows, out.data());
}

void Engine::logits(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  const auto rows = rows_argument(info);
  if (rows.size() > static_cast<size_t>(std::min(model_->batch_tokens(), model_->max_logit_rows())))
    throw_argument(env, "rows", "at most one a token, and at most maxLogitRows");
  const auto out = to_span<float>(env, info[1], "out", rows.size() * model_->dims().vocab);
  model_->logits(rows, out.data());
}

Napi::Value Engine::largest_logit(const Napi::CallbackInfo& info) {
  check_open(info.Env());
  return Napi::Number::New(info.Env(), model_->largest_logit(logits_argument(info)));
}

Napi::Value Engine::best_logits(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  check_open(env);
  const auto logits = logits_argument(info);
  if (!info[1].IsNumber()) throw_argument(env, "least", "a number");
  const int most = to_int(env, info[2], "most", 0, 1 << 30);
  const auto ids = to_span<int32_t>(env, info[3], "ids", logits.size());
  // Sorting goes by logits that must not change meanwhile.
  const auto* ids_end = static_cast<const void*>(ids.data() + logits.size());
  const auto* logits_end = static_cast<const void*>(logits.data() + logits.size());
  if (ids.data() < logits_end && logits.data() < ids_end) throw_argument(env, "ids", "apart from logits");
  return Napi::Number::New(env,
                           model_->best_logits(logits, info[1].As<Napi::Number>().DoubleValue(), most, ids.data()));
}

Napi::Value Engine::move_completions(const Napi::CallbackInfo& info) {
  const auto out = to_span<int32_t>(info.Env(), info[0], "out", kCompletionStride);
  const size_t count = std::min(landed_.size(), out.size() / kCompletionStride);
  for (size_t i = 0; i < count; ++i) {
    const ReadCompletion& done = landed_[i];
    int32_t* o = out.data() + i * kCompletionStride;
    o[0] = static_cast<int32_t>(done.ticket);
    o[1] = done.error;
    o[2] = static_cast<int32_t>(done.bytes);
    o[3] = static_cast<int32_t>(std::min<uint64_t>(done.latency_ns / 1000, INT32_MAX));
  }
  landed_.erase(landed_.begin(), landed_.begin() + static_cast<std::ptrdiff_t>(count));
  return Napi::Number::New(info.Env(), static_cast<double>(count));
}

Napi::Value Engine::take_completions(const Napi::CallbackInfo& info) {
  check_open(info.Env());
  advance(false);
  return move_completions(info);
}

Napi::Value Engine::wait_completions(const Napi::CallbackInfo& info) {
  check_open(info.Env());
  if (!landed_.empty() || !advance(false)) {
    if (landed_.empty()) advance(true);
  }
  return move_completions(info);
}

Napi::Value Engine::cancel_read(const Napi::CallbackInfo& info) {
  check_open(info.Env());
  const int ticket = to_int(info.Env(), info[0], "ticket", 0, INT32_MAX);
  return Napi::Boolean::New(info.Env(), queue_->cancel(static_cast<uint32_t>(ticket)));
}

Napi::Value Engine::promote_read(const Napi::CallbackInfo& info) {
  check_open(info.Env());
  const int ticket = to_int(info.Env(), info[0], "ticket", 0, INT32_MAX);
  return Napi::Boolean::New(info.Env(), queue_->promote(static_cast<uint32_t>(ticket), ReadPriority::demand));
}

void Engine::predict(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  const int layer = layer_argument(info);
  if (!model_->dims().is_moe[layer]) throw_argument(env, "layer", "one with experts");
  const size_t count = static_cast<size_t>(model_->batch_tokens()) * model_->dims().experts;
  model_->predict(layer, to_span<float>(env, info[1], "scores", count).data());
}

void Engine::collect_importance(const Napi::CallbackInfo& info) {
  check_open(info.Env());
  const Napi::Env env = info.Env();
  const bool on = to_bool(env, info[0], "on");
  const int width = info[1].IsUndefined() ? 1 : to_int(env, info[1], "width", 1, 4096);
  if (width > 1 && width % kGroup != 0)
    throw_error(env, "INVALID_ARGUMENT",
                "Cannot collect importance of width " + std::to_string(width) + ": needed 1 or a multiple of 32");
  check(env, model_->collect_importance(on ? width : 0));
}

Napi::Value Engine::importance(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  check_open(env);
  const int layer = to_int(env, info[0], "layer", 0, model_->dims().layers - 1);
  const int expert = to_int(env, info[1], "expert", 0, model_->dims().experts - 1);
  const Importance* sums = model_->importance(layer, expert);
  if (sums == nullptr) throw_error(env, "INVALID_ARGUMENT", "Cannot give the importance: it is not being collected");
  const auto copy = [env](const std::vector<float>& from) {
    Napi::Float32Array to = Napi::Float32Array::New(env, from.size());
    std::copy(from.begin(), from.end(), to.Data());
    return to;
  };
  Napi::Object result = Napi::Object::New(env);
  result.Set("tokens", Napi::Number::New(env, static_cast<double>(sums->tokens)));
  result.Set("gateUp", copy(sums->gate_up));
  result.Set("down", copy(sums->down));
  return result;
}

Napi::Value Engine::io_stats(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  check_open(env);
  const ReadQueueStats stats = queue_->stats();
  Napi::Object o = Napi::Object::New(env);
  const auto set = [&](const char* name, double value) { o.Set(name, Napi::Number::New(env, value)); };
  o.Set("backend", Napi::String::New(env, queue_->backend_name()));
  o.Set("direct", Napi::Boolean::New(env, queue_->direct()));
  set("submitted", static_cast<double>(stats.submitted));
  set("completed", static_cast<double>(stats.completed));
  set("failed", static_cast<double>(stats.failed));
  set("cancelled", static_cast<double>(stats.cancelled));
  set("bytesRead", static_cast<double>(stats.bytes_read));
  set("shortReads", static_cast<double>(stats.short_reads));
  set("waitMs", static_cast<double>(stats.wait_ns) / 1e6);
  set("inFlight", stats.in_flight);
  set("queued", stats.queued);
  set("inFlightMax", stats.in_flight_max);
  return o;
}

Napi::Value Engine::memory(const Napi::CallbackInfo& info) {
  check_open(info.Env());
  Napi::Object o = Napi::Object::New(info.Env());
  for (const auto& [purpose, bytes] : ledger_->snapshot())
    o.Set(purpose, Napi::Number::New(info.Env(), static_cast<double>(bytes)));
  return o;
}

void Engine::move_slots(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  check_open(env);
  const int count = to_int(env, info[0], "count", 0, 1 << 24);
  const auto moves = to_span<int32_t>(env, info[1], "moves", static_cast<size_t>(count) * 3);
  for (int i = 0; i < count; ++i) {
    const int32_t* m = moves.data() + static_cast<size_t>(i) * 3;
    if (m[0] < 0 || m[0] > 1) throw_argument(env, "a move's kind", "0 or 1");
    const int slots = m[0] == 0 ? arena_->bit_slots() : arena_->scale_slots();
    if (m[1] < 0 || m[1] >= slots || m[2] < 0 || m[2] >= slots || m[1] == m[2])
      throw_argument(env, "a move's slots", "two of the arena");
    if (m[0] == 0)
      std::memcpy(arena_->bit_slot(m[2]), arena_->bit_slot(m[1]), arena_->bit_slot_bytes());
    else
      std::memcpy(arena_->scale_slot(m[2]), arena_->scale_slot(m[1]), arena_->scale_slot_bytes());
  }
}

std::array<int, 4> Engine::slots_argument(const Napi::CallbackInfo& info) const {
  const Napi::Env env = info.Env();
  const int bit_first = to_int(env, info[0], "bitFirst", 0, arena_->bit_slots());
  const int bit_end = to_int(env, info[1], "bitEnd", bit_first, arena_->bit_slots());
  const int scale_first = to_int(env, info[2], "scaleFirst", 0, arena_->scale_slots());
  const int scale_end = to_int(env, info[3], "scaleEnd", scale_first, arena_->scale_slots());
  return {bit_first, bit_end, scale_first, scale_end};
}

void Engine::populate_slots(const Napi::CallbackInfo& info) {
  check_open(info.Env());
  const auto [bit_first, bit_end, scale_first, scale_end] = slots_argument(info);
  if (Status status = arena_->populate_bits(bit_first, bit_end); !status.ok()) throw_status(info.Env(), status);
  if (Status status = arena_->populate_scales(scale_first, scale_end); !status.ok()) throw_status(info.Env(), status);
}

void Engine::discard_slots(const Napi::CallbackInfo& info) {
  check_open(info.Env());
  const auto [bit_first, bit_end, scale_first, scale_end] = slots_argument(info);
  arena_->discard_bits(bit_first, bit_end);
  arena_->discard_scales(scale_first, scale_end);
}

void Engine::discard_kv(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  check_open(env);
  const int first = to_int(env, info[0], "first", 0, model_->kv_blocks());
  const int end = to_int(env, info[1], "end", first, model_->kv_blocks());
  model_->discard_kv(first, end);
}

int Engine::block_argument(const Napi::CallbackInfo& info, size_t index, const char* what) const {
  check_open(info.Env());
  return to_int(info.Env(), info[index], what, 0, model_->kv_blocks() - 1);
}

void Engine::copy_kv(const Napi::CallbackInfo& info) {
  const int from = block_argument(info, 0, "from"), to = block_argument(info, 1, "to");
  if (from == to) throw_argument(info.Env(), "to", "another block than from");
  model_->copy_kv(from, to);
}

void Engine::save_kv(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  const int block = block_argument(info, 0, "block");
  const auto header = to_span<uint8_t>(env, info[2], "header", 0);
  check(env, write_record(to_string(env, info[1], "path"), header, model_->kv_pieces(block)));
}

void Engine::load_kv(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  const int block = block_argument(info, 0, "block");
  const int header_bytes = to_int(env, info[2], "headerBytes", 0, 1 << 20);
  check(env, read_record(to_string(env, info[1], "path"), static_cast<size_t>(header_bytes), model_->kv_pieces(block)));
}

void Engine::close(const Napi::CallbackInfo&) {
  queue_.reset();
  model_.reset();
  arena_.reset();
}

}  // namespace moestro
