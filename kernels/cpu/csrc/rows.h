// Rows of activations as operators write them: floats, or rounded to bfloat16 for products, see MatMul.

#if defined(__AMX_BF16__)
constexpr int64_t kRoundedRows = kTileRows;
#else
constexpr int64_t kRoundedRows = kDots<Bf16>;
#endif

// Rows of `width` values, one behind the other.
template <class Out>
struct Rows {
  Out* first;
  int64_t width;

  Out* at(int64_t row, int64_t column) const { return first + row * width + column; }
  int64_t step() const { return width; }           // values between rows that are together
  static int64_t together(int64_t) { return 1 << 30; }  // how many are, from a row on
  void put(int64_t row, int64_t column, Floats v) const { VARIANT::put(at(row, column), v); }
};

#if defined(__AMX_BF16__)
// As tile registers are loaded: 32 values of 16 rows lie side by side.
struct RowsInTiles {
  Rounded* first;
  int64_t width;

  Rounded* at(int64_t row, int64_t column) const {
    const int64_t in_group = row % kTileRows, in_step = column % kTileStep;
    return first + (row - in_group) * width + (column - in_step) * kTileRows + in_group * kTileStep + in_step;
  }
  static int64_t step() { return kTileStep; }
  static int64_t together(int64_t row) { return kTileRows - row % kTileRows; }
  void put(int64_t row, int64_t column, Floats v) const {
    if (column % kLanes == 0) return VARIANT::put(at(row, column), v);
    for (int i = 0; i < kLanes; ++i) VARIANT::put(at(row, column + i), v[i]);
  }
};
typedef RowsInTiles RoundedRows;
#else
typedef Rows<Rounded> RoundedRows;
#endif

// write(rows).
template <class Write>
inline void to_rows(void* rows, int64_t width, [[maybe_unused]] bool rounded, Write&& write) {
  if constexpr (kRoundedRows > 0)
    if (rounded) return write(RoundedRows{static_cast<Rounded*>(rows), width});
  write(Rows<float>{static_cast<float*>(rows), width});
}
