// Launch capture: the operators of one run of a static graph, kept to be launched again without MindSpore's runtime.
#pragma once

#include <cstdint>

// An operator as MindSpore calls it, see ops.cc.
using Operator = int (*)(int nparam, void** params, int* ndims, int64_t** shapes, const char** dtypes, void* stream, void* extra);

// Some of an operator's params.
template <class... Index>
constexpr uint32_t params_at(Index... index) {
  return ((1u << index) | ... | 0u);
}

struct Traits {
  int inputs;            // the last of them is the true number of rows
  uint32_t rows = 0;     // inputs that are rows, of an operator that treats each row by itself; of its outputs those are that have as many
  uint32_t rounded = 0;  // params that may be rounded rows, see MatMul; an input of a product, of which the second is the weight, or an output
};

// Run an operator, and keep the launch if a capture is under way.
int launch(Operator op, const Traits& traits, int nparam, void** params, int* ndims, int64_t** shapes, const char** dtypes, void* stream, void* extra);

class Capture;

// From here on, launches of any thread are kept.
void capture_begin();
// What was launched since, or null if one of the results is not an operator's output. The results are the graph's outputs, as the
// run that was captured left them.
Capture* capture_end(const void* const* results, int count);
// Where a launch leaves a result.
void* capture_result(const Capture& capture, int result);
// Launch all operators again, in their order, on the memory that the graph's inputs and parameters had. 0, or what an operator returned.
int capture_launch(const Capture& capture);
void capture_free(Capture* capture);
