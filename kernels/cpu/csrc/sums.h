// Sums of products in registers, which matrix products and attention are made of: rows of factors times vectors of stored values.

// What is added up at once: rows times vectors, as registers allow.
#if defined(__AVX512F__) || defined(__aarch64__)
constexpr int kSumsAtOnce = 24;
#else
constexpr int kSumsAtOnce = 12;
#endif

constexpr int kVectorsPerLine = 16 / kLanes;

// Beside few rows, their factors are in registers as well; beside many, the vectors.
constexpr int kFewRows = 3;
// From how many rows on memory is asked for ahead. By themselves machines read too little ahead to compute meanwhile. Beside few rows, which wait for memory
// alone, most read 6 to 20 % faster when they are let be, but those with tile registers a third slower.
//
// A tile that is alone, of up to kRowsThatAskNear rows, asks a little ahead of what it reads, as that comes in the order of memory where a whole panel is
// read in one pass. Others ask for the next panel.
#if defined(__AMX_BF16__)
constexpr int kRowsThatAsk = 1, kRowsThatAskNear = kFewRows;
constexpr int64_t kBytesAhead = 3072;
#else
constexpr int kRowsThatAsk = kFewRows + 1, kRowsThatAskNear = kSumsAtOnce * kLanes / kPanel;
constexpr int64_t kBytesAhead = 6144;
#endif
// The most vectors that so many rows leave registers for.
constexpr int vectors_beside(int rows) { return (rows <= kFewRows ? kSumsAtOnce - rows : kSumsAtOnce) / rows; }

// The factors of a sum: floats, or pairs of bfloat16 in the room of one where there are dot products.
template <class T>
constexpr int kFactors = kDots<T> ? 1 : kTogether<T>;

// Values that a factor is multiplied with; all of a step where there are dot products.
template <class T>
inline Floats part(const char* words, int i) {
  if constexpr (kDots<T>) return load<Floats>(words);
  return T::of_words(load<Words>(words), i);
}

template <class T>
inline Floats add_product(Floats sum, Floats factor, Floats vector) {
  if constexpr (kDots<T>) return add_dots(sum, factor, vector);
  return sum + factor * vector;
}

// sum[r][v] += the factor of row r, `width` floats behind that of the row before, times value t of the words at at[v].
template <class T, int kRows, int kVectors>
inline __attribute__((always_inline)) void add_step(const float* factors, int64_t width, const char* const (&at)[kVectors], int t,
                                                    Floats (&sum)[kRows][kVectors]) {
  if constexpr (kRows <= kFewRows) {
    Floats factor[kRows];
#pragma GCC unroll 16
    for (int r = 0; r < kRows; ++r) factor[r] = splat(factors[r * width]);
#pragma GCC unroll 16
    for (int v = 0; v < kVectors; ++v) {
      const Floats vector = part<T>(at[v], t);
#pragma GCC unroll 16
      for (int r = 0; r < kRows; ++r) sum[r][v] = add_product<T>(sum[r][v], factor[r], vector);
    }
  } else {
    Floats vector[kVectors];
#pragma GCC unroll 16
    for (int v = 0; v < kVectors; ++v) vector[v] = part<T>(at[v], t);
#pragma GCC unroll 16
    for (int r = 0; r < kRows; ++r) {
      const Floats factor = splat(factors[r * width]);
#pragma GCC unroll 16
      for (int v = 0; v < kVectors; ++v) sum[r][v] = add_product<T>(sum[r][v], factor, vector[v]);
    }
  }
}
