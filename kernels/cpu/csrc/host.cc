// What Python calls directly, through ctypes.
#include <algorithm>

#include "capture.h"
#include "kernels.h"
#include "pack.h"
#include "sampling.h"
#include "team.h"

#define HOST(type) extern "C" __attribute__((visibility("default"))) type

HOST(const char*) vms_isa() { return kernels().name; }

// The i-th instruction set that this machine can run, best first, or null.
HOST(const char*) vms_available_isa(int i) {
  const Kernels* const* tables = available_kernels();
  for (; *tables && i; ++tables) --i;
  return *tables ? (*tables)->name : nullptr;
}

// 1 if there is such an instruction set.
HOST(int) vms_set_isa(const char* name) { return set_kernels(name); }

HOST(int) vms_num_threads() { return team_size(); }
HOST(void) vms_set_num_threads(int threads) { set_team_size(threads); }

// 1 if all values of the result are finite.
HOST(int)
vms_pack_weight(const void* const* parts, const int64_t* rows, int64_t num_parts, int64_t k, int from, int to, int interleaved, void* out,
                const float* const* scales) {
  return pack_weight({parts, rows, num_parts, k, static_cast<Dtype>(from), static_cast<Dtype>(to), interleaved != 0, out, scales});
}

HOST(void)
vms_sample(const float* logits, int64_t rows, int64_t vocabulary, const float* temperature, const int32_t* top_k, const float* top_p, const float* min_p,
           const double* uniform, int64_t* tokens) {
  sample({logits, rows, vocabulary, temperature, top_k, top_p, min_p, uniform, tokens});
}

// Have the system give the memory of rows [begin, end) of each array now, a few rows of all of them before the next; what is there, or is written
// meanwhile, stays. Arrays begin with a page. Returns early once `stopped` is not 0.
HOST(void)
vms_take_memory(char* const* arrays, const int64_t* row_bytes, int count, int64_t begin, int64_t end, int64_t page, const volatile int32_t* stopped) {
  constexpr int64_t kBytesAtOnce = 1 << 20;
  const int64_t rows = std::max<int64_t>(1, kBytesAtOnce / *std::max_element(row_bytes, row_bytes + count));
  for (; begin < end; begin += rows)
    for (int a = 0; a < count; ++a) {
      const int64_t last = std::min(end, begin + rows) * row_bytes[a];
      for (int64_t at = begin * row_bytes[a] / page * page; at < last; at += page) {
        if (*stopped) return;
        char zero = 0;  // where it is none, the page is there already
        __atomic_compare_exchange_n(arrays[a] + at, &zero, 0, false, __ATOMIC_RELAXED, __ATOMIC_RELAXED);
      }
    }
}

HOST(void) vms_capture_begin() { capture_begin(); }
// Null if one of the results is not an operator's output.
HOST(Capture*) vms_capture_end(const void* const* results, int count) { return capture_end(results, count); }
HOST(void*) vms_capture_result(const Capture* capture, int result) { return capture_result(*capture, result); }
HOST(int) vms_capture_launch(const Capture* capture) { return capture_launch(*capture); }
HOST(void) vms_capture_free(Capture* capture) { capture_free(capture); }
