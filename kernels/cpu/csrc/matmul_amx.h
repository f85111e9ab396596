// Products of bfloat16 in tile registers: up to 32 rows times a panel, in steps of 32 inputs.
//
// A panel lies as the instructions want it. Rows are rounded and, where k is no multiple of 32, filled up with zeros.

constexpr int64_t kStepBytes = kTileStep * kPanel * 2;  // of a panel

inline int64_t tile_row_bytes(int64_t k) { return (k + kTileStep - 1) / kTileStep * kTileBytes; }

// Registers 0 to 3 are sums, of two tiles of rows with two halves of a panel; 4 and 5 rows; 6 and 7 weights.
inline void configure_product(int64_t rows) {
  const TileShape first = {least(rows, kTileRows), kTileBytes}, second = {rows - first.rows, kTileBytes}, weights = {kTileStep / 2, kTileBytes};
  tile_configure({first, first, second, second, first, second, weights, weights});
}

// With kOnce, the panel is read for these rows alone, which are read again for the next; without, rows are what passes.
template <bool kSecond, bool kOnce>
inline void add_tiles(const char* rows, int64_t row_bytes, const char* weights) {
  tile_load<4, !kOnce>(rows, row_bytes);
  tile_load<6, kOnce>(weights, kPanel * 4);
  tile_multiply<0, 4, 6>();
  tile_load<7, kOnce>(weights + kTileBytes, kPanel * 4);
  tile_multiply<1, 4, 7>();
  if constexpr (kSecond) {
    tile_load<5, !kOnce>(rows + kTileRows * row_bytes, row_bytes);
    tile_multiply<2, 5, 6>();
    tile_multiply<3, 5, 7>();
  }
}

template <bool kSecond, bool kOnce>
inline void add_all_tiles(const char* rows, const char* weights, int64_t k, const char* ahead, int64_t stride) {
  const int64_t row_bytes = tile_row_bytes(k), share = stride * kTileStep / 2;  // of what is asked for, in a step
  for (int64_t step = 0; step < k / kTileStep; ++step, rows += kTileBytes, weights += kStepBytes, ahead += share) {
    for (int64_t i = 0; i < share; i += 64) __builtin_prefetch(ahead + i, 0, 2);
    add_tiles<kSecond, kOnce>(rows, row_bytes, weights);
  }
  if (k % kTileStep) {
    alignas(64) char rest[kStepBytes] = {};
    memcpy(rest, weights, k % kTileStep * kPanel * 2);
    add_tiles<kSecond, kOnce>(rows, row_bytes, rest);
  }
}

template <int kRows>
inline void multiply_tiles(const void* packed, const void* panel, int64_t k, const char* ahead, int64_t stride, float* out, int64_t out_stride) {
  constexpr bool kSecond = kRows > kTileRows;
  const char *rows = static_cast<const char*>(packed), *weights = static_cast<const char*>(panel);
  tile_zero<0>();
  tile_zero<1>();
  if constexpr (kSecond) {
    tile_zero<2>();
    tile_zero<3>();
  }
  if (stride == kPanel * 4) add_all_tiles<kSecond, true>(rows, weights, k, ahead, stride);  // one tile asks for all
  else add_all_tiles<kSecond, false>(rows, weights, k, ahead, stride);
  tile_store<0>(out, out_stride * 4);
  tile_store<1>(out + kPanel / 2, out_stride * 4);
  if constexpr (kSecond) {
    out += kTileRows * out_stride;
    tile_store<2>(out, out_stride * 4);
    tile_store<3>(out + kPanel / 2, out_stride * 4);
  }
}

inline void round_to_tiles(const float* x, int64_t k, char* to) {
  for (int64_t first = 0; first < k; first += kTileStep, to += kTileBytes) {
    const auto some = [&](int64_t i) { return _mm512_maskz_loadu_ps(static_cast<__mmask16>((1u << most(0, least(16, k - i))) - 1), x + i); };
    _mm512_store_si512(to, (__m512i)_mm512_cvtne2ps_pbh(some(first + 16), some(first)));
  }
}
