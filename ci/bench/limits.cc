// The two limits of this machine for THREADS threads: bytes that they read from memory in a second, and floating point operations
// of the widest dot product that the kernels use. Prints "GB/s GFLOP/s unit".
#include <sys/mman.h>

#include <chrono>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <functional>
#include <thread>
#include <vector>
#if defined(__AVX512BF16__)
#include <immintrin.h>
#endif

namespace {

constexpr int64_t kBytes = 256 << 20;  // of each thread: far more than any cache holds
constexpr int kRepeats = 16;           // the best counts, as a limit is what the machine can do

typedef uint64_t Words __attribute__((vector_size(64), aligned(64)));

// Calls `body(thread)` on all threads at once; the fastest of kRepeats, in seconds.
double best(int threads, const std::function<void(int)>& body) {
  double fastest = 1e9;
  for (int repeat = 0; repeat < kRepeats; ++repeat) {
    std::vector<std::thread> team;
    const auto started = std::chrono::steady_clock::now();
    for (int i = 0; i < threads; ++i) team.emplace_back(body, i);
    for (std::thread& thread : team) thread.join();
    const double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - started).count();
    if (seconds < fastest) fastest = seconds;
  }
  return fastest;
}

template <class T>
void keep(T& value) {
  asm volatile("" : "+m"(value));
}

void read_all(const Words* words) {
  Words sum[4] = {};
  for (int64_t i = 0; i < kBytes / 64; i += 4)
    for (int j = 0; j < 4; ++j) sum[j] ^= words[i + j];
  for (Words& part : sum) keep(part);
}

#if defined(__AVX512BF16__)
const char* const kUnit = "bfloat16 dot products";
constexpr int kFlops = 2 * 32;
typedef __m512 Sum;
Sum next(Sum sum, Sum a, Sum b) { return _mm512_dpbf16_ps(sum, (__m512bh)a, (__m512bh)b); }
#else
const char* const kUnit = "float32 multiply-adds";
#if defined(__AVX512F__)
constexpr int kLanes = 16;
#elif defined(__AVX__)
constexpr int kLanes = 8;
#else
constexpr int kLanes = 4;
#endif
constexpr int kFlops = 2 * kLanes;
typedef float Sum __attribute__((vector_size(4 * kLanes)));
Sum next(Sum sum, Sum a, Sum b) { return sum * a + b; }
#endif

constexpr int64_t kSteps = 4 << 20;
constexpr int kSums = 12;  // more than the latency of a product times how many begin in a cycle

void multiply_all() {
  Sum sums[kSums] = {}, zero[2] = {};
  keep(zero[0]), keep(zero[1]);
  const Sum a = zero[0], b = zero[1];
  for (int64_t step = 0; step < kSteps; ++step)
#pragma GCC unroll 16
    for (int i = 0; i < kSums; ++i) sums[i] = next(sums[i], a, b);
  for (Sum& sum : sums) keep(sum);
}

}  // namespace

int main(int argc, char** argv) {
  const int threads = argc > 1 ? std::atoi(argv[1]) : 1;
  std::vector<void*> memory;
  for (int i = 0; i < threads; ++i) {
    void* bytes = mmap(nullptr, kBytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (bytes == MAP_FAILED) return 1;
    madvise(bytes, kBytes, MADV_HUGEPAGE);
    for (int64_t j = 0; j < kBytes / 8; ++j) static_cast<uint64_t*>(bytes)[j] = j;
    memory.push_back(bytes);
  }
  const double reading = best(threads, [&](int thread) { read_all(static_cast<Words*>(memory[thread])); });
  const double multiplying = best(threads, [](int) { multiply_all(); });
  std::printf("%.2f %.1f %s\n", 1e-9 * kBytes * threads / reading, 1e-9 * kFlops * kSums * kSteps * threads / multiplying, kUnit);
}
