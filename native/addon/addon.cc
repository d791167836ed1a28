// The addon's entry: registers what src/native/binding.ts types.
#include <napi.h>

static Napi::Object init(Napi::Env env, Napi::Object exports) { return exports; }

NODE_API_MODULE(moestro, init)
