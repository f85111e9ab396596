// The mode in which operators compute, whatever the calling thread is in: other libraries let their threads take numbers below the
// normal ones for zero, and then a result would depend on which thread computed it.
#pragma once

#include <cstdint>

#if defined(__x86_64__)
#include <immintrin.h>
#endif

// Of this thread: what the register holds, and the bits that flush to zero.
struct FloatMode {
#if defined(__x86_64__)
  static constexpr uint64_t kFlush = 0x8040;  // results, and what is read
  static uint64_t get() { return _mm_getcsr(); }
  static void set(uint64_t mode) { _mm_setcsr(static_cast<unsigned>(mode)); }
#elif defined(__aarch64__)
  static constexpr uint64_t kFlush = 1u << 24 | 1u << 19;  // FZ, FZ16
  static uint64_t get() {
    uint64_t mode;
    __asm__ volatile("mrs %0, fpcr" : "=r"(mode));
    return mode;
  }
  static void set(uint64_t mode) { __asm__ volatile("msr fpcr, %0" : : "r"(mode) : "memory"); }
#else
  static constexpr uint64_t kFlush = 0;
  static uint64_t get() { return 0; }
  static void set(uint64_t) {}
#endif
};

class ExactFloats {
 public:
  ExactFloats() : before_(FloatMode::get()) {
    if (before_ & FloatMode::kFlush) FloatMode::set(before_ & ~FloatMode::kFlush);
  }
  ~ExactFloats() {
    if (before_ & FloatMode::kFlush) FloatMode::set(before_);
  }
  ExactFloats(const ExactFloats&) = delete;

 private:
  const uint64_t before_;
};
