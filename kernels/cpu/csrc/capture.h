// Launch capture: the operators of one run of a static graph, kept to be launched again without MindSpore's runtime.
#pragma once

#include <cstdint>
#include <initializer_list>

// An operator as MindSpore calls it, see ops.cc.
using Operator = int (*)(int nparam, void** params, int* ndims, int64_t** shapes, const char** dtypes, void* stream, void* extra);

// Run an operator of which the first `inputs` params are inputs, and keep the launch if a capture is under way. `rows` are the inputs that are rows of
// an operator that treats each by itself.
int launch(Operator op, int inputs, std::initializer_list<int> rows, int nparam, void** params, int* ndims, int64_t** shapes, const char** dtypes, void* stream, void* extra);

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
