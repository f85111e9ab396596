// Vectors of kLanes floats for the instruction set that this translation unit is compiled for.
//
// Written with the compiler's vector extensions, so that one text serves x86 and Arm; intrinsics stand only where
// an instruction set has something that plain arithmetic does not reach. Included by the files of variants/ inside a namespace
// of their own. It uses no inline function of the standard library: the linker could keep an AVX512 copy of it for all.
#include <stdint.h>
#include <string.h>

#if defined(__AVX512F__)
constexpr int kLanes = 16;
#elif defined(__AVX2__)
constexpr int kLanes = 8;
#else
constexpr int kLanes = 4;
#endif

typedef float Floats __attribute__((vector_size(kLanes * 4)));
typedef uint32_t Words __attribute__((vector_size(kLanes * 4)));
typedef int32_t Ints __attribute__((vector_size(kLanes * 4)));
typedef uint16_t Halves __attribute__((vector_size(kLanes * 2)));

template <class V>
inline V load(const void* p) {
  V v;
  memcpy(&v, p, sizeof(V));
  return v;
}

template <class V>
inline void store(void* p, V v) {
  memcpy(p, &v, sizeof(V));
}

inline Floats splat(float x) { return Floats{} + x; }
inline Floats max_of(Floats a, Floats b) { return a > b ? a : b; }
inline int64_t least(int64_t a, int64_t b) { return a < b ? a : b; }
inline int64_t most(int64_t a, int64_t b) { return a > b ? a : b; }

inline float sum_of(Floats v) {
  // A tree, the same for every row.
  for (int step = kLanes / 2; step; step /= 2)
    for (int i = 0; i < step; ++i) v[i] += v[i + step];
  return v[0];
}

inline float largest_of(Floats v) {
  for (int step = kLanes / 2; step; step /= 2)
    for (int i = 0; i < step; ++i) v[i] = v[i] > v[i + step] ? v[i] : v[i + step];
  return v[0];
}

// e^x to about 2 ulp; exactly 1 at 0, exactly 0 below -87.3. Range reduction by ln 2 in two parts and the polynomial of
// Moshier's Cephes library (expf).
inline Floats exp_of(Floats x) {
  const Floats low = splat(-87.3f), high = splat(88.0f), magic = splat(12582912.0f);  // 1.5 * 2^23 rounds to an integer
  Floats clamped = x < low ? low : x;
  clamped = clamped > high ? high : clamped;
  const Floats shifted = clamped * 1.44269504088896341f + magic;
  const Floats n = shifted - magic;
  const Floats r = clamped - n * 0.693359375f + n * 2.12194440e-4f;
  Floats p = splat(1.9875691500e-4f);
  p = p * r + 1.3981999507e-3f;
  p = p * r + 8.3334519073e-3f;
  p = p * r + 4.1665795894e-2f;
  p = p * r + 1.6666665459e-1f;
  p = p * r + 5.0000001201e-1f;
  p = p * (r * r) + r + 1.0f;
  const Ints exponent = ((Ints)shifted - (Ints)magic) << 23;
  const Floats y = (Floats)((Ints)p + exponent);
  return x < low ? Floats{} : y;
}

inline Words widen(Halves h) { return __builtin_convertvector(h, Words); }
inline Halves narrow(Words w) { return __builtin_convertvector(w, Halves); }

#if defined(__F16C__)
#include "simd_x86_half.h"
#elif defined(__aarch64__)
#include "simd_arm_half.h"
#else
inline Floats floats_of_f16(Halves h) {
  const Words w = widen(h);
  const Words magnitude = (w & 0x7fffu) << 13;
  const Floats scaled = (Floats)magnitude * 5.192296858534828e33f;  // 2^112 moves the exponent's bias; right for subnormals too
  const Words special = (Words)((w & 0x7c00u) == 0x7c00u) & 0x7f800000u;
  return (Floats)((Words)scaled | special | ((w & 0x8000u) << 16));
}

inline Halves f16_of_floats(Floats f) {
  const Words w = (Words)f, sign = (w >> 16) & 0x8000u, magnitude = w & 0x7fffffffu;
  // Adding 2^112 * ulp-sized constants rounds to nearest even: subnormal halves by float addition, normal ones by integers.
  const Words subnormal = (Words)((Floats)magnitude + 0.5f) - 0x3f000000u;
  const Words normal = (magnitude + 0xc8000fffu + ((magnitude >> 13) & 1u)) >> 13;
  Words half = magnitude < 0x38800000u ? subnormal : normal;
  half = magnitude >= 0x477ff000u ? Words{} + 0x7c00u : half;
  half = magnitude > 0x7f800000u ? Words{} + 0x7e00u : half;
  return narrow(half | sign);
}
#endif

struct Bf16 {
  typedef uint16_t Storage;
  static constexpr bool kDot = true;  // has dot-product instructions on some instruction sets
  static constexpr int kBytes = 2;
  static Floats load_floats(const void* p) { return (Floats)(widen(load<Halves>(p)) << 16); }
  static void store_floats(void* p, Floats f) {
    const Words w = (Words)f;
    const Words rounded = (w + 0x7fffu + ((w >> 16) & 1u)) >> 16;
    const Words nan = (w >> 16) | 0x40u;
    store(p, narrow((w & 0x7fffffffu) > 0x7f800000u ? nan : rounded));
  }
  static void unpack_pair(Words pair, Floats& even, Floats& odd) {
    even = (Floats)(pair << 16);
    odd = (Floats)(pair & 0xffff0000u);
  }
};

struct F16 {
  typedef uint16_t Storage;
  static constexpr bool kDot = false;
  static constexpr int kBytes = 2;
  static Floats load_floats(const void* p) { return floats_of_f16(load<Halves>(p)); }
  static void store_floats(void* p, Floats f) { store(p, f16_of_floats(f)); }
  static void unpack_pair(Words pair, Floats& even, Floats& odd) {
    even = floats_of_f16(narrow(pair & 0xffffu));
    odd = floats_of_f16(narrow(pair >> 16));
  }
};

struct F32 {
  typedef float Storage;
  static constexpr bool kDot = false;
  static constexpr int kBytes = 4;
  static Floats load_floats(const void* p) { return load<Floats>(p); }
  static void store_floats(void* p, Floats f) { store(p, f); }
};

// `count` floats of type T, zero-filled to `padded`, a multiple of kLanes; reads nothing past the last.
template <class T>
inline void widen_row(const typename T::Storage* from, int64_t count, float* to, int64_t padded) {
  int64_t i = 0;
  for (; i + kLanes <= count; i += kLanes) store(to + i, T::load_floats(from + i));
  if (i < padded) {
    typename T::Storage rest[kLanes] = {};
    for (int64_t j = i; j < count; ++j) rest[j - i] = from[j];
    store(to + i, T::load_floats(rest));
    for (i += kLanes; i < padded; i += kLanes) store(to + i, Floats{});
  }
}

template <class T>
inline void narrow_row(const float* from, int64_t count, typename T::Storage* to) {
  int64_t i = 0;
  for (; i + kLanes <= count; i += kLanes) T::store_floats(to + i, load<Floats>(from + i));
  if (i < count) {
    float rest[kLanes] = {};
    typename T::Storage narrowed[kLanes];
    for (int64_t j = i; j < count; ++j) rest[j - i] = from[j];
    T::store_floats(narrowed, load<Floats>(rest));
    for (int64_t j = i; j < count; ++j) to[j] = narrowed[j - i];
  }
}
