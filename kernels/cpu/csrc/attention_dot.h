// How attention reads and multiplies bfloat16 keys and values with dot-product instructions, which take pairs. The scaled query and the
// softmax weights are rounded to bfloat16; scores, sums and the softmax's denominator stay float32.
//
// A chunk's keys lie as pairs of neighbouring head dimensions, [words, kKeysPerChunk]; its values as pairs of neighbouring keys,
// [kKeysPerChunk / 2, head].

// Pairs of a head, filled up with zeros to whole vectors; no more of them than a padded head has floats.
inline int64_t head_words(int64_t head) { return (head / 2 + 15) / 16 * 16; }

inline __mmask32 dims_left(int64_t count) { return count >= 32 ? 0xffffffffu : count <= 0 ? 0u : (1u << count) - 1; }

inline void round_query(const float* from, int64_t count, float scale, int64_t words, float* query) {
  const __m512 factor = _mm512_set1_ps(scale);
  for (int64_t d = 0; d < 2 * words; d += 32) {
    const __m512 low = _mm512_maskz_loadu_ps(static_cast<__mmask16>(dims_left(count - d)), from + d);
    const __m512 high = _mm512_maskz_loadu_ps(static_cast<__mmask16>(dims_left(count - d - 16)), from + d + 16);
    _mm512_storeu_si512(query + d / 2, (__m512i)_mm512_cvtne2ps_pbh(_mm512_mul_ps(high, factor), _mm512_mul_ps(low, factor)));
  }
}

inline void read_pairs(const Attention& op, const AttentionItem& item, int64_t first, int64_t count, const AttentionScratch& s) {
  const int64_t head = padded_head(op.head_dim), words = head_words(head);
  const int32_t* table = op.block_tables + item.seq * op.blocks_per_seq;
  const uint16_t *keys = static_cast<const uint16_t*>(op.key_cache), *values = static_cast<const uint16_t*>(op.value_cache);
  const uint32_t size = static_cast<uint32_t>(op.block_size);
  const auto row_of = [&](int64_t at) {
    const uint32_t position = static_cast<uint32_t>(at);
    return ((table[position / size] * op.block_size + position % size) * op.kv_heads + item.kv_head) * op.head_dim;
  };
  int64_t rows[kKeysPerChunk];
  for (int64_t i = 0; i < count; ++i) rows[i] = row_of(first + i);
  // The rows lie scattered: no prefetcher of the machine sees a pattern in them. Into the second-level cache, as the first is full of this chunk.
  const int64_t next = first + kKeysPerChunk, end = least(next + kKeysPerChunk, op.context_lens[item.seq]);
  for (int64_t at = next; at < end; ++at) {
    const int64_t row = row_of(at);
    for (int64_t d = 0; d < op.head_dim; d += 32) {
      __builtin_prefetch(keys + row + d, 0, 2);
      __builtin_prefetch(values + row + d, 0, 2);
    }
  }
  for (int64_t group = 0; group < count; group += 16)
    for (int64_t w = 0; w < words; w += 16) {
      const __mmask32 mask = dims_left(op.head_dim - 2 * w);
      Floats block[16];
#pragma GCC unroll 16
      for (int i = 0; i < 16; ++i)
        block[i] = group + i < count ? (Floats)_mm512_maskz_loadu_epi16(mask, keys + rows[group + i] + 2 * w) : Floats{};
      transpose(block);
#pragma GCC unroll 16
      for (int i = 0; i < 16; ++i) store(s.keys + (w + i) * kKeysPerChunk + group, block[i]);
    }
  const __m512i low = _mm512_set_epi16(47, 15, 46, 14, 45, 13, 44, 12, 43, 11, 42, 10, 41, 9, 40, 8, 39, 7, 38, 6, 37, 5, 36, 4, 35, 3, 34, 2, 33, 1, 32, 0);
  const __m512i high = _mm512_add_epi16(low, _mm512_set1_epi16(16));
  for (int64_t i = 0; i < count; i += 2)
    for (int64_t d = 0; d < head; d += 32) {
      const __mmask32 mask = dims_left(op.head_dim - d);
      const __m512i even = _mm512_maskz_loadu_epi16(mask, values + rows[i] + d);
      const __m512i odd = i + 1 < count ? _mm512_maskz_loadu_epi16(mask, values + rows[i + 1] + d) : _mm512_setzero_si512();
      float* to = s.values + i / 2 * head + d;
      _mm512_storeu_si512(to, _mm512_permutex2var_epi16(even, low, odd));
      if (d + 16 < head) _mm512_storeu_si512(to + 16, _mm512_permutex2var_epi16(even, high, odd));
    }
}

inline __m512bh pair_of(const float* pair) {
  int bits;
  memcpy(&bits, pair, sizeof(bits));
  return (__m512bh)_mm512_set1_epi32(bits);
}

// Scores of `kRows` query rows, [words] each, with the chunk's keys.
template <int kRows>
inline void score_pairs(const float* query, const float* keys, int64_t words, float* scores) {
  __m512 sum[kRows][4];
#pragma GCC unroll 32
  for (int i = 0; i < 4 * kRows; ++i) sum[i / 4][i % 4] = _mm512_setzero_ps();
  for (int64_t w = 0; w < words; ++w)
#pragma GCC unroll 4
    for (int v = 0; v < 4; ++v) {
      const __m512bh key = (__m512bh)_mm512_loadu_si512(keys + w * kKeysPerChunk + v * 16);
#pragma GCC unroll 16
      for (int r = 0; r < kRows; ++r) sum[r][v] = _mm512_dpbf16_ps(sum[r][v], key, pair_of(query + r * words + w));
    }
#pragma GCC unroll 32
  for (int i = 0; i < 4 * kRows; ++i) _mm512_storeu_ps(scores + i / 4 * kKeysPerChunk + i % 4 * 16, sum[i / 4][i % 4]);
}

// A row's weights as pairs, in the first half of their place.
inline void round_weights(float* weights) {
  for (int i = 0; i < kKeysPerChunk; i += 32) {
    const __m512 low = _mm512_loadu_ps(weights + i), high = _mm512_loadu_ps(weights + i + 16);
    _mm512_storeu_si512(weights + i / 2, (__m512i)_mm512_cvtne2ps_pbh(high, low));
  }
}

// Add the weighted values of `kVectors` * 16 dimensions to the sums of `kRows` rows.
template <int kRows, int kVectors>
inline void weigh_columns(const float* weights, const float* values, int64_t pairs, int64_t head, float* sums) {
  __m512 sum[kRows][kVectors];
#pragma GCC unroll 32
  for (int i = 0; i < kRows * kVectors; ++i) sum[i / kVectors][i % kVectors] = _mm512_loadu_ps(sums + i / kVectors * head + i % kVectors * 16);
  for (int64_t i = 0; i < pairs; ++i)
#pragma GCC unroll 4
    for (int v = 0; v < kVectors; ++v) {
      const __m512bh value = (__m512bh)_mm512_loadu_si512(values + i * head + v * 16);
#pragma GCC unroll 16
      for (int r = 0; r < kRows; ++r) sum[r][v] = _mm512_dpbf16_ps(sum[r][v], value, pair_of(weights + r * kKeysPerChunk + i));
    }
#pragma GCC unroll 32
  for (int i = 0; i < kRows * kVectors; ++i) _mm512_storeu_ps(sums + i / kVectors * head + i % kVectors * 16, sum[i / kVectors][i % kVectors]);
}

template <int kRows>
inline void weigh_pairs(const float* weights, const float* values, int64_t count, int64_t head, float* sums) {
  const int64_t pairs = (count + 1) / 2;
  int64_t d = 0;
  for (; d + 64 <= head; d += 64) weigh_columns<kRows, 4>(weights, values + d, pairs, head, sums + d);
  for (; d < head; d += 16) weigh_columns<kRows, 1>(weights, values + d, pairs, head, sums + d);
}

template <int kRows = kRowsAtOnce>
inline void score_in_pairs(int64_t rows, const float* query, const float* keys, int64_t words, float* scores) {
  if constexpr (kRows > 1)
    if (rows < kRows) return score_in_pairs<kRows - 1>(rows, query, keys, words, scores);
  score_pairs<kRows>(query, keys, words, scores);
}

template <int kRows = kRowsAtOnce>
inline void weigh_in_pairs(int64_t rows, const float* weights, const float* values, int64_t count, int64_t head, float* sums) {
  if constexpr (kRows > 1)
    if (rows < kRows) return weigh_in_pairs<kRows - 1>(rows, weights, values, count, head, sums);
  weigh_pairs<kRows>(weights, values, count, head, sums);
}

template <>
struct Chunk<Bf16> {
  static int64_t query_width(int64_t head) { return head_words(head); }
  static void take_query(const float* from, const Attention& op, int64_t head, float* query) {
    round_query(from, op.head_dim, op.scale, head_words(head), query);
  }
  static void read(const Attention& op, const AttentionItem& item, int64_t first, int64_t count, const AttentionScratch& s) {
    read_pairs(op, item, first, count, s);
  }
  static void score(int64_t rows, const float* query, const float* keys, int64_t head, float* scores) {
    score_in_pairs(rows, query, keys, head_words(head), scores);
  }
  static void take_weights(float* weights) { round_weights(weights); }
  static void weigh(int64_t rows, const float* weights, const float* values, int64_t count, int64_t head, float* sums) {
    weigh_in_pairs(rows, weights, values, count, head, sums);
  }
};
