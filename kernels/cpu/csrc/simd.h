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

inline Floats splat(float x) { return x - Floats{}; }  // nothing to compute: x - 0 is x, of -0 as well
inline Floats max_of(Floats a, Floats b) { return a > b ? a : b; }
inline Floats min_of(Floats a, Floats b) { return a < b ? a : b; }
inline int64_t least(int64_t a, int64_t b) { return a < b ? a : b; }
inline int64_t most(int64_t a, int64_t b) { return a > b ? a : b; }

// Spelled out: of a loop that fills it the compiler makes instructions, for each of the lanes.
#if defined(__AVX512F__)
constexpr Ints kLane = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};
#elif defined(__AVX2__)
constexpr Ints kLane = {0, 1, 2, 3, 4, 5, 6, 7};
#else
constexpr Ints kLane = {0, 1, 2, 3};
#endif

// The second half of the first 2 * step lanes, in front.
inline Floats fold(Floats v, int step) { return __builtin_shuffle(v, (kLane + step) & (kLanes - 1)); }

inline float sum_of(Floats v) {
  // A tree, the same for every row.
#pragma GCC unroll 4
  for (int step = kLanes / 2; step; step /= 2) v += fold(v, step);
  return v[0];
}

inline float largest_of(Floats v) {
#pragma GCC unroll 4
  for (int step = kLanes / 2; step; step /= 2) v = max_of(v, fold(v, step));
  return v[0];
}

// Lane r is what `both` makes of all lanes of rows[r], in the order of sum_of and largest_of.
template <int kHalf = kLanes / 2, class Both>
inline Floats across(Floats (&rows)[kLanes], Both&& both) {
  if constexpr (kHalf == 0) {
    return rows[0];
  } else {
    // Of two vectors, the first and the second halves of each 2 * kHalf lanes.
    constexpr Ints low = kLane / kHalf % 2 * kLanes + kLane / (2 * kHalf) * (2 * kHalf) + kLane % kHalf, high = low + kHalf;
#pragma GCC unroll 8
    for (int i = 0; i < kHalf; ++i) rows[i] = both(__builtin_shuffle(rows[i], rows[i + kHalf], low), __builtin_shuffle(rows[i], rows[i + kHalf], high));
    return across<kHalf / 2>(rows, both);
  }
}
inline Floats sum_of_each(Floats (&rows)[kLanes]) { return across(rows, [](Floats a, Floats b) { return a + b; }); }
inline Floats largest_of_each(Floats (&rows)[kLanes]) { return across(rows, [](Floats a, Floats b) { return max_of(a, b); }); }

// rows[r][i] becomes rows[i][r]: at each step, squares of twice the size.
inline void transpose(Words (&rows)[kLanes]) {
#pragma GCC unroll 4
  for (int step = 1; step < kLanes; step *= 2) {
    Words first = {}, second = {};
#pragma GCC unroll 16
    for (int i = 0; i < kLanes; ++i) first[i] = i & step ? kLanes + i - step : i, second[i] = i & step ? kLanes + i : i + step;
#pragma GCC unroll 16
    for (int i = 0; i < kLanes; ++i)
      if (!(i & step)) {
        const Words a = rows[i], b = rows[i + step];
        rows[i] = __builtin_shuffle(a, b, first);
        rows[i + step] = __builtin_shuffle(a, b, second);
      }
  }
}

// 1 / x to about 1 ulp.
inline Floats reciprocal_of(Floats x) {
#if defined(__AVX512F__)
  const Floats near = (Floats)_mm512_maskz_rcp14_ps(0xffff, (__m512)x);  // a division takes as long as all else of a sigmoid
  return near * (2.0f - x * near);
#else
  return 1.0f / x;
#endif
}

// e^x to less than 3 ulp, of x up to 88; exactly 1 at 0, exactly 0 below -87.3.
#if defined(__AVX512F__)
// Of 2^(i / 32) the bits, less i << 18: that is added with the exponent.
constexpr Ints kPowers[2] = {{0x3f800000, 0x3f7ecd87, 0x3f7daac3, 0x3f7c980f, 0x3f7b95c2, 0x3f7aa43a, 0x3f79c3d3, 0x3f78f4f0,
                              0x3f7837f0, 0x3f778d3a, 0x3f76f532, 0x3f767043, 0x3f75fed7, 0x3f75a15b, 0x3f75583f, 0x3f7523f6},
                             {0x3f7504f3, 0x3f74fbaf, 0x3f7508a4, 0x3f752c4d, 0x3f75672a, 0x3f75b9be, 0x3f76248c, 0x3f76a81e,
                              0x3f7744fd, 0x3f77fbb8, 0x3f78ccdf, 0x3f79b907, 0x3f7ac0c7, 0x3f7be4ba, 0x3f7d257d, 0x3f7e83b3}};

// 2^(n / 32) from two registers that are looked up in, times a polynomial in what remains, which is the best that is 1 at 0.
inline __attribute__((always_inline)) Floats exp_below_88(Floats x) {
  const Floats low = splat(-87.3f), magic = splat(393216.0f);  // 1.5 * 2^18 rounds to multiples of 1/32
  const Floats shifted = x * 1.44269504088896341f + magic;
  const Floats n = shifted - magic;
  const Floats r = x * 1.925963033e-8f + (x * 1.44269504088896341f - n);  // log2 e in two parts
  const Ints power = __builtin_shuffle(kPowers[0], kPowers[1], (Ints)shifted) + ((Ints)shifted << 18);
  const Floats y = (Floats)power * ((0.2402265f * r + 0.6931573f) * r + 1.0f);
  return x < low ? Floats{} : y;
}
#else
// Range reduction by ln 2 in two parts and the polynomial of Moshier's Cephes library (expf).
inline __attribute__((always_inline)) Floats exp_below_88(Floats x) {
  const Floats low = splat(-87.3f), magic = splat(12582912.0f);  // 1.5 * 2^23 rounds to an integer
  const Floats shifted = x * 1.44269504088896341f + magic;
  const Floats n = shifted - magic;
  const Floats r = x - n * 0.693359375f + n * 2.12194440e-4f;
  Floats p = splat(1.9875691500e-4f);
  p = p * r + 1.3981999507e-3f;
  p = p * r + 8.3334519073e-3f;
  p = p * r + 4.1665795894e-2f;
  p = p * r + 1.6666665459e-1f;
  p = p * r + 5.0000001201e-1f;
  p = p * (r * r) + r + 1.0f;
  const Ints exponent = (Ints)shifted << 23;  // nothing is left of the magic number
  const Floats y = (Floats)((Words)p + (Words)exponent);
  return x < low ? Floats{} : y;
}
#endif

// The same of any x, e^88 above it.
inline __attribute__((always_inline)) Floats exp_of(Floats x) { return exp_below_88(min_of(splat(88.0f), x)); }

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
  // The first (i = 0) or second values of pairs.
  static Floats of_words(Words pairs, int i) { return (Floats)(i ? pairs & 0xffff0000u : pairs << 16); }
};

struct F16 {
  typedef uint16_t Storage;
  static constexpr bool kDot = false;
  static constexpr int kBytes = 2;
  static Floats load_floats(const void* p) { return floats_of_f16(load<Halves>(p)); }
  static void store_floats(void* p, Floats f) { store(p, f16_of_floats(f)); }
  static Floats of_words(Words pairs, int i) { return floats_of_f16(narrow(i ? pairs >> 16 : pairs & 0xffffu)); }
};

struct F32 {
  typedef float Storage;
  static constexpr bool kDot = false;
  static constexpr int kBytes = 4;
  static Floats load_floats(const void* p) { return load<Floats>(p); }
  static void store_floats(void* p, Floats f) { store(p, f); }
  static Floats of_words(Words floats, int) { return (Floats)floats; }
};

// Values of a column that share a word of 4 bytes.
template <class T>
constexpr int kTogether = 4 / T::kBytes;

#if defined(__AVX512BF16__)
template <class T>
constexpr bool kDots = T::kDot;

// Sums of products of pairs of bfloat16.
inline Floats add_dots(Floats sum, Floats a, Floats b) { return (Floats)_mm512_dpbf16_ps((__m512)sum, (__m512bh)a, (__m512bh)b); }

// Round `count` scaled floats to bfloat16, the last pair filled up with zero. May be done in place.
inline void round_row(const float* from, int64_t count, float scale, float* to) {
  for (int64_t i = 0; i < count; i += 16) {
    const __mmask16 mask = static_cast<__mmask16>(count - i >= 16 ? 0xffffu : (1u << (count - i)) - 1);
    const __m256i pairs = (__m256i)_mm512_cvtneps_pbh(_mm512_mul_ps(_mm512_maskz_loadu_ps(mask, from + i), _mm512_set1_ps(scale)));
    _mm256_mask_storeu_epi32(to + i / 2, static_cast<__mmask8>(count - i >= 16 ? 0xffu : (1u << ((count - i + 1) / 2)) - 1), pairs);
  }
}
#else
template <class T>
constexpr bool kDots = false;

inline Floats add_dots(Floats sum, Floats, Floats) { return sum; }
inline void round_row(const float*, int64_t, float, float*) {}
#endif

// A value that products round in any case.
struct Rounded {
  uint16_t bits;
};

inline void put(float* to, Floats v) { store(to, v); }
inline void put(float* to, float v) { *to = v; }
inline void put_two(float* to, Floats first, Floats second) { store(to, first), store(to + kLanes, second); }
#if defined(__AVX512BF16__)
inline void put(Rounded* to, Floats v) { store(to, (Halves)_mm512_cvtneps_pbh((__m512)v)); }
inline void put_two(Rounded* to, Floats first, Floats second) { store(to, (Words)_mm512_cvtne2ps_pbh((__m512)second, (__m512)first)); }
inline void put(Rounded* to, float v) { to->bits = static_cast<uint16_t>(_mm_cvtsi128_si32((__m128i)_mm_cvtneps_pbh(_mm_set_ss(v)))); }
#else
inline void put(Rounded* to, Floats v) { Bf16::store_floats(to, v); }
inline void put_two(Rounded* to, Floats first, Floats second) { put(to, first), put(to + kLanes, second); }
#endif

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
