// Rows of activations as operators write them: floats, or rounded to bfloat16 for products, see MatMul.

// See Kernels::tile.
template <class T>
constexpr int64_t kTile = kTiles<T> ? kTileRows : 1;

// Rows of `width` values, one behind the other.
template <class T>
struct Rows {
  typedef T Value;
  T* first;
  int64_t width;

  T* at(int64_t row, int64_t column) const { return first + row * width + column; }
  void put(int64_t row, int64_t column, Floats v) const { VARIANT::put(at(row, column), v); }
};

#if defined(__AMX_BF16__)
// As tile registers are loaded: 32 values of 16 rows lie side by side.
struct RowsInTiles {
  typedef Rounded Value;
  Rounded* first;
  int64_t width;

  Rounded* at(int64_t row, int64_t column) const {
    const int64_t in_tile = row % kTileRows, in_step = column % kTileStep;
    return first + (row - in_tile) * width + (column - in_step) * kTileRows + in_tile * kTileStep + in_step;
  }
  void put(int64_t row, int64_t column, Floats v) const {
    if (column % kLanes == 0) return VARIANT::put(at(row, column), v);
    for (int i = 0; i < kLanes; ++i) VARIANT::put(at(row, column + i), v[i]);
  }
};
typedef RowsInTiles RoundedRows;

// Filled up with zeros to whole steps.
inline void round_to_tiles(const float* x, int64_t k, const RowsInTiles& rows, int64_t row) {
  for (int64_t first = 0; first < k; first += kTileStep) {
    const auto some = [&](int64_t i) { return (Floats)_mm512_maskz_loadu_ps(static_cast<__mmask16>((1u << most(0, least(16, k - i))) - 1), x + i); };
    put_two(rows.at(row, first), some(first), some(first + 16));
  }
}
#else
typedef Rows<Rounded> RoundedRows;
#endif

// write(rows).
template <class Write>
inline void to_rows(void* rows, int64_t width, [[maybe_unused]] bool rounded, Write&& write) {
  if constexpr (kDots<Bf16>)
    if (rounded) return write(RoundedRows{static_cast<Rounded*>(rows), width});
  write(Rows<float>{static_cast<float*>(rows), width});
}
