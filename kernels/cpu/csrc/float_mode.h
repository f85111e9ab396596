// The mode in which operators compute, whatever the calling thread is in: other libraries let their threads take numbers below the
// normal ones for zero, and then a result would depend on which thread computed it.
#pragma once

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
#else
 public:
  ExactFloats() {}
  ~ExactFloats() {}
#endif
};
