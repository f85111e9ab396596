// Scores and weighted values of attention in tile registers: 16 query rows at a time, with the keys of a chunk and with its values.
//
// Registers 0 to 3 are sums, of 16 keys or of 16 dimensions each; 4 and 5 rows and what they are multiplied with, in steps of 32; 6 and 7 the same in
// steps of 16, for heads and blocks that are no multiple of 32. Which steps a row's sum is made of depends on those sizes alone.

inline void configure_attention(int64_t rows) {
  const TileShape sums = {least(rows, kTileRows), kTileBytes}, half_rows = {sums.rows, kTileBytes / 2};
  tile_configure({sums, sums, sums, sums, sums, {kTileStep / 2, kTileBytes}, half_rows, {kTileStep / 4, kTileBytes}});
}

// Sums 0 to kSums - 1 += 32 (or, with kHalf, 16) factors of each row times the pairs of values at at[sum]. meanwhile() is called for each.
template <bool kHalf, int kSums, int kSum = 0, class Meanwhile>
inline void add_tile_step(const char* factors, int64_t factor_bytes, const char* const (&at)[4], int64_t stride, Meanwhile&& meanwhile) {
  constexpr int kFactors = kHalf ? 6 : 4, kValues = kHalf ? 7 : 5;
  if constexpr (kSum == 0) tile_load<kFactors>(factors, factor_bytes);
  meanwhile();
  tile_load<kValues>(at[kSum], stride);
  tile_multiply<kSum, kFactors, kValues>();
  if constexpr (kSum + 1 < kSums) add_tile_step<kHalf, kSums, kSum + 1>(factors, factor_bytes, at, stride, meanwhile);
}

// Scores of up to 16 query rows, `row_bytes` each, with the chunk's keys.
template <class Meanwhile>
inline void score_tile(const char* query, int64_t row_bytes, const Chunk& chunk, Meanwhile&& meanwhile, float* scores) {
  tile_zero<0>();
  tile_zero<1>();
  tile_zero<2>();
  tile_zero<3>();
  for (int64_t at = 0; at < row_bytes; at += kTileBytes) {
    const bool half = at + kTileBytes > row_bytes;
    const char* keys[4];
    for (int v = 0; v < 4; ++v) keys[v] = chunk.keys[v] + at * kSlotsTogether;
    if (half) add_tile_step<true, 4>(query + at, row_bytes, keys, kTileBytes, meanwhile);
    else add_tile_step<false, 4>(query + at, row_bytes, keys, kTileBytes, meanwhile);
  }
  tile_store<0>(scores, kKeysPerChunk * 4);
  tile_store<1>(scores + kTileRows, kKeysPerChunk * 4);
  tile_store<2>(scores + 2 * kTileRows, kKeysPerChunk * 4);
  tile_store<3>(scores + 3 * kTileRows, kKeysPerChunk * 4);
}

// Add weighted values of kSums times 16 dimensions from the d-th to the sums of up to 16 rows.
template <int kSums, class Meanwhile>
inline void weigh_tile(const float* weights, const Chunk& chunk, Meanwhile&& meanwhile, int64_t head, int64_t d, float* sums) {
  float* to = sums + d;
  tile_load<0>(to, head * 4);
  if constexpr (kSums > 1) tile_load<1>(to + 16, head * 4);
  if constexpr (kSums > 2) tile_load<2>(to + 32, head * 4);
  if constexpr (kSums > 3) tile_load<3>(to + 48, head * 4);
  const char* factors = reinterpret_cast<const char*>(weights);
  for (int run = 0; run < chunk.num_runs; ++run) {
    const char* values = chunk.runs[run].values + d * 4;
    for (int64_t left = chunk.runs[run].steps; left > 0;) {
      const int64_t steps = left >= kTileStep / 2 ? kTileStep / 2 : kTileStep / 4;
      const char* const at[4] = {values, values + kTileBytes, values + 2 * kTileBytes, values + 3 * kTileBytes};
      if (steps == kTileStep / 2) add_tile_step<false, kSums>(factors, kKeysPerChunk * 4, at, head * 4, meanwhile);
      else add_tile_step<true, kSums>(factors, kKeysPerChunk * 4, at, head * 4, meanwhile);
      left -= steps, factors += steps * 4, values += steps * head * 4;
    }
  }
  tile_store<0>(to, head * 4);
  if constexpr (kSums > 1) tile_store<1>(to + 16, head * 4);
  if constexpr (kSums > 2) tile_store<2>(to + 32, head * 4);
  if constexpr (kSums > 3) tile_store<3>(to + 48, head * 4);
}

template <int kSums = 4, class Meanwhile>
inline void weigh_tiles(const float* weights, const Chunk& chunk, Meanwhile&& meanwhile, int64_t head, float* sums, int64_t d = 0) {
  for (; d + kSums * 16 <= head; d += kSums * 16) weigh_tile<kSums>(weights, chunk, meanwhile, head, d, sums);
  if constexpr (kSums > 1)
    if (d < head) weigh_tiles<kSums - 1>(weights, chunk, meanwhile, head, sums, d);
}

// Values of a run that are read together: of one block, so that it does not depend on where blocks lie.
inline int64_t slots_of_run(const Attention& op) { return op.block_size % kTileStep == 0 ? kTileStep : kSlotsTogether; }

// What lies behind the last key is anything: a run that is not whole is read from a copy that ends in zeros.
inline void complete_last_run(const Attention& op, Chunk& chunk) {
  Run& run = chunk.runs[chunk.num_runs - 1];
  const int64_t row = op.head_dim * 4, whole = chunk.rest / 2;
  char* to = reinterpret_cast<char*>(chunk.value_copies);
  memcpy(to, run.values, whole * row);
  memset(to + whole * row, 0, (slots_of_run(op) / 2 - whole) * row);
  if (chunk.rest % 2)
    for (int64_t at = whole * row; at < (whole + 1) * row; at += kTileBytes) store(to + at, load<Words>(run.values + at) & 0xffffu);
  run = {to, slots_of_run(op) / 2};
}
