// The mode in which operators compute, whatever the calling thread is in: other libraries let their threads take numbers below the
// normal ones for zero, and then a result would depend on which thread computed it.
#pragma once

#include <cstdint>

#if defined(__x86_64__)
#include <immintrin.h>
#endif

class ExactFloats {
#if defined(__x86_64__)
 public:
  ExactFloats() : before_(_mm_getcsr()) {
    if (before_ & kFlush) _mm_setcsr(before_ & ~kFlush);
  }
  ~ExactFloats() {
    if (before_ & kFlush) _mm_setcsr(before_);
  }
  ExactFloats(const ExactFloats&) = delete;

 private:
  static constexpr unsigned kFlush = 0x8040;  // flush to zero, denormals are zero
  const unsigned before_;
#elif defined(__aarch64__)
 public:
  ExactFloats() {
    __asm__ volatile("mrs %0, fpcr" : "=r"(before_));
    if (before_ & kFlush) set(before_ & ~kFlush);
  }
  ~ExactFloats() {
    if (before_ & kFlush) set(before_);
  }
  ExactFloats(const ExactFloats&) = delete;

 private:
  static constexpr uint64_t kFlush = 1u << 24 | 1u << 19;  // FZ, FZ16
  static void set(uint64_t mode) { __asm__ volatile("msr fpcr, %0" : : "r"(mode) : "memory"); }
  uint64_t before_;
#else
 public:
  ExactFloats() {}
  ~ExactFloats() {}
#endif
};
