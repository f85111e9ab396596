// Calls operators of the CPU library, for callgrind: ./operators LIBRARY INSTRUCTION_SET. Each case is a function of its own, inside which
// instructions are counted. Tensors are zeros but for counts and lengths: how many instructions run does not depend on the rest.
#include <dlfcn.h>

#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <vector>

namespace {

constexpr int64_t kHidden = 256, kMiddle = 512, kHeads = 4, kKvHeads = 2, kHeadDim = 64, kBlock = 16, kContext = 1024, kVocabulary = 4096;

struct Tensor {
  const char* dtype;
  std::vector<int64_t> shape;
  void* memory;

  Tensor(const char* dtype, std::vector<int64_t> shape) : dtype(dtype), shape(shape) {
    int64_t count = 1;
    for (int64_t size : shape) count *= size;
    memory = std::aligned_alloc(64, (count * 4 + 63) / 64 * 64);
    for (int64_t i = 0; i < count; ++i) static_cast<int32_t*>(memory)[i] = 0;
  }
};

Tensor rows(int64_t count, int64_t width) { return {"float32", {count, width}}; }
Tensor floats(int64_t count) { return {"float32", {count}}; }
Tensor weight(int64_t n, int64_t k) { return {"bfloat16", {n / 32, k / 2, 32, 2}}; }
Tensor cache() { return {"bfloat16", {kContext / kBlock, kBlock, kKvHeads, kHeadDim}}; }
Tensor number(int32_t value) {
  Tensor tensor("int32", {1});
  *static_cast<int32_t*>(tensor.memory) = value;
  return tensor;
}

typedef int (*Operator)(int, void**, int*, int64_t**, const char**, void*, void*);

struct Call {
  Operator op;
  std::vector<void*> params;
  std::vector<int> ndims;
  std::vector<int64_t*> shapes;
  std::vector<const char*> dtypes;

  Call(void* library, const char* name, std::vector<Tensor>& tensors) : op(reinterpret_cast<Operator>(dlsym(library, name))) {
    for (Tensor& tensor : tensors) {
      params.push_back(tensor.memory);
      ndims.push_back(static_cast<int>(tensor.shape.size()));
      shapes.push_back(tensor.shape.data());
      dtypes.push_back(tensor.dtype);
    }
  }
  int operator()() { return op(static_cast<int>(params.size()), params.data(), ndims.data(), shapes.data(), dtypes.data(), nullptr, nullptr); }
};

}  // namespace

#define CASE(name) \
  extern "C" __attribute__((noinline)) int name(Call& call) { return call(); }
CASE(matmul_1_row)
CASE(matmul_8_rows)
CASE(matmul_96_rows)
CASE(matmul_argmax_8_rows)
CASE(swiglu_1_row)
CASE(attention_1_token_1024_keys)
CASE(attention_16_tokens_1024_keys)
CASE(add_rms_norm_8_rows)

// Of a vocabulary whose tokens are ever less likely, in no order.
struct Sampling {
  void (*sample)(const float*, int64_t, int64_t, const float*, const int32_t*, const float*, const float*, const double*, int64_t*);
  float logits[kVocabulary], top_p = 0.9f;
  int32_t top_k = 500;
  double uniform = 0.5;
  int64_t token;

  explicit Sampling(void* library) : sample(reinterpret_cast<decltype(sample)>(dlsym(library, "vms_sample"))) {
    for (int64_t i = 0; i < kVocabulary; ++i) logits[i] = -static_cast<float>(i * 1283 % kVocabulary) / 256;
  }
};
extern "C" __attribute__((noinline)) int sample_1_row(Sampling& s) {
  s.sample(s.logits, 1, kVocabulary, nullptr, nullptr, nullptr, nullptr, &s.uniform, &s.token);
  return s.token < 0;
}
extern "C" __attribute__((noinline)) int sample_1_row_top_k_top_p(Sampling& s) {
  s.sample(s.logits, 1, kVocabulary, nullptr, &s.top_k, &s.top_p, nullptr, &s.uniform, &s.token);
  return s.token < 0;
}

int main(int, char** arguments) {
  void* library = dlopen(arguments[1], RTLD_NOW);
  if (!library) return std::fprintf(stderr, "%s\n", dlerror()), 1;
  reinterpret_cast<void (*)(int)>(dlsym(library, "vms_set_num_threads"))(1);
  if (!reinterpret_cast<int (*)(const char*)>(dlsym(library, "vms_set_isa"))(arguments[2])) return std::fprintf(stderr, "no %s\n", arguments[2]), 1;

  const auto matmul = [](int32_t n) { return std::vector<Tensor>{rows(n, kHidden), weight(kHidden, kHidden), number(n), rows(n, kHidden)}; };
  const auto attention = [](int32_t n) {
    return std::vector<Tensor>{rows(n, kHeads * kHeadDim), cache(), cache(), {"int32", {1, kContext / kBlock}}, number(kContext), number(n),
                               floats(1), number(0), number(1), rows(n, kHeads * kHeadDim)};
  };
  struct Case {
    int (*count)(Call&);
    const char* op;
    std::vector<Tensor> tensors;
  };
  std::vector<Case> cases = {
      {matmul_1_row, "matmul", matmul(1)},
      {matmul_8_rows, "matmul", matmul(8)},
      {matmul_96_rows, "matmul", matmul(96)},
      {swiglu_1_row, "matmul_swiglu", {rows(1, kHidden), weight(2 * kMiddle, kHidden), number(1), rows(1, kMiddle)}},
      {attention_1_token_1024_keys, "paged_attention", attention(1)},
      {attention_16_tokens_1024_keys, "paged_attention", attention(16)},
      {add_rms_norm_8_rows, "add_rms_norm", {rows(8, kHidden), rows(8, kHidden), floats(kHidden), floats(1), number(8), rows(8, kHidden), rows(8, kHidden)}},
      {matmul_argmax_8_rows, "matmul_argmax", {rows(8, kHidden), weight(kVocabulary, kHidden), number(8), rows(8, kVocabulary), {"int32", {8}}}},
  };
  for (Case& one : cases) {
    Call call(library, one.op, one.tensors);
    // The first call also makes scratch memory.
    if (call() || one.count(call)) return std::fprintf(stderr, "%s refused its inputs\n", one.op), 1;
  }
  const std::unique_ptr<Sampling> sampling(new Sampling(library));
  return sample_1_row(*sampling) | sample_1_row_top_k_top_p(*sampling);
}
