// Matrix products with packed weights: tiles of a few rows times panels of 32 output features.
//
// Each output is accumulated over the whole of k, in order, in one float32 register, whatever the number of rows: a row's
// result has the same bits in a batch of 1 and of 1000.

#if defined(__AVX512F__)
constexpr int kMaxTileRows = 12;
#elif defined(__AVX2__)
constexpr int kMaxTileRows = 6;
#elif defined(__aarch64__)
constexpr int kMaxTileRows = 3;
#else
constexpr int kMaxTileRows = 1;
#endif
constexpr int kPanelVectors = kPanel / kLanes;
constexpr int64_t kCachedBytes = kTiles<Bf16> ? 1 << 20 : 512 << 10;

// The rows of a tile lie in packed_rows as [k][tile rows], so that the inner loop reads them from one pointer; where there are dot products,
// rounded to bfloat16 and as pairs, [k / 2][tile rows][2].

// `ahead` is what the next panel's tiles will read, of which this tile asks for its share in the order of memory: `stride` bytes at each step of
// a whole panel, half of that at one of half a panel.
//
// Rows of sums go to `out`, `out_stride` floats apart.
template <class T, int kRows>
inline void multiply(const void* rows, const void* panel, int64_t k, const char* ahead, int64_t stride, float* out, int64_t out_stride) {
  // Beside many rows, the sums of half a panel fill the registers; a row's factor then serves as many products as there are vectors.
  constexpr int kVectors = kPanelVectors <= vectors_beside(kRows) ? kPanelVectors : kPanelVectors / 2;
  for (int first = 0; first < kPanelVectors; first += kVectors) {
    const float* a = static_cast<const float*>(rows);
    const uint32_t* w = static_cast<const uint32_t*>(panel) + first * kLanes;
    Floats sum[kRows][kVectors] = {};
    for (int64_t i = 0; i < k; i += kTogether<T>, a += kFactors<T> * kRows, w += kPanel, ahead += stride * kVectors / kPanelVectors) {
      if constexpr (kRows >= kRowsThatAsk)
#pragma GCC unroll 4
        for (int v = 0; v < kVectors; v += kVectorsPerLine) __builtin_prefetch(ahead + v * kLanes * 4, 0, 2);
#pragma GCC unroll 2
      for (int t = 0; t < kFactors<T>; ++t) {
        const char* at[kVectors];
#pragma GCC unroll 16
        for (int v = 0; v < kVectors; ++v) at[v] = reinterpret_cast<const char*>(w + v * kLanes);
        add_step<T>(a + t * kRows, 1, at, t, sum);
      }
    }
#pragma GCC unroll 16
    for (int r = 0; r < kRows; ++r)
#pragma GCC unroll 16
      for (int v = 0; v < kVectors; ++v) store(out + r * out_stride + (first + v) * kLanes, sum[r][v]);
  }
}

#include "matmul_int8.h"

template <class T>
constexpr int kMaxRows = kMaxTileRows;
#if defined(__AMX_BF16__)
template <>
constexpr int kMaxRows<Bf16> = 2 * kTileRows;
#endif

typedef void (*Multiply)(const void* rows, const void* panel, int64_t k, const char* ahead, int64_t stride, float* out, int64_t out_stride);

template <class T, int kRows = kMaxRows<T>>
inline Multiply multiply_for(int64_t rows) {
  if constexpr (kRows == 0) {
    return nullptr;
  } else {
    if (rows < kRows) return multiply_for<T, kRows - 1>(rows);
    if constexpr (T::kBytes == 1) {
      return multiply_int8<kRows>;
    } else {
      return multiply<T, kRows>;
    }
  }
}

// Bytes of one packed row.
inline int64_t packed_row_bytes(const MatMul& m) {
  if (m.dtype == Dtype::i8) return int8_row_bytes(m.k);
#if defined(__AMX_BF16__)
  if (m.dtype == Dtype::bf16) return tile_row_bytes(m.k);
#elif defined(__AVX512BF16__)
  if (m.dtype == Dtype::bf16) return even(m.k) * 2;
#endif
  return (m.dtype == Dtype::f32 ? m.k : even(m.k)) * 4;
}

// Lay a tile's rows side by side: to[i * rows + r] is word i of row r. `words(r, i)` are kLanes of them from the i-th, `word(r, i)` is one. `present`
// words lie wholly within a row: what follows may be anything.
template <class Several, class One>
inline void interleave(int64_t rows, int64_t count, int64_t present, uint32_t* to, Several&& words, One&& word) {
  static_assert(kMaxTileRows <= kLanes);
  int64_t i = 0;
  if (rows == 1) {
    for (; i + kLanes <= present; i += kLanes) store(to + i, words(0, i));
  } else {
    // A store reaches into the next columns, which come after it; the last ones are not written so.
    for (; i + 2 * kLanes <= count; i += kLanes) {
      Words columns[kLanes];
#pragma GCC unroll 16
      for (int r = 0; r < kLanes; ++r) columns[r] = r < kMaxTileRows && r < rows ? words(r, i) : Words{};
      transpose(columns);
#pragma GCC unroll 16
      for (int j = 0; j < kLanes; ++j) store(to + (i + j) * rows, columns[j]);
    }
  }
  for (; i < count; ++i)
    for (int64_t r = 0; r < rows; ++r) to[i * rows + r] = word(r, i);
}

inline const void* pack_rows(const MatMul& m, int64_t begin, int64_t end) {
  const int64_t row_bytes = packed_row_bytes(m);
  [[maybe_unused]] const Rounded* const rounded = m.x_rounded ? static_cast<const Rounded*>(m.x) : nullptr;
#if defined(__AMX_BF16__)
  if (rounded) return rounded + m.first_packed * m.x_stride;
#endif
  for (int64_t tile = begin; tile < end; ++tile) {
    const int64_t first = tile_begin(m, tile), rows = tile_begin(m, tile + 1) - first;
    const float* x = static_cast<const float*>(m.x) + first * m.x_stride;
    char* to = static_cast<char*>(m.room) + (first - m.first_packed) * row_bytes;
#if defined(__AVX512BF16__) && !defined(__AMX_BF16__)
    if (rounded) {
      const Rounded* const from = rounded + first * m.x_stride;
      interleave(
          rows, m.k / 2, m.k / 2, reinterpret_cast<uint32_t*>(to), [&](int64_t r, int64_t i) { return load<Words>(from + r * m.x_stride + 2 * i); },
          [&](int64_t r, int64_t i) { return load<uint32_t>(from + r * m.x_stride + 2 * i); });
      continue;
    }
#endif
    if (m.dtype == Dtype::i8) {
      for (int64_t r = 0; r < rows; ++r) pack_int8_row(x + r * m.x_stride, m.k, rows, r, to);
      continue;
    }
    const auto value = [&](int64_t r, int64_t i) { return i < m.k ? x[r * m.x_stride + i] : 0.0f; };
#if defined(__AMX_BF16__)
    if (m.dtype == Dtype::bf16) {
      const RowsInTiles packed = {reinterpret_cast<Rounded*>(to), row_bytes / 2};
      for (int64_t r = 0; r < rows; ++r) round_to_tiles(x + r * m.x_stride, m.k, packed, r);
      continue;
    }
#elif defined(__AVX512BF16__)
    if (m.dtype == Dtype::bf16) {
      interleave(
          rows, even(m.k) / 2, m.k / 2, reinterpret_cast<uint32_t*>(to),
          [&](int64_t r, int64_t i) {
            const float* from = x + r * m.x_stride + 2 * i;
            return (Words)_mm512_cvtne2ps_pbh(_mm512_loadu_ps(from + 16), _mm512_loadu_ps(from));
          },
          [&](int64_t r, int64_t i) {
            const __m128 two = _mm_setr_ps(value(r, 2 * i), value(r, 2 * i + 1), 0.0f, 0.0f);
            return static_cast<uint32_t>(_mm_cvtsi128_si32((__m128i)_mm_cvtneps_pbh(two)));
          });
      continue;
    }
#endif
    interleave(
        rows, m.dtype == Dtype::f32 ? m.k : even(m.k), m.k, reinterpret_cast<uint32_t*>(to), [&](int64_t r, int64_t i) { return load<Words>(x + r * m.x_stride + i); },
        [&](int64_t r, int64_t i) {
          const float one = value(r, i);
          return load<uint32_t>(&one);
        });
  }
  return m.room;
}

// silu(x) = x / (1 + e^-x)
inline __attribute__((always_inline)) Floats silu(Floats x) { return x * reciprocal_of(1.0f + exp_of(-x)); }

// 16 gate and 16 up features of each row, of which `count` are there.
template <bool kBias, class Out>
inline void gate(const float* tile, int64_t first, int64_t rows, const float* gate_bias, const float* up_bias, const Out& out, int64_t column, int64_t count) {
  for (int64_t row = first; row < first + rows; ++row, tile += kPanel) {
    typename Out::Value result[16];
    for (int i = 0; i < 16; i += kLanes) {
      Floats g = load<Floats>(tile + i), u = load<Floats>(tile + 16 + i);
      if constexpr (kBias) g += load<Floats>(gate_bias + i), u += load<Floats>(up_bias + i);
      put(result + i, silu(g) * u);
    }
    if (count == 16)
      memcpy(out.at(row, column), result, sizeof(result));
    else
      memcpy(out.at(row, column), result, count * sizeof(*result));
  }
}

template <class Out>
inline void gate_tile(const MatMul& m, int64_t panel, int64_t first, int64_t rows, const float* tile, const Out& out) {
  const int64_t width = m.width[0], column = panel * 16, count = least(16, width - column);
  if (!m.bias) return gate<false>(tile, first, rows, nullptr, nullptr, out, column, count);
  float gate_bias[16] = {}, up_bias[16] = {};
  memcpy(gate_bias, m.bias + column, count * sizeof(float));
  memcpy(up_bias, m.bias + width + column, count * sizeof(float));
  gate<true>(tile, first, rows, gate_bias, up_bias, out, column, count);
}

inline void write_tile(const MatMul& m, int64_t panel, int64_t first, int64_t rows, const float* tile) {
  if (m.gated) return to_rows(m.out[0], m.stride[0], m.out_rounded, [&](const auto& out) { gate_tile(m, panel, first, rows, tile, out); });
  int64_t start = 0;  // of the output among the features
  const int64_t column = panel * kPanel;
  for (int i = 0; i < m.num_outputs; start += m.width[i++]) {
    const int64_t from = most(column, start), to = least(column + kPanel, start + m.width[i]);
    if (from >= to) continue;
    for (int64_t r = 0; r < rows; ++r) {
      float* out = static_cast<float*>(m.out[i]) + (first + r) * m.stride[i] + (from - start);
      const float* sums = tile + r * kPanel + (from - column);
      if (m.bias) {
        for (int64_t j = 0; j < to - from; ++j) out[j] = sums[j] + m.bias[from + j];
      } else {
        memcpy(out, sums, (to - from) * sizeof(float));
      }
    }
  }
}

// Where the sums of row 0 with a panel go, if they are a part of one output as they are.
inline float* output_of(const MatMul& m, int64_t panel, int64_t* stride) {
  if (m.gated || m.bias) return nullptr;
  int64_t from = panel * kPanel;
  for (int i = 0; i < m.num_outputs; from -= m.width[i++])
    if (from < m.width[i]) {
      if (from + kPanel > m.width[i]) return nullptr;
      *stride = m.stride[i];
      return static_cast<float*>(m.out[i]) + from;
    }
  return nullptr;
}

#if defined(__AMX_BF16__)
#include "matmul_amx.h"
#endif

template <class T>
inline void matmul_of(const MatMul& m, int64_t panel_begin, int64_t panel_end, int64_t begin, int64_t end) {
  const int64_t row_bytes = packed_row_bytes(m), k = T::kBytes == 4 ? m.k : even(m.k), bytes = panel_bytes(m.dtype, m.k);
  alignas(64) float sums[kMaxRows<T> * kPanel];
  // Rounded up: a line that nobody asked for keeps the next panel waiting for memory.
  const int64_t tiles = end - begin, stride = (kPanel * (T::kBytes == 1 ? 2 : 4) + tiles - 1) / tiles, share = bytes / tiles;
  const bool near = tiles == 1 && m.rows <= kRowsThatAskNear;
  for (int64_t panel = panel_begin; panel < panel_end; ++panel) {
    const char* weight = static_cast<const char*>(m.weight) + panel * bytes;
    const char* ahead = near ? weight + kBytesAhead : static_cast<const char*>(m.weight) + least(panel + 1, m.panels - 1) * bytes;
    int64_t out_stride = kPanel;
    float* const out = output_of(m, panel, &out_stride);
    for (int64_t tile = begin; tile < end; ++tile) {
      const int64_t first = tile_begin(m, tile), rows = tile_begin(m, tile + 1) - first;
      multiply_for<T>(rows)(static_cast<const char*>(m.packed_rows) + (first - m.first_packed) * row_bytes, weight, k, ahead + (tile - begin) * share, stride,
                            out ? out + first * out_stride : sums, out_stride);
      if (!out) write_tile(m, panel, first, rows, sums);
    }
  }
}

inline void matmul(const MatMul& m, int64_t panel_begin, int64_t panel_end, int64_t begin, int64_t end) {
  switch (m.dtype) {
#if defined(__AMX_BF16__)
    case Dtype::bf16:
      for (; begin < end; begin += kTilesAtOnce) matmul_in_tiles(m, panel_begin, panel_end, begin, least(begin + kTilesAtOnce, end));
      return;
#else
    case Dtype::bf16: return matmul_of<Bf16>(m, panel_begin, panel_end, begin, end);
#endif
    case Dtype::f16: return matmul_of<F16>(m, panel_begin, panel_end, begin, end);
    case Dtype::f32: return matmul_of<F32>(m, panel_begin, panel_end, begin, end);
    case Dtype::i8: return matmul_of<I8>(m, panel_begin, panel_end, begin, end);
  }
}
