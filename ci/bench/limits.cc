// The two limits of this machine for THREADS threads: bytes that they read from memory in a second, and floating point operations
// of the widest dot product that the kernels use. Prints "GB/s GFLOP/s unit".
#include <sys/mman.h>

#include <algorithm>
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
#if defined(__AMX_BF16__)
#include <sys/syscall.h>
#include <unistd.h>
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

// Some machines read faster when they are told what comes, some when they are let be.
void read_all(const Words* words, int64_t lines_ahead) {
  Words sum[4] = {};
  for (int64_t i = 0; i < kBytes / 64; i += 4)
    for (int j = 0; j < 4; ++j) {
      if (lines_ahead) __builtin_prefetch(words + i + j + lines_ahead, 0, 2);
      sum[j] ^= words[i + j];
    }
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

// Operations in a second.
double multiply_rate(int threads) { return static_cast<double>(kFlops) * kSums * kSteps * threads / best(threads, [](int) { multiply_all(); }); }

#if defined(__AMX_BF16__)
constexpr int kTileFlops = 2 * 16 * 16 * 32, kTiles = 4;

// Linux gives tile registers to who asks for them.
bool has_tiles() { return !syscall(SYS_arch_prctl, 0x1023, 18); }  // ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA

void multiply_tiles() {
  struct {
    uint8_t palette = 1, start = 0, reserved[14] = {};
    uint16_t row_bytes[16] = {64, 64, 64, 64, 64, 64, 64, 64};
    uint8_t rows[16] = {16, 16, 16, 16, 16, 16, 16, 16};
  } config;
  asm volatile("ldtilecfg %0" : : "m"(config));
  // Numbers of either sign around 0.03, not zeros: what is multiplied may decide about the clock.
  uint16_t numbers[512];
  uint32_t random = 1;
  for (uint16_t& number : numbers) random = random * 1664525 + 1013904223, number = static_cast<uint16_t>(0x3d00 | ((random >> 16) & 0x80ff));
  const int64_t stride = 64;
  asm volatile("tileloadd (%0,%1,1), %%tmm4\n tileloadd (%0,%1,1), %%tmm5\n tileloadd (%0,%1,1), %%tmm6\n tileloadd (%0,%1,1), %%tmm7"
               : : "r"(numbers), "r"(stride) : "memory");
  for (int64_t step = 0; step < kSteps; ++step)
    asm volatile(
        "tdpbf16ps %tmm6, %tmm4, %tmm0\n tdpbf16ps %tmm7, %tmm4, %tmm1\n tdpbf16ps %tmm6, %tmm5, %tmm2\n tdpbf16ps %tmm7, %tmm5, %tmm3");
  asm volatile("tilerelease");
}
#endif

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
  double reading = 1e9;
  for (const int64_t lines_ahead : {0, 16})
    reading = std::min(reading, best(threads, [&](int thread) { read_all(static_cast<Words*>(memory[thread]), lines_ahead); }));
  double rate = multiply_rate(threads);
  const char* unit = kUnit;
#if defined(__AMX_BF16__)
  if (has_tiles()) {
    rate = static_cast<double>(kTileFlops) * kTiles * kSteps * threads / best(threads, [](int) { multiply_tiles(); });
    unit = "bfloat16 products in tile registers";
  }
#endif
  std::printf("%.2f %.1f %s\n", 1e-9 * kBytes * threads / reading, 1e-9 * rate, unit);
}
