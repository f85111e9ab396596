// Products of bfloat16 in tile registers: up to 32 rows times a panel, in steps of 32 inputs.
//
// Panels and rows lie as the instructions want them. Rows are rounded and, where k is no multiple of 32, filled up with zeros. Sums that wait in memory between
// pieces of a panel have the same bits as those that stayed in registers.

constexpr int64_t kStepBytes = kTileStep * kPanel * 2;  // of a panel
constexpr int64_t kStepsAtOnce = 18;                    // of a panel: they stay in the first-level cache while tiles of rows pass
constexpr int64_t kTilesAtOnce = 16;
constexpr int64_t kTileBytesAhead = 1024;  // of what waits for memory alone

// Registers 0 to 3 are sums, of two tiles of rows with two halves of a panel; 4 and 5 rows; 6 and 7 weights.
inline void configure_product(int64_t rows) {
  const TileShape first = {least(rows, kTileRows), kTileBytes}, second = {rows - first.rows, kTileBytes}, weights = {kTileStep / 2, kTileBytes};
  tile_configure({first, first, second, second, first, second, weights, weights});
}

// With kOnce, the panel is read for these rows alone, which are read again for the next; without, rows are what passes.
template <bool kSecond, bool kOnce>
inline void add_step(const char* rows, int64_t row_bytes, const char* weights) {
  tile_load<4, !kOnce>(rows, kTileBytes);
  tile_load<6, kOnce>(weights, kTileBytes);
  tile_multiply<0, 4, 6>();
  tile_load<7, kOnce>(weights + kStepBytes / 2, kTileBytes);
  tile_multiply<1, 4, 7>();
  if constexpr (kSecond) {
    tile_load<5, !kOnce>(rows + kTileRows * row_bytes, kTileBytes);
    tile_multiply<2, 5, 6>();
    tile_multiply<3, 5, 7>();
  }
}

// A tile's sums that write_tile has yet to take, some rows at a time beside the products of the next tile: those leave the vector units idle.
struct Unwritten {
  const MatMul* m;
  int64_t panel, first, rows;
  float* sums;

  void write(int64_t most_rows) {
    const int64_t some = least(most_rows, rows);
    if (!some) return;
    write_tile(*m, panel, first, some, sums);
    first += some, rows -= some, sums += some * kPanel;
  }
};

// What a tile of rows is multiplied with, and where the sums go.
struct Piece {
  const char *rows, *weights;
  int64_t row_bytes, k;
  bool begins;         // or sums go on
  const char* ahead;   // is asked for, `share` bytes in a step
  int64_t share;
  float* sums;
  int64_t sums_stride;
};

template <bool kSecond, bool kOnce>
inline void multiply_piece(const Piece& p, Unwritten& before) {
  constexpr int64_t kRowsBeside = 4;
  const int64_t stride = p.sums_stride * 4;
  float *const first = p.sums, *const second = first + kTileRows * p.sums_stride;
  if (p.begins) {
    tile_zero<0>();
    tile_zero<1>();
    if constexpr (kSecond) {
      tile_zero<2>();
      tile_zero<3>();
    }
  } else {
    tile_load<0>(first, stride);
    tile_load<1>(first + kPanel / 2, stride);
    if constexpr (kSecond) {
      tile_load<2>(second, stride);
      tile_load<3>(second + kPanel / 2, stride);
    }
  }
  const char *rows = p.rows, *weights = p.weights, *ahead = p.ahead;
  for (int64_t step = 0; step < p.k / kTileStep; ++step, rows += kTileRows * kTileBytes, weights += kStepBytes, ahead += p.share) {
    for (int64_t i = 0; i < p.share; i += 64) __builtin_prefetch(ahead + i, 0, 2);
    add_step<kSecond, kOnce>(rows, p.row_bytes, weights);
    if (before.rows && step % 2) before.write(kRowsBeside);
  }
  if (p.k % kTileStep) {
    alignas(64) char rest[kStepBytes] = {};
    const int64_t half = p.k % kTileStep * kPanel;
    memcpy(rest, weights, half);
    memcpy(rest + kStepBytes / 2, weights + half, half);
    add_step<kSecond, kOnce>(rows, p.row_bytes, rest);
  }
  tile_store<0>(first, stride);
  tile_store<1>(first + kPanel / 2, stride);
  if constexpr (kSecond) {
    tile_store<2>(second, stride);
    tile_store<3>(second + kPanel / 2, stride);
  }
  before.write(before.rows);
}

// At most kTilesAtOnce tiles of rows.
inline void matmul_in_tiles(const MatMul& m, int64_t panel_begin, int64_t panel_end, int64_t begin, int64_t end) {
  const int64_t k = even(m.k), row_bytes = tile_row_bytes(k), tiles = end - begin, steps = row_bytes / kTileBytes, bytes = panel_bytes(m.dtype, m.k);
  const bool once = tiles == 1;
  const int64_t pieces = once ? 1 : (steps + kStepsAtOnce - 1) / kStepsAtOnce, piece = (steps + pieces - 1) / pieces * kTileStep;
  const char* const packed = static_cast<const char*>(m.packed_rows) - m.first_packed * row_bytes;
  int64_t firsts[kTilesAtOnce + 1];
  for (int64_t t = 0; t <= tiles; ++t) firsts[t] = tile_begin(m, begin + t);
  // What waits for memory alone asks for weights a little ahead. Otherwise tiles of rows share what they ask for, which is the next piece.
  Piece p;
  p.row_bytes = row_bytes;
  p.share = kStepBytes / tiles;
  const int64_t distance = once ? kTileBytesAhead : piece * kPanel * 2, further = once ? 0 : distance / tiles;
  // Sums of one piece wait only until the next are there; others for the next piece.
  alignas(64) float waiting[kTilesAtOnce + 1][2 * kTileRows * kPanel];
  const int64_t slots = pieces == 1 ? 2 : tiles + 1;
  Unwritten before = {};
  int64_t configured = 0, slot = 0;
  for (int64_t panel = panel_begin; panel < panel_end; ++panel) {
    float* const out = output_of(m, panel, &(p.sums_stride = kPanel));
    for (int64_t from = 0; from < k; from += piece) {
      p.weights = static_cast<const char*>(m.weight) + panel * bytes + from * kPanel * 2;
      p.k = least(piece, k - from);
      p.begins = from == 0;
      p.ahead = p.weights + distance;
      for (int64_t t = 0; t < tiles; ++t, p.ahead += further) {
        const int64_t first = firsts[t], rows = firsts[t + 1] - first;
        if (rows != configured) configure_product(configured = rows);
        p.rows = packed + first * row_bytes + from * 2 * kTileRows;
        p.sums = out ? out + first * p.sums_stride : waiting[(slot + t) % slots];
        if (rows > kTileRows) once ? multiply_piece<true, true>(p, before) : multiply_piece<true, false>(p, before);
        else once ? multiply_piece<false, true>(p, before) : multiply_piece<false, false>(p, before);
        if (!out && from + piece >= k) before = {&m, panel, first, rows, p.sums};
      }
    }
    slot = (slot + tiles) % slots;
  }
  before.write(before.rows);
  tile_release();
}
