// Compare the CPU kernels with plain loops in double, without Python: what an emulated aarch64 can run. Prints a line per
// instruction set; exits with 1 and the first difference otherwise. Also built for x86, which checks this program itself.
#include <algorithm>
#include <cmath>
#include <cstdarg>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <limits>
#include <vector>

extern "C" {
using Op = int(int, void**, int*, int64_t**, const char**, void*, void*);
Op matmul, matmul_bias, matmul_swiglu, embedding, rms_norm, reshape_and_cache, paged_attention;
Op mla, fused_add_topk_div, moe_init_routing, grouped_matmul, moe_token_unpermute, cache_latents;
const char* vms_available_isa(int);
int vms_set_isa(const char*);
void vms_set_num_threads(int);
int vms_pack_weight(const void* const* parts, const int64_t* rows, int64_t num_parts, int64_t k, int from, int to, int interleaved, void* out,
                    const float* const* scales);
}

namespace {

enum Dtype { kBfloat16, kFloat16, kFloat32 };
const char* const kNames[] = {"bfloat16", "float16", "float32"};
constexpr double kRoundoff = 5.9604644775390625e-8;  // 2^-24, of float

[[noreturn]] void fail(const char* format, ...) {
  va_list arguments;
  va_start(arguments, format);
  std::vfprintf(stderr, format, arguments);
  va_end(arguments);
  std::fputc('\n', stderr);
  std::exit(1);
}

// A tensor of floats, int32 or stored values, as MindSpore would pass it.
struct Tensor {
  std::vector<char> bytes;
  std::vector<int64_t> shape;
  const char* dtype;

  Tensor(std::vector<int64_t> dims, const char* name) : shape(std::move(dims)), dtype(name) {
    int64_t size = 1;
    for (const int64_t d : shape) size *= d;
    bytes.resize(size * (std::strstr(name, "16") ? 2 : 4));
  }
  template <class T>
  T* as() { return reinterpret_cast<T*>(bytes.data()); }
};

Tensor ints(const std::vector<int32_t>& values) {
  Tensor t({static_cast<int64_t>(values.size())}, "int32");
  std::memcpy(t.bytes.data(), values.data(), t.bytes.size());
  return t;
}

Tensor scalar(float value) {
  Tensor t({1}, "float32");
  *t.as<float>() = value;
  return t;
}

template <class... Tensors>
void call(Op* op, const char* name, Tensors&... tensors) {
  void* params[] = {tensors.bytes.data()...};
  int ndims[] = {static_cast<int>(tensors.shape.size())...};
  int64_t* shapes[] = {tensors.shape.data()...};
  const char* dtypes[] = {tensors.dtype...};
  if (op(sizeof...(tensors), params, ndims, shapes, dtypes, nullptr, nullptr)) fail("%s refused its inputs", name);
}

// Of the formats with 16 bits: significant bits, and the exponent e of the smallest normal number 2^e.
struct Format { int bits, smallest; };
Format format_of(Dtype dtype) { return dtype == kBfloat16 ? Format{8, -126} : Format{11, -14}; }

double decode(Dtype dtype, uint16_t stored) {
  const Format f = format_of(dtype);
  const int fraction_bits = f.bits - 1, exponent = (stored & 0x7fff) >> fraction_bits, fraction = stored & ((1 << fraction_bits) - 1);
  double value;
  if (exponent == (0x7fff >> fraction_bits)) value = fraction ? std::nan("") : std::numeric_limits<double>::infinity();
  else if (exponent == 0) value = std::ldexp(fraction, f.smallest - fraction_bits);
  else value = std::ldexp(fraction + (1 << fraction_bits), f.smallest + exponent - 1 - fraction_bits);
  return stored & 0x8000 ? -value : value;
}

// The nearest stored value, ties to even.
uint16_t encode(Dtype dtype, float x) {
  const Format f = format_of(dtype);
  const int fraction_bits = f.bits - 1;
  const uint16_t sign = std::signbit(x) ? 0x8000 : 0, infinity = static_cast<uint16_t>(0x7fff >> fraction_bits << fraction_bits);
  if (std::isnan(x)) return sign | infinity | 1;
  const double magnitude = std::fabs(static_cast<double>(x));
  if (std::isinf(magnitude)) return sign | infinity;
  if (magnitude == 0) return sign;
  const int exponent = std::max(std::ilogb(magnitude), f.smallest);
  // In units of the last place, subnormals count up to the normals and each exponent goes on where the one before ended.
  const double units = std::nearbyint(std::ldexp(magnitude, fraction_bits - exponent));
  const double code = units + static_cast<double>(exponent - f.smallest) * (1 << fraction_bits);
  return code >= infinity ? sign | infinity : static_cast<uint16_t>(sign | static_cast<uint16_t>(code));
}

double rounded(Dtype dtype, float x) { return dtype == kFloat32 ? x : decode(dtype, encode(dtype, x)); }

uint32_t state = 1;
float draw() {  // in [-1, 1); Numerical Recipes' linear congruential generator
  state = state * 1664525u + 1013904223u;
  return static_cast<float>(static_cast<int32_t>(state >> 8) - (1 << 23)) / (1 << 23);
}

Tensor draw_tensor(std::vector<int64_t> shape) {
  Tensor t(std::move(shape), "float32");
  for (size_t i = 0; i < t.bytes.size() / 4; ++i) t.as<float>()[i] = draw();
  return t;
}

Tensor packed(std::vector<Tensor*> parts, Dtype from, Dtype to, bool interleaved) {
  std::vector<const void*> data;
  std::vector<int64_t> rows;
  int64_t n = 0;
  const int64_t k = parts[0]->shape[1];
  for (Tensor* part : parts) data.push_back(part->bytes.data()), rows.push_back(part->shape[0]), n += part->shape[0];
  const int64_t panels = interleaved ? (n / 2 + 15) / 16 : (n + 31) / 32;
  Tensor t(to == kFloat32 ? std::vector<int64_t>{panels, k, 32} : std::vector<int64_t>{panels, (k + 1) / 2, 32, 2}, kNames[to]);
  vms_pack_weight(data.data(), rows.data(), static_cast<int64_t>(rows.size()), k, from, to, interleaved, t.bytes.data(), nullptr);
  return t;
}

void expect(const char* what, Dtype dtype, int64_t i, double got, double wanted, double bound) {
  if (!(std::fabs(got - wanted) <= bound))
    fail("%s of %s differs at %lld: %.9g, not %.9g (off by %.3g, allowed %.3g)", what, kNames[dtype], static_cast<long long>(i), got, wanted,
         std::fabs(got - wanted), bound);
}

// All 16-bit values to float by the embedding; floats of all exponents to 16 bits by the cache write.
void check_conversions(Dtype dtype) {
  if (dtype != kFloat32) {
    Tensor all({2048, 32}, kNames[dtype]), out({2048, 32}, "float32"), count = ints({2048});
    std::vector<int32_t> ids(2048);
    for (int i = 0; i < 65536; ++i) all.as<uint16_t>()[i] = static_cast<uint16_t>(i);
    for (int i = 0; i < 2048; ++i) ids[i] = i;
    Tensor weight = packed({&all}, dtype, dtype, false), tokens = ints(ids);
    call(embedding, "embedding", weight, tokens, count, out);
    for (int i = 0; i < 65536; ++i) {
      const double wanted = decode(dtype, static_cast<uint16_t>(i)), got = out.as<float>()[i];
      if (!(got == wanted || (std::isnan(got) && std::isnan(wanted)))) fail("%s 0x%04x reads as %g, not %g", kNames[dtype], i, got, wanted);
    }
  }
  const uint32_t mantissas[] = {0, 1, 0xfff, 0x1000, 0x1001, 0x1fff, 0x2000, 0x3000, 0x7fff, 0x8000, 0x8001, 0x18000, 0x7fffff};
  Tensor x({512, 13}, "float32"), keys({512, 1, 1, 13}, kNames[dtype]), values = keys, done({1}, "float32"), count = ints({512});
  std::vector<int32_t> slots(512);
  for (int i = 0; i < 512; ++i) {
    slots[i] = i;
    for (int j = 0; j < 13; ++j) x.as<uint32_t>()[i * 13 + j] = static_cast<uint32_t>(i) << 23 | mantissas[j];
  }
  Tensor mapping = ints(slots);
  call(reshape_and_cache, "reshape_and_cache", x, x, keys, values, mapping, count, done);
  for (int i = 0; i < 512 * 13; ++i) {
    const float from = x.as<float>()[i];
    if (dtype == kFloat32) {
      if (std::memcmp(&from, keys.as<float>() + i, 4)) fail("float32 %g is not copied", from);
    } else if (std::isnan(from) ? !std::isnan(decode(dtype, keys.as<uint16_t>()[i])) : keys.as<uint16_t>()[i] != encode(dtype, from)) {
      fail("%.9g becomes %s 0x%04x, not 0x%04x", from, kNames[dtype], keys.as<uint16_t>()[i], encode(dtype, from));
    }
  }
}

struct Product { double value, bound; };

Product product(Tensor& x, int64_t row, Tensor& weight, int64_t feature, Dtype dtype, bool rounds_rows) {
  const int64_t k = weight.shape[1];
  Product p = {0, 0};
  for (int64_t i = 0; i < k; ++i) {
    const float left = x.as<float>()[row * k + i];
    const double term = (rounds_rows ? rounded(kBfloat16, left) : left) * rounded(dtype, weight.as<float>()[feature * k + i]);
    p.value += term;
    p.bound += (k + 2) * kRoundoff * std::fabs(term);
  }
  return p;
}

void check_matmul(Dtype dtype, bool rounds_rows) {
  const int64_t k = 77, widths[] = {45, 30};
  Tensor first = draw_tensor({widths[0], k}), second = draw_tensor({widths[1], k}), bias = draw_tensor({75});
  Tensor weight = packed({&first, &second}, kFloat32, dtype, false), gated = packed({&first, &first}, kFloat32, dtype, true);
  std::vector<float> alone;
  for (const int32_t rows : {1, 2, 13, 40}) {
    state = 7;  // the same first rows each time
    Tensor x = draw_tensor({rows, k}), count = ints({rows});
    Tensor out0({rows, widths[0]}, "float32"), out1({rows, widths[1]}, "float32"), out2 = out0;
    call(matmul_bias, "matmul_bias", x, weight, bias, count, out0, out1);
    call(matmul_swiglu, "matmul_swiglu", x, gated, count, out2);
    for (int64_t r = 0; r < rows; ++r)
      for (int64_t n = 0; n < 75; ++n) {
        Product p = n < 45 ? product(x, r, first, n, dtype, rounds_rows) : product(x, r, second, n - 45, dtype, rounds_rows);
        if (n < 45) {
          const double silu = p.value / (1 + std::exp(-p.value));
          expect("a gated product", dtype, n, out2.as<float>()[r * 45 + n], silu * p.value,
                 (1.1 * std::fabs(p.value) + std::fabs(silu)) * 1.1 * p.bound + 10 * kRoundoff * std::fabs(silu * p.value));
        }
        p.value += bias.as<float>()[n];
        const float got = n < 45 ? out0.as<float>()[r * 45 + n] : out1.as<float>()[r * 30 + n - 45];
        expect("a product", dtype, n, got, p.value, p.bound + 2 * kRoundoff * std::fabs(p.value));
      }
    if (rows == 1) alone.assign(out0.as<float>(), out0.as<float>() + 45);
    if (std::memcmp(alone.data(), out0.as<float>(), 45 * 4)) fail("a row of %s differs in a batch of %d", kNames[dtype], rows);
  }
}

void check_rms_norm() {
  const int64_t rows = 5, group = 37, groups = 3;
  Tensor x = draw_tensor({rows, group * groups}), gamma = draw_tensor({group}), epsilon = scalar(1e-5f), count = ints({5}), y = x;
  call(rms_norm, "rms_norm", x, gamma, epsilon, count, y);
  for (int64_t first = 0; first < rows * groups * group; first += group) {
    double squares = 0;
    for (int64_t i = 0; i < group; ++i) squares += std::pow(x.as<float>()[first + i], 2.0);
    for (int64_t i = 0; i < group; ++i) {
      const double wanted = x.as<float>()[first + i] / std::sqrt(squares / group + 1e-5f) * gamma.as<float>()[i];
      expect("rms_norm", kFloat32, first + i, y.as<float>()[first + i], wanted, (group + 8) * kRoundoff * std::fabs(wanted));
    }
  }
}

double stored_value(Tensor& t, Dtype dtype, int64_t i) { return dtype == kFloat32 ? t.as<float>()[i] : decode(dtype, t.as<uint16_t>()[i]); }

// A prompt, a decoding sequence of 1100 positions (three partitions) and a chunk, over blocks in reversed order.
void check_attention(Dtype dtype, int64_t dim, int32_t window, bool rounds_rows) {
  const int64_t heads = 6, kv_heads = 2, block_size = 16, blocks = 100, pairs = dtype == kFloat32 ? 1 : 2;
  const std::vector<int32_t> contexts = {30, 1100, 400}, news = {30, 1, 9};
  Tensor query = draw_tensor({40, heads * dim}), out = query, table({3, 70}, "int32");
  Tensor keys({blocks, block_size, kv_heads, dim}, kNames[dtype]), values = keys;
  Tensor x = draw_tensor({blocks * block_size, kv_heads * dim}), y = draw_tensor(x.shape), done({1}, "float32");
  std::vector<int32_t> slots(blocks * block_size);
  for (size_t i = 0; i < slots.size(); ++i) slots[i] = static_cast<int32_t>(i);
  Tensor mapping = ints(slots), all = ints({static_cast<int32_t>(slots.size())});
  call(reshape_and_cache, "reshape_and_cache", x, y, keys, values, mapping, all, done);
  int32_t next = blocks;
  for (int s = 0; s < 3; ++s)
    for (int b = 0; b < 70; ++b) table.as<int32_t>()[s * 70 + b] = b * block_size < contexts[s] ? --next : -1;

  const float scale = 0.5f;
  Tensor context = ints(contexts), fresh = ints(news), factor = scalar(scale), width = ints({window}), count = ints({3});
  call(paged_attention, "paged_attention", query, keys, values, table, context, fresh, factor, width, count, out);
  int64_t row = 0;
  for (int s = 0; s < 3; ++s)
    for (int32_t i = 0; i < news[s]; ++i, ++row)
      for (int64_t h = 0; h < heads; ++h) {
        const int64_t position = contexts[s] - news[s] + i, first = window ? std::max<int64_t>(0, position + 1 - window) : 0;
        // Of a head in a block: keys [dim / 2][slot][2], values [slot / 2][dim][2]; of float32 without the pairs.
        const auto head_at = [&](int64_t p) { return (table.as<int32_t>()[s * 70 + p / block_size] * kv_heads + h / (heads / kv_heads)) * block_size * dim; };
        const auto key_at = [&](int64_t p, int64_t d) { return head_at(p) + (d / pairs * block_size + p % block_size) * pairs + d % pairs; };
        const auto value_at = [&](int64_t p, int64_t d) { return head_at(p) + (p % block_size / pairs * dim + d) * pairs + p % pairs; };
        double denominator = 0;
        std::vector<double> sum(dim);
        for (int64_t p = first; p <= position; ++p) {
          double score = 0;
          for (int64_t d = 0; d < dim; ++d) {
            const float q = query.as<float>()[(row * heads + h) * dim + d];  // scaled by a power of two, before it is rounded or after
            score += (rounds_rows ? rounded(kBfloat16, q) : q) * stored_value(keys, dtype, key_at(p, d));
          }
          const double weight = std::exp(score * scale);
          denominator += weight;
          for (int64_t d = 0; d < dim; ++d) sum[d] += weight * stored_value(values, dtype, value_at(p, d));
        }
        // |scores| <= dim * scale and |values| <= 1; weights are rounded by 2^-8 of themselves at most: see tests/unit/kernels/reference.py.
        const double bound = 2 * ((dim + 8) * dim * scale + static_cast<double>(contexts[s]) + 8) * kRoundoff + (rounds_rows ? 1.01 / 256 : 0);
        for (int64_t d = 0; d < dim; ++d)
          expect("attention", dtype, row, out.as<float>()[(row * heads + h) * dim + d], sum[d] / denominator, bound);
      }
}

// A decoding sequence of 600 positions (two partitions) and a prompt, all heads on one key, of which the first floats are the value.
void check_latent_attention(Dtype dtype) {
  const int64_t heads = 18, rank = 20, rope = 6, block_size = 16, blocks = 45;
  const std::vector<int32_t> contexts = {600, 30}, news = {1, 30};
  Tensor query = draw_tensor({31, heads * rank}), turned = draw_tensor({31, heads * rope}), out = query, table({2, 40}, "int32");
  Tensor latents({blocks, block_size, 1, rank}, kNames[dtype]), keys({blocks, block_size, 1, rope}, kNames[dtype]), done({1}, "float32");
  Tensor x = draw_tensor({blocks * block_size, rank}), y = draw_tensor({blocks * block_size, rope});
  std::vector<int32_t> slots(blocks * block_size);
  for (size_t i = 0; i < slots.size(); ++i) slots[i] = static_cast<int32_t>(i);
  Tensor mapping = ints(slots), all = ints({static_cast<int32_t>(slots.size())});
  call(cache_latents, "cache_latents", x, y, latents, keys, mapping, all, done);
  int32_t next = blocks;
  for (int s = 0; s < 2; ++s)
    for (int b = 0; b < 40; ++b) table.as<int32_t>()[s * 40 + b] = b * block_size < contexts[s] ? --next : -1;
  const float scale = 0.5f;
  Tensor context = ints(contexts), fresh = ints(news), factor = scalar(scale), count = ints({2});
  call(mla, "mla", query, turned, latents, keys, table, context, fresh, factor, count, out);
  int64_t row = 0;
  for (int s = 0; s < 2; ++s)
    for (int32_t i = 0; i < news[s]; ++i, ++row)
      for (int64_t h = 0; h < heads; ++h) {
        double denominator = 0;
        std::vector<double> sum(rank);
        for (int64_t p = 0; p <= contexts[s] - news[s] + i; ++p) {
          const int64_t slot = table.as<int32_t>()[s * 40 + p / block_size] * block_size + p % block_size;
          double score = 0;
          for (int64_t d = 0; d < rank; ++d) score += query.as<float>()[(row * heads + h) * rank + d] * stored_value(latents, dtype, slot * rank + d);
          for (int64_t d = 0; d < rope; ++d) score += turned.as<float>()[(row * heads + h) * rope + d] * stored_value(keys, dtype, slot * rope + d);
          const double weight = std::exp(score * scale);
          denominator += weight;
          for (int64_t d = 0; d < rank; ++d) sum[d] += weight * stored_value(latents, dtype, slot * rank + d);
        }
        const double bound = 2 * ((rank + rope + 8) * (rank + rope) * scale + static_cast<double>(contexts[s]) + 8) * kRoundoff;
        for (int64_t d = 0; d < rank; ++d)
          expect("latent attention", dtype, row, out.as<float>()[(row * heads + h) * rank + d], sum[d] / denominator, bound);
      }
}

// Each token's two best of six experts in two groups of three, of which the better one is taken; each a product of its own.
void check_experts(Dtype dtype, bool rounds_rows) {
  const int64_t tokens = 30, experts = 6, size = 3, chosen = 2, k = 33, n = 20;
  Tensor logits = draw_tensor({tokens, experts}), bias = draw_tensor({experts}), x = draw_tensor({tokens, k});
  Tensor groups = ints({2}), kept = ints({1}), best = ints({2}), normalized = ints({1}), scale = scalar(2.5f), count = ints({30});
  Tensor weights({tokens, chosen}, "float32"), idx({tokens, chosen}, "int32");
  call(fused_add_topk_div, "fused_add_topk_div", logits, bias, groups, kept, best, normalized, scale, count, weights, idx);
  std::vector<Tensor> matrices;
  std::vector<char> bytes;
  for (int64_t e = 0; e < experts; ++e) {
    matrices.push_back(draw_tensor({n, k}));
    const Tensor one = packed({&matrices[e]}, kFloat32, dtype, false);
    bytes.insert(bytes.end(), one.bytes.begin(), one.bytes.end());
  }
  Tensor weight(dtype == kFloat32 ? std::vector<int64_t>{experts, 1, k, 32} : std::vector<int64_t>{experts, 1, (k + 1) / 2, 32, 2}, kNames[dtype]);
  weight.bytes = bytes;
  Tensor rows({tokens * chosen, k}, "float32"), positions({tokens * chosen}, "int32"), ends({experts}, "int32");
  Tensor answers({tokens * chosen, n}, "float32"), out({tokens, n}, "float32");
  call(moe_init_routing, "moe_init_routing", x, idx, count, rows, positions, ends);
  call(grouped_matmul, "grouped_matmul", rows, weight, ends, answers);
  call(moe_token_unpermute, "moe_token_unpermute", answers, positions, weights, count, out);
  for (int64_t t = 0; t < tokens; ++t) {
    double scores[experts], group_scores[2] = {};
    for (int64_t e = 0; e < experts; ++e) scores[e] = 1 / (1 + std::exp(-static_cast<double>(logits.as<float>()[t * experts + e])));
    const auto choice = [&](int64_t e) { return scores[e] + bias.as<float>()[e]; };
    for (int64_t e = 0; e < experts; ++e) group_scores[e / size] += choice(e);
    for (int64_t g = 0; g < 2; ++g) group_scores[g] -= std::min({choice(g * size), choice(g * size + 1), choice(g * size + 2)});
    std::vector<int64_t> order;
    for (int64_t e = 0; e < experts; ++e)
      if (e / size == (group_scores[1] > group_scores[0])) order.push_back(e);
    std::sort(order.begin(), order.end(), [&](int64_t a, int64_t b) { return choice(a) > choice(b); });
    for (int64_t j = 0; j < n; ++j) {
      double value = 0, bound = 0;
      for (int64_t i = 0; i < chosen; ++i) {
        const double w = scores[order[i]] / (scores[order[0]] + scores[order[1]]) * 2.5;
        const Product p = product(x, t, matrices[order[i]], j, dtype, rounds_rows);
        value += w * p.value;
        bound += w * (p.bound + 30 * kRoundoff * std::fabs(p.value));
      }
      expect("a mixture of experts", dtype, t, out.as<float>()[t * n + j], value, bound);
    }
  }
}

}  // namespace

int main() {
  for (int i = 0; const char* isa = vms_available_isa(i); ++i) {
    vms_set_isa(isa);
    for (const int threads : {1, 3}) {
      vms_set_num_threads(threads);
      for (const Dtype dtype : {kBfloat16, kFloat16, kFloat32}) {
        check_conversions(dtype);
        const bool rounds_rows = dtype == kBfloat16 && (!std::strcmp(isa, "avx512bf16") || !std::strcmp(isa, "amx"));
        check_matmul(dtype, rounds_rows);
        for (const int64_t dim : {20, 64}) {  // copied, and read where they lie
          check_attention(dtype, dim, 0, rounds_rows);
          check_attention(dtype, dim, 100, rounds_rows);
        }
        check_latent_attention(dtype);
        check_experts(dtype, rounds_rows);
      }
      check_rms_norm();
    }
    std::printf("%s: conversions, matmul, attention, experts and rms_norm agree with plain loops\n", isa);
  }
}
