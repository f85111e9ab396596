// Products with int8 weights, which have a scale for each output feature.
//
// Rows are rounded to int16, in pieces of at most 512 inputs with a scale each. 128 * 32767 * 512 is below 2^31, so that a piece is
// summed in int32 without any rounding, and multiplied by the scales afterwards.

struct I8 {
  static constexpr int kBytes = 1;
};

constexpr int64_t kPiece = 512;

inline int64_t pieces_of(int64_t k) { return (even(k) + kPiece - 1) / kPiece; }
// Pieces are of nearly the same length and begin at an even input.
inline int64_t piece_begin(int64_t k, int64_t piece) { return even(k) / 2 * piece / pieces_of(k) * 2; }

// A tile of packed rows: [k / 2][tile rows][2] int16, then [pieces][tile rows] scales.
inline int64_t int8_row_bytes(int64_t k) { return even(k) * 2 + pieces_of(k) * 4; }

inline void pack_int8_row(const float* x, int64_t k, int64_t rows, int64_t row, char* tile) {
  uint32_t* pairs = reinterpret_cast<uint32_t*>(tile) + row;
  float* scales = reinterpret_cast<float*>(tile + rows * even(k) * 2) + row;
  const Floats magic = splat(12582912.0f);  // 1.5 * 2^23 rounds to an integer
  for (int64_t piece = 0; piece < pieces_of(k); ++piece) {
    const int64_t begin = piece_begin(k, piece), end = piece_begin(k, piece + 1), there = least(end, k);
    const auto values = [&](int64_t i) {
      if (i + kLanes <= there) return load<Floats>(x + i);
      Floats v = {};
      for (int64_t j = i; j < there; ++j) v[j - i] = x[j];
      return v;
    };
    // Compared as integers, of which one that is no number is the largest: it must not be lost.
    Ints most_of = {};
    for (int64_t i = begin; i < there; i += kLanes) {
      const Ints magnitude = (Ints)((Words)values(i) & 0x7fffffffu);
      most_of = magnitude > most_of ? magnitude : most_of;
    }
    int32_t bits = 0;
    for (int i = 0; i < kLanes; ++i) bits = most_of[i] > bits ? most_of[i] : bits;
    const float largest = load<float>(&bits), inverse = largest > 1e-30f ? 32767.0f / largest : 0.0f;
    scales[piece * rows] = largest <= 1e-30f ? 0.0f : largest / 32767.0f;
    for (int64_t i = begin; i < end; i += kLanes) {
      uint32_t rounded[kLanes];
      store(rounded, (Ints)(values(i) * inverse + magic) - (Ints)magic);
      const int64_t count = least(kLanes, end - i);
      for (int64_t j = 0; j < count; j += 2) pairs[(i + j) / 2 * rows] = (rounded[j] & 0xffff) | rounded[j + 1] << 16;
    }
  }
}

#if defined(__AVX512BW__)
typedef __m512i Pairs;  // of weights, as int16
inline Pairs widen_pairs(const int8_t* w) { return _mm512_cvtepi8_epi16(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(w))); }
inline Ints add_products(Ints sum, Pairs w, int32_t pair) {
#if defined(__AVX512VNNI__)
  return (Ints)_mm512_dpwssd_epi32((__m512i)sum, w, _mm512_set1_epi32(pair));
#else
  return sum + (Ints)_mm512_madd_epi16(w, _mm512_set1_epi32(pair));
#endif
}
#elif defined(__AVX2__)
typedef __m256i Pairs;
inline Pairs widen_pairs(const int8_t* w) { return _mm256_cvtepi8_epi16(_mm_loadu_si128(reinterpret_cast<const __m128i*>(w))); }
inline Ints add_products(Ints sum, Pairs w, int32_t pair) { return sum + (Ints)_mm256_madd_epi16(w, _mm256_set1_epi32(pair)); }
#else
struct Pairs {
  Ints first, second;
};
inline Pairs widen_pairs(const int8_t* w) {
  typedef int16_t Shorts __attribute__((vector_size(kLanes * 2)));
  const Ints both = __builtin_convertvector(load<Shorts>(w), Ints);
  return {both << 24 >> 24, both >> 8};
}
inline Ints add_products(Ints sum, const Pairs& w, int32_t pair) { return sum + w.first * static_cast<int16_t>(pair) + w.second * (pair >> 16); }
#endif

constexpr int kAbreast = kLanes == 16 ? 2 : 1;  // vectors of weights that are held while all rows pass

template <int kRows>
inline void multiply_int8(const void* rows, const void* panel, int64_t k, const char* ahead, int64_t stride, float* out, int64_t out_stride) {
  const int32_t* pairs = static_cast<const int32_t*>(rows);
  const float *row_scales = reinterpret_cast<const float*>(pairs + k / 2 * kRows), *scales = static_cast<const float*>(panel);
  const int8_t* w = static_cast<const int8_t*>(panel) + kScaleBytes;
  const int64_t pieces = pieces_of(k);
  for (int r = 0; r < kRows; ++r) memset(out + r * out_stride, 0, kPanel * sizeof(float));
  for (int64_t piece = 0; piece < pieces; ++piece, row_scales += kRows) {
    Ints sum[kRows][kPanelVectors] = {};
    const int64_t end = piece_begin(k, piece + 1);
    for (int64_t i = piece_begin(k, piece); i < end; i += 2, pairs += kRows, w += 2 * kPanel, ahead += stride) {
      if constexpr (kRows >= kRowsThatAsk) __builtin_prefetch(ahead, 0, 2);
#pragma GCC unroll 16
      for (int v = 0; v < kPanelVectors; v += kAbreast) {
        Pairs weights[kAbreast];
        for (int a = 0; a < kAbreast; ++a) weights[a] = widen_pairs(w + (v + a) * 2 * kLanes);
#pragma GCC unroll 16
        for (int r = 0; r < kRows; ++r)
          for (int a = 0; a < kAbreast; ++a) sum[r][v + a] = add_products(sum[r][v + a], weights[a], pairs[r]);
      }
    }
#pragma GCC unroll 16
    for (int r = 0; r < kRows; ++r)
#pragma GCC unroll 16
      for (int v = 0; v < kPanelVectors; ++v) {
        float* to = out + r * out_stride + v * kLanes;
        store(to, load<Floats>(to) + __builtin_convertvector(sum[r][v], Floats) * row_scales[r]);
      }
  }
  for (int r = 0; r < kRows; ++r)
    for (int i = 0; i < kPanel; i += kLanes) store(out + r * out_stride + i, load<Floats>(out + r * out_stride + i) * load<Floats>(scales + i));
}
