// Attention over a paged cache with an online softmax, for prefill, chunked prefill and decode alike.
//
// An item is a few query rows of one sequence with all query heads that share one KV head. Keys are taken in chunks of
// kKeysPerChunk counted from position 0 and sums are closed at every kKeysPerPartition, so a row's result has the same bits however
// its prompt was cut into steps, whatever runs beside it, and whether or not its partitions were computed by different threads.

constexpr int kRowsAtOnce = 6;
constexpr int kChunkVectors = kKeysPerChunk / kLanes;
constexpr float kNoKeyYet = -1e30f;  // finite, so that e^(maximum - maximum) is 1 before the first key

inline int64_t padded_head(int64_t head_dim) { return (head_dim + 15) / 16 * 16; }

constexpr int chunk_vectors(int rows) { return vectors_beside(rows) < kChunkVectors ? vectors_beside(rows) : kChunkVectors; }

struct Softmax {  // the running sums of one row
  float maximum, denominator;
};
struct Softmaxes {  // of several rows, with room for whole vectors of them
  float *maximum, *denominator;

  Softmax of(int64_t r) const { return {maximum[r], denominator[r]}; }
};

struct AttentionScratch {
  float *query;      // [rows, head], scaled
  float *keys;       // [kKeysPerChunk / kSlotsTogether, head, kSlotsTogether], of a chunk that cannot be read where it lies
  float *values;     // [kKeysPerChunk, head], of such a chunk, or a last pair with one key
  float *scores;     // [rows, kKeysPerChunk]
  float *sums;       // [rows, head], numerators of this partition
  float *totals;     // [rows, head], of all partitions so far
  Softmaxes part;    // of this partition
  Softmax* total;    // [rows]
};

inline int64_t lay_out(int64_t rows, int64_t head, void* memory, AttentionScratch* s) {
  float* next = static_cast<float*>(memory);
  const int64_t sizes[] = {rows * head, head * kKeysPerChunk, kKeysPerChunk * head, rows * kKeysPerChunk, rows * head, rows * head, rows, rows};
  float** places[] = {&s->query, &s->keys, &s->values, &s->scores, &s->sums, &s->totals, &s->part.maximum, &s->part.denominator};
  int64_t used = 0;
  for (int i = 0; i < 8; ++i) {
    *places[i] = next + used;
    used += sizes[i];
  }
  s->total = reinterpret_cast<Softmax*>(next + used);
  return (used + 2 * rows) * static_cast<int64_t>(sizeof(float));
}

// Whole tiles of them.
inline int64_t room_for_rows(int64_t rows) { return (rows + 15) / 16 * 16; }

inline int64_t attention_scratch(const Attention& op, int64_t rows) {
  AttentionScratch unused;
  return lay_out(room_for_rows(rows * (op.heads / op.kv_heads)), padded_head(op.head_dim), nullptr, &unused);
}

// Steps of a sum: kTogether<T> rows of a matrix of T that lie side by side, a word of 4 bytes for each column.
template <class T>
inline int64_t steps_of(int64_t count) { return (count + kTogether<T> - 1) / kTogether<T>; }


// sum[r][v] += factors of row r times vector v, over `steps` steps. Vectors lie at at[v], a step `stride` bytes behind the one before; what
// lies so at ahead[v] is asked for meanwhile, if there is any: asked for at once, it would keep the core from computing.
template <class T, int kRows, int kVectors>
inline __attribute__((always_inline)) void add_products(const float* factors, int64_t width, const char* const* at, const char* const* ahead, int64_t stride,
                                                        int64_t steps, Floats (&sum)[kRows][kVectors]) {
  for (int64_t i = 0; i < steps; ++i, factors += kFactors<T>) {
    if (ahead)
#pragma GCC unroll 16
      for (int v = 0; v < kVectors; v += kVectorsPerLine) __builtin_prefetch(ahead[v] + i * stride, 0, 2);  // the first-level cache is full of this chunk
#pragma GCC unroll 2
    for (int t = 0; t < kFactors<T>; ++t) {
      const char* here[kVectors];
#pragma GCC unroll 16
      for (int v = 0; v < kVectors; ++v) here[v] = at[v] + i * stride;
      add_step<T>(factors + t, width, here, t, sum);
    }
  }
}

struct Run {  // steps of values that lie one behind the other
  const char* values;
  int64_t steps;
};
constexpr int kMaxRuns = kKeysPerChunk / kSlotsTogether + 1;

// Where a chunk's keys and values are.
struct Chunk {
  const char* keys[kChunkVectors];  // first step of each vector
  int64_t stride;                   // bytes between two steps
  Run runs[kMaxRuns];
  int num_runs;
  int64_t rest;                     // where tiles are multiplied: keys of a last run that is not whole
};

#if defined(__AMX_BF16__)
#include "attention_amx.h"
#endif

template <class T, int kRows, int kVectors = chunk_vectors(kRows)>
inline void score_rows(const float* query, int64_t width, const Chunk& chunk, const Chunk* next, int64_t steps, float* scores, int first = 0) {
  for (; first + kVectors <= kChunkVectors; first += kVectors) {
    Floats sum[kRows][kVectors] = {};
    add_products<T>(query, width, chunk.keys + first, next ? next->keys + first : nullptr, chunk.stride, steps, sum);
#pragma GCC unroll 16
    for (int r = 0; r < kRows; ++r)
#pragma GCC unroll 16
      for (int v = 0; v < kVectors; ++v) store(scores + r * kKeysPerChunk + (first + v) * kLanes, sum[r][v]);
  }
  if constexpr (kChunkVectors % kVectors) score_rows<T, kRows, kChunkVectors % kVectors>(query, width, chunk, next, steps, scores, first);
}

template <class T, int kRows, int kVectors>
inline void weigh_columns(const float* weights, const Chunk& chunk, const Chunk* next, int64_t head, int64_t d, float* sums) {
  Floats sum[kRows][kVectors];
#pragma GCC unroll 16
  for (int r = 0; r < kRows; ++r)
#pragma GCC unroll 16
    for (int v = 0; v < kVectors; ++v) sum[r][v] = load<Floats>(sums + r * head + d + v * kLanes);
  for (int run = 0; run < chunk.num_runs; ++run) {
    const bool has_next = next && run < next->num_runs;
    const char *at[kVectors], *ahead[kVectors];
#pragma GCC unroll 16
    for (int v = 0; v < kVectors; ++v) {
      at[v] = chunk.runs[run].values + (d + v * kLanes) * 4;
      ahead[v] = has_next ? next->runs[run].values + (d + v * kLanes) * 4 : at[v];
    }
    add_products<T>(weights, kKeysPerChunk, at, has_next ? ahead : nullptr, head * 4, chunk.runs[run].steps, sum);
    weights += chunk.runs[run].steps * kFactors<T>;
  }
#pragma GCC unroll 16
  for (int r = 0; r < kRows; ++r)
#pragma GCC unroll 16
    for (int v = 0; v < kVectors; ++v) store(sums + r * head + d + v * kLanes, sum[r][v]);
}

template <class T, int kRows, int kVectors = chunk_vectors(kRows)>
inline void weigh_rows(const float* weights, const Chunk& chunk, const Chunk* next, int64_t head, float* sums, int64_t d = 0) {
  for (; d + kVectors * kLanes <= head; d += kVectors * kLanes) weigh_columns<T, kRows, kVectors>(weights, chunk, next, head, d, sums);
  if constexpr (kVectors > 1)
    if (d < head) weigh_rows<T, kRows, kVectors - 1>(weights, chunk, next, head, sums, d);
}

// Scores of at most kRowsAtOnce query rows, [width] each, with the chunk's keys.
template <class T, int kRows = kRowsAtOnce>
inline void score(int64_t rows, const float* query, int64_t width, const Chunk& chunk, const Chunk* next, int64_t steps, float* scores) {
  if constexpr (kRows > 1)
    if (rows < kRows) return score<T, kRows - 1>(rows, query, width, chunk, next, steps, scores);
  score_rows<T, kRows>(query, width, chunk, next, steps, scores);
}

// Add the chunk's values, weighted, to the rows' sums.
template <class T, int kRows = kRowsAtOnce>
inline void weigh(int64_t rows, const float* weights, const Chunk& chunk, const Chunk* next, int64_t head, float* sums) {
  if constexpr (kRows > 1)
    if (rows < kRows) return weigh<T, kRows - 1>(rows, weights, chunk, next, head, sums);
  weigh_rows<T, kRows>(weights, chunk, next, head, sums);
}

inline void scale_row(const float* from, int64_t count, float scale, float* to, int64_t padded) {
  for (int64_t d = 0; d < padded; ++d) to[d] = d < count ? from[d] * scale : 0.0f;
}

// The element of the cache with which the values (or keys) of one KV head in one block begin.
inline int64_t head_in_block(const Attention& op, const AttentionItem& item, int64_t position) {
  const int64_t block = op.block_tables[item.seq * op.blocks_per_seq + static_cast<uint32_t>(position) / static_cast<uint32_t>(op.block_size)];
  return (block * op.kv_heads + item.kv_head) * op.block_size * op.head_dim;
}

// Blocks of whole vectors are read where they lie.
template <class T>
inline void find_chunk(const Attention& op, const AttentionItem& item, int64_t first, int64_t count, const AttentionScratch& s, Chunk* chunk) {
  constexpr int kTogether_ = kTogether<T>, kVectors = kVectorsPerLine;
  const char *keys = static_cast<const char*>(op.key_cache), *values = static_cast<const char*>(op.value_cache);
  chunk->stride = kSlotsTogether * 4;
  chunk->num_runs = 0;
  chunk->rest = 0;
  for (int64_t i = 0; i < kKeysPerChunk; i += kSlotsTogether) {
    const int v = static_cast<int>(i / kLanes);
    if (i >= count) {  // scores that nobody looks at
      for (int j = 0; j < kVectors; ++j) chunk->keys[v + j] = chunk->keys[0];
      continue;
    }
    const int64_t region = head_in_block(op, item, first + i) * T::kBytes, slot = (first + i) % op.block_size;
    for (int j = 0; j < kVectors; ++j) chunk->keys[v + j] = keys + region + slot * op.head_dim * T::kBytes + j * kLanes * 4;
    const char* at = values + region + slot / kTogether_ * op.head_dim * 4;
#if defined(__AMX_BF16__)
    if constexpr (kTiles<T>) {
      if (i % slots_of_run(op)) continue;
      const int64_t present = least(slots_of_run(op), count - i);
      chunk->runs[chunk->num_runs++] = {at, steps_of<T>(present)};
      chunk->rest = present % slots_of_run(op);
      continue;
    }
#endif
    const int64_t present = least(kSlotsTogether, count - i);
    if (present / kTogether_) chunk->runs[chunk->num_runs++] = {at, present / kTogether_};
    if (present % kTogether_) {  // what lies beside the last key is anything
      uint32_t* pair = reinterpret_cast<uint32_t*>(s.values);
      for (int64_t d = 0; d < op.head_dim; d += kLanes) store(pair + d, load<Words>(at + (present / kTogether_ * op.head_dim + d) * 4) & 0xffffu);
      chunk->runs[chunk->num_runs++] = {reinterpret_cast<const char*>(pair), 1};
    }
  }
}

// The first chunk of a partition may have none before it that asked for it.
inline void ask_for(const Chunk& chunk, int64_t steps, int64_t head) {
  for (int v = 0; v < kChunkVectors; v += kVectorsPerLine)
    for (int64_t i = 0; i < steps; ++i) __builtin_prefetch(chunk.keys[v] + i * chunk.stride, 0, 2);
  for (int run = 0; run < chunk.num_runs; ++run)
    for (int64_t at = 0; at < chunk.runs[run].steps * head * 4; at += 64) __builtin_prefetch(chunk.runs[run].values + at, 0, 2);
}

// Others are copied, element by element.
template <class T>
inline void copy_chunk(const Attention& op, const AttentionItem& item, int64_t first, int64_t count, const AttentionScratch& s, Chunk* chunk) {
  typedef typename T::Storage Storage;
  constexpr int64_t kTogether_ = kTogether<T>;
  const int64_t head = padded_head(op.head_dim), size = op.block_size, dim = op.head_dim;
  Storage *keys = reinterpret_cast<Storage*>(s.keys), *values = reinterpret_cast<Storage*>(s.values);
  memset(keys, 0, head * kKeysPerChunk * sizeof(Storage));
  memset(values, 0, kKeysPerChunk * head * sizeof(Storage));
  for (int64_t i = 0; i < count; ++i) {
    const int64_t region = head_in_block(op, item, first + i), slot = (first + i) % size;
    const Storage *from_keys = static_cast<const Storage*>(op.key_cache) + region, *from_values = static_cast<const Storage*>(op.value_cache) + region;
    for (int64_t d = 0; d < dim; ++d) {
      keys[place_of_key(kTogether_, d, i, head, kKeysPerChunk)] = from_keys[place_of_key(kTogether_, d, slot, dim, size)];
      values[place_in_pairs(kTogether_, i, d, kKeysPerChunk, head)] = from_values[place_in_pairs(kTogether_, slot, d, size, dim)];
    }
  }
  for (int v = 0; v < kChunkVectors; ++v) {
    const int64_t slot = v * kLanes, first = slot / kSlotsTogether * kSlotsTogether;
    chunk->keys[v] = reinterpret_cast<const char*>(keys + first * head) + (slot - first) * 4;
  }
  chunk->stride = kSlotsTogether * 4;
  chunk->runs[0] = {reinterpret_cast<const char*>(values), kTiles<T> ? steps_of<T>(kKeysPerChunk) : steps_of<T>(count)};
  chunk->num_runs = 1;
  chunk->rest = 0;
}

template <class T>
inline void take_query(const float* from, const Attention& op, float* query) {
  if constexpr (kDots<T>) {
    if constexpr (kTiles<T>) memset(query, 0, padded_head(op.head_dim) * 2);
    round_row(from, op.head_dim, op.scale, query);
  } else {
    scale_row(from, op.head_dim, op.scale, query, steps_of<T>(op.head_dim) * kTogether<T>);
  }
}

struct Seen {  // keys of a chunk that a row sees
  int64_t low, high;
};

// Turn scores into weights, rounded where they are multiplied as bfloat16; rescale the rows' sums to their new maximum. seen_of(r): what row r sees.
//
// As many rows at a time as a vector has lanes, for what is but one value of a row.
template <class T, class SeenOf>
inline void soften(int64_t rows, float* scores, SeenOf&& seen_of, float* sums, int64_t head, const Softmaxes& state) {
  const Floats hidden = splat(-__builtin_inff());
  for (int64_t first = 0; first < rows; first += kLanes, scores += kLanes * kKeysPerChunk, sums += kLanes * head) {
    const int64_t count = least(kLanes, rows - first);
    Floats best[kLanes], denominator[kLanes];
    for (int64_t r = count; r < kLanes; ++r) best[r] = denominator[r] = Floats{};
    for (int64_t r = 0; r < count; ++r) {
      const Seen seen = seen_of(first + r);
      float* row = scores + r * kKeysPerChunk;
      best[r] = hidden;
      if (seen.low <= 0 && seen.high >= kKeysPerChunk) {
#pragma GCC unroll 16
        for (int i = 0; i < kKeysPerChunk; i += kLanes) best[r] = max_of(best[r], load<Floats>(row + i));
      } else {
        const Ints begin = Ints{} + static_cast<int32_t>(seen.low), end = Ints{} + static_cast<int32_t>(seen.high);
        for (int i = 0; i < kKeysPerChunk; i += kLanes) {
          const Ints key = kLane + i;
          const Floats visible = (key >= begin) & (key < end) ? load<Floats>(row + i) : hidden;
          store(row + i, visible);
          best[r] = max_of(best[r], visible);
        }
      }
    }
    float *maximum = state.maximum + first, shrink[kLanes];
    const Floats before = load<Floats>(maximum), now = max_of(largest_of_each(best), before), factor = exp_below_88(before - now);
    store(maximum, now);
    store(shrink, factor);
    for (int64_t r = 0; r < count; ++r) {
      float* row = scores + r * kKeysPerChunk;
      Floats sum = {};
#pragma GCC unroll 16
      for (int i = 0; i < kKeysPerChunk; i += kLanes) {
        const Floats weight = exp_below_88(load<Floats>(row + i) - maximum[r]);
        if constexpr (kDots<T>) put(reinterpret_cast<Rounded*>(row) + i, weight);
        else put(row + i, weight);
        sum += weight;
      }
      denominator[r] = sum;
      if (shrink[r] != 1.0f)
        for (int64_t d = r * head; d < (r + 1) * head; d += kLanes) store(sums + d, load<Floats>(sums + d) * shrink[r]);
    }
    store(state.denominator + first, load<Floats>(state.denominator + first) * factor + sum_of_each(denominator));
  }
}

// Add a partition's sums to the total of those before it.
inline void add_partition(float* totals, Softmax& total, const float* sums, Softmax part, int64_t head) {
  const float maximum = total.maximum > part.maximum ? total.maximum : part.maximum;
  const float keep = exp_of(splat(total.maximum - maximum))[0], add = exp_of(splat(part.maximum - maximum))[0];
  for (int64_t d = 0; d < head; d += kLanes) store(totals + d, load<Floats>(totals + d) * keep + load<Floats>(sums + d) * add);
  total.denominator = total.denominator * keep + part.denominator * add;
  total.maximum = maximum;
}

inline void reset(float* sums, Softmax* states, int64_t rows, int64_t head) {
  memset(sums, 0, rows * head * sizeof(float));
  for (int64_t r = 0; r < rows; ++r) states[r] = {kNoKeyYet, 0.0f};
}

inline void reset(float* sums, const Softmaxes& states, int64_t rows, int64_t head) {
  memset(sums, 0, rows * head * sizeof(float));
  for (int64_t r = 0; r < rows; r += kLanes) store(states.maximum + r, splat(kNoKeyYet)), store(states.denominator + r, Floats{});
}

template <class Out>
inline void write_row(const float* totals, Softmax total, int64_t width, Out* out) {
  const float scale = total.denominator > 0.0f ? 1.0f / total.denominator : 0.0f;
  int64_t d = 0;
  for (; d + kLanes <= width; d += kLanes) put(out + d, load<Floats>(totals + d) * scale);
  for (; d < width; ++d) put(out + d, totals[d] * scale);
}

// Row r of an item's results.
inline void write_output(const Attention& op, const AttentionItem& item, int64_t r, const float* totals, Softmax total) {
  const int64_t group = op.heads / op.kv_heads, row = op.first_rows[item.seq] + item.first_row + r / group;
  const int64_t at = (row * op.heads + item.kv_head * group + r % group) * op.head_dim;
  to_rows(op.out, op.out_rounded, [&](auto* out) { write_row(totals, total, op.head_dim, out + at); });
}

// What is known of a row of a split item, for merge_partial: `head` floats, maximum, denominator.
inline void write_partial(const float* totals, Softmax total, int64_t head, float* to) {
  memcpy(to, totals, head * sizeof(float));
  to[head] = total.maximum;
  to[head + 1] = total.denominator;
}

// Add a row's part of one partition to what those before it gave.
inline void merge_partial(const float* from, int64_t head, float* totals, Softmax& total) {
  add_partition(totals, total, from, {from[head], from[head + 1]}, head);
}

// Of an item's query rows; a row sees keys up to its own.
inline int64_t first_position(const Attention& op, const AttentionItem& item) { return op.context_lens[item.seq] - op.q_seq_lens[item.seq] + item.first_row; }

// Keys that rows of an item may see in one of its partitions, from the beginning of a chunk.
struct Span {
  int64_t start, end;
};

inline Span span_of(const Attention& op, const AttentionItem& item, int64_t partition) {
  const int64_t first = first_position(op, item), last = first + item.rows - 1;
  const int64_t seen = op.window ? most(0, first - op.window + 1) / kKeysPerChunk * kKeysPerChunk : 0;  // before it everything is behind every row's window
  return {most(partition * kKeysPerPartition, seen), least((partition + 1) * kKeysPerPartition, last + 1)};
}

// The first chunk of what this thread is likely to do after a partition, so far as it can be asked for.
template <class T>
inline bool find_following(const Attention& op, const AttentionItem& item, int64_t partition, const AttentionScratch& s, Chunk* chunk) {
  const AttentionItem* next = &item;
  if (++partition == item.first_partition + item.partitions) {
    if (++next >= op.items + op.num_items) return false;
    partition = next->first_partition;
  }
  const Span span = span_of(op, *next, partition);
  if (span.start >= span.end) return false;
  find_chunk<T>(op, *next, span.start, even(least(kKeysPerChunk, span.end - span.start)), s, chunk);
  return true;
}

// Scores of all query rows with the chunk's keys.
template <class T>
inline void score_all(int64_t rows, const AttentionScratch& s, int64_t width, const Chunk& chunk, const Chunk* next, int64_t steps) {
#if defined(__AMX_BF16__)
  if constexpr (kTiles<T>) {
    for (int64_t r = 0; r < rows; r += kTileRows)
      score_tile(reinterpret_cast<const char*>(s.query + r * width), width * 4, chunk, r ? nullptr : next, s.scores + r * kKeysPerChunk);
    return;
  }
#endif
  for (int64_t r = 0; r < rows; r += kRowsAtOnce)
    score<T>(least(kRowsAtOnce, rows - r), s.query + r * width, width, chunk, r ? nullptr : next, steps, s.scores + r * kKeysPerChunk);
}

// Add the chunk's values, weighted, to the sums of all rows.
template <class T>
inline void weigh_all([[maybe_unused]] const Attention& op, int64_t rows, const AttentionScratch& s, Chunk& chunk, const Chunk* next, int64_t head) {
#if defined(__AMX_BF16__)
  if constexpr (kTiles<T>) {
    if (chunk.rest) complete_last_run(op, s, chunk);
    for (int64_t r = 0; r < rows; r += kTileRows) weigh_tiles(s.scores + r * kKeysPerChunk, chunk, r ? nullptr : next, head, s.sums + r * head);
    return;
  }
#endif
  for (int64_t r = 0; r < rows; r += kRowsAtOnce)
    weigh<T>(least(kRowsAtOnce, rows - r), s.scores + r * kKeysPerChunk, chunk, r ? nullptr : next, head, s.sums + r * head);
}

template <class T>
inline void attention_of(const Attention& op, const AttentionItem& item, void* memory) {
  const int64_t head = padded_head(op.head_dim), group = op.heads / op.kv_heads, rows = item.rows * group;
  const int64_t steps = steps_of<T>(op.head_dim), width = kTiles<T> ? head / 2 : steps * kFactors<T>;
  const bool direct = op.block_size % kSlotsTogether == 0 && op.head_dim == head;
  const bool asks = !kTiles<T> || rows <= kTileRows;  // many rows, in tiles, take so long that memory need not be asked ahead
  AttentionScratch s;
  lay_out(room_for_rows(rows), head, memory, &s);
  for (int64_t r = 0; r < rows; ++r) {
    const int64_t row = op.first_rows[item.seq] + item.first_row + r / group;
    take_query<T>(op.query + (row * op.heads + item.kv_head * group + r % group) * op.head_dim, op, s.query + r * width);
  }
  reset(s.totals, s.total, rows, head);
#if defined(__AMX_BF16__)
  if constexpr (kTiles<T>) configure_attention(rows);
#endif
  const int64_t first = first_position(op, item);
  const int64_t window = op.window ? op.window : first + item.rows;
  for (int64_t p = item.first_partition; p < item.first_partition + item.partitions; ++p) {
    reset(s.sums, s.part, rows, head);
    auto [start, end] = span_of(op, item, p);
    Chunk chunks[2];
    if (direct && start < end) {
      find_chunk<T>(op, item, start, least(kKeysPerChunk, end - start), s, &chunks[0]);
      if (asks) ask_for(chunks[0], steps, head);
    }
    for (int turn = 0; start < end; start += kKeysPerChunk, turn ^= 1) {
      Chunk &chunk = chunks[turn], *next = nullptr;
      if (!direct) {
        copy_chunk<T>(op, item, start, least(kKeysPerChunk, end - start), s, &chunk);
      } else if (start + kKeysPerChunk < end) {
        find_chunk<T>(op, item, start + kKeysPerChunk, least(kKeysPerChunk, end - start - kKeysPerChunk), s, &chunks[1 - turn]);
        if (asks) next = &chunks[1 - turn];
      } else if (asks && find_following<T>(op, item, p, s, &chunks[1 - turn])) {
        next = &chunks[1 - turn];
      }
      score_all<T>(rows, s, width, chunk, next, steps);
      soften<T>(
          rows, s.scores,
          [&](int64_t r) {
            const int64_t position = first + r / group;
            return Seen{position - window + 1 - start, position + 1 - start};
          },
          s.sums, head, s.part);
      weigh_all<T>(op, rows, s, chunk, next, head);
    }
    for (int64_t r = 0; r < rows; ++r) add_partition(s.totals + r * head, s.total[r], s.sums + r * head, s.part.of(r), head);
  }
  for (int64_t r = 0; r < rows; ++r) {
    if (item.partial < 0) {
      write_output(op, item, r, s.totals + r * head, s.total[r]);
    } else {
      write_partial(s.totals + r * head, s.total[r], head, op.partials + item.partial + r * (head + 2));
    }
  }
#if defined(__AMX_BF16__)
  if constexpr (kTiles<T>) tile_release();
#endif
}

inline void attention(const Attention& op, const AttentionItem& item, void* scratch) {
  switch (op.dtype) {
    case Dtype::bf16: return attention_of<Bf16>(op, item, scratch);
    case Dtype::f16: return attention_of<F16>(op, item, scratch);
    case Dtype::f32: return attention_of<F32>(op, item, scratch);
    case Dtype::i8: return;  // no cache has it
  }
}

// Put the partitions of one split item, in order, together. Each holds exactly one partition.
inline void merge(const Attention& op, const AttentionItem* parts, int64_t count, void* scratch) {
  const int64_t head = padded_head(op.head_dim), rows = parts->rows * (op.heads / op.kv_heads);
  float* totals = static_cast<float*>(scratch);
  for (int64_t r = 0; r < rows; ++r) {
    Softmax total;
    reset(totals, &total, 1, head);
    for (int64_t i = 0; i < count; ++i) merge_partial(op.partials + parts[i].partial + r * (head + 2), head, totals, total);
    write_output(op, *parts, r, totals, total);
  }
}
