// The table that every kernel folder keeps: one function for each instruction set, best first, scalar last.
#pragma once

namespace moestro {

enum class Isa;  // native/base/cpu.h, which is not included here: files of one instruction set stay free of the STL

template <typename Function>
struct Variant {
  Isa isa;
  Function* function;
};

template <typename Function>
struct Variants {
  const Variant<Function>* first;
  int count;
  const Variant<Function>* begin() const { return first; }
  const Variant<Function>* end() const { return first + count; }

  // The best variant that needs no more than `isa`.
  Function* best(Isa isa) const {
    for (int i = 0; i < count; ++i) {
      if (first[i].isa <= isa) return first[i].function;
    }
    return first[count - 1].function;
  }
};

}  // namespace moestro
