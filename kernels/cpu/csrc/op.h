// What the files of operators share: how MindSpore calls one, and how its rows are given to the thread team.
//
// int op(int nparam, void** params, int* ndims, int64_t** shapes, const char** dtypes, void* stream, void* extra): inputs first, then
// outputs, in the order of kernels/ops.py, which also infers the shapes. Returns 0, or 1 for what it cannot compute, an
// unknown dtype above all. OP tells a capture the operator's Traits.
#pragma once

#include <algorithm>
#include <cstring>

#include "capture.h"
#include "kernels.h"
#include "team.h"

#define PARAMETERS                                                                                                      \
  [[maybe_unused]] int nparam, void** params, [[maybe_unused]] int* ndims, int64_t** shapes, [[maybe_unused]] const char** dtypes, \
      [[maybe_unused]] void* stream, [[maybe_unused]] void* extra

#define OP(name, ...)                                                                  \
  static int run_##name(PARAMETERS);                                                   \
  extern "C" __attribute__((visibility("default"))) int name(PARAMETERS) {             \
    return launch(run_##name, {__VA_ARGS__}, nparam, params, ndims, shapes, dtypes, stream, extra); \
  }                                                                                    \
  static int run_##name(PARAMETERS)

template <class T>
const T* in(void** params, int i) { return static_cast<const T*>(params[i]); }
template <class T>
T* out(void** params, int i) { return static_cast<T*>(params[i]); }

// Of rows that are read or written rounded, see MatMul. False where no product would have rounded them.
inline bool rounded_of(const char* name, bool* rounded) {
  *rounded = !std::strcmp(name, "bfloat16");
  return !*rounded || kernels().rounds_rows;
}

// A true count, within what the padded tensor has room for.
inline int64_t count_of(void** params, int i, int64_t room) { return std::clamp<int64_t>(*in<int32_t>(params, i), 0, room); }

inline bool dtype_of(const char* name, Dtype* dtype) {
  if (!std::strcmp(name, "bfloat16")) *dtype = Dtype::bf16;
  else if (!std::strcmp(name, "float16")) *dtype = Dtype::f16;
  else if (!std::strcmp(name, "float32")) *dtype = Dtype::f32;
  else return false;
  return true;
}

// Of a packed weight.
inline bool weight_dtype_of(const char* name, Dtype* dtype) {
  if (std::strcmp(name, "int8")) return dtype_of(name, dtype);
  *dtype = Dtype::i8;
  return true;
}

constexpr int64_t kFloatsWorthSharing = 8192;  // less work than this is done sooner than another thread hears of it

template <class F>
void for_rows(int64_t rows, int64_t floats_per_row, F&& body) {
  const int64_t step = std::max<int64_t>(1, kFloatsWorthSharing / std::max<int64_t>(1, floats_per_row));
  const int64_t items = (rows + step - 1) / step;
  team_run(items, [&](int64_t i) { body(tile_begin(rows, items, i), tile_begin(rows, items, i + 1)); });
}
