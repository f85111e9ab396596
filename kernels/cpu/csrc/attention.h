// Attention over a paged cache with an online softmax, for prefill, chunked prefill and decode alike.
//
// An item is a few query rows of one sequence with all query heads that share one KV head, or where rows are few several KV heads. Keys are taken in
// chunks of kKeysPerChunk counted from position 0 and sums are closed at every kKeysPerPartition, so a row's result has the same bits however its
// prompt was cut into steps, whatever runs beside it, and whether or not its heads and partitions were computed by different threads.
//
// What is computed in one turn is a part: a chunk for one KV head. All heads take a chunk before the next one, as their keys lie one behind the other.

constexpr int kRowsAtOnce = 6;
constexpr int kChunkVectors = kKeysPerChunk / kLanes;
constexpr float kNoKeyYet = -1e30f;  // finite, so that e^(maximum - maximum) is 1 before the first key

constexpr int chunk_vectors(int rows) { return vectors_beside(rows) < kChunkVectors ? vectors_beside(rows) : kChunkVectors; }

// The running sums of rows, see floats_of_sums.
struct Sums {
  float *numerators, *maximum, *denominator;

  Sums of(int64_t row, int64_t head) const { return {numerators + row * head, maximum + row, denominator + row}; }
};

inline Sums sums_in(float* memory, int64_t rows, int64_t head) { return {memory, memory + rows_of_head(rows) * head, memory + rows_of_head(rows) * head + whole_vectors(rows)}; }

constexpr int64_t kPartsAtOnce = 3;  // one is weighed while the next is scored and the one behind it asked for

struct AttentionScratch {
  float *query;   // [kv_heads, rows, head], scaled
  float *keys;    // [kPartsAtOnce, kKeysPerChunk / kSlotsTogether, head, kSlotsTogether], of chunks that cannot be read where they lie
  float *values;  // [kPartsAtOnce, kKeysPerChunk, head], of such chunks, or a last pair with one key
  float *scores;  // [2 or kv_heads, rows, kKeysPerChunk]
  float *sums;    // of this partition
  float *totals;  // of those before it
};

inline int64_t lay_out(int64_t kv_heads, int64_t rows, int64_t head, void* memory, AttentionScratch* s) {
  float* next = static_cast<float*>(memory);
  const int64_t copies = kPartsAtOnce * kKeysPerChunk * head, sums = floats_of_sums(kv_heads, rows, head);
  const int64_t sizes[] = {kv_heads * rows_of_head(rows) * head, copies, copies, most(2, kv_heads) * rows_of_head(rows) * kKeysPerChunk, sums, sums};
  float** places[] = {&s->query, &s->keys, &s->values, &s->scores, &s->sums, &s->totals};
  int64_t used = 0;
  for (int i = 0; i < 6; ++i) {
    *places[i] = next + used;
    used += sizes[i];
  }
  return used * static_cast<int64_t>(sizeof(float));
}

inline int64_t attention_scratch(const Attention& op, int64_t rows, int64_t kv_heads) {
  AttentionScratch unused;
  return lay_out(kv_heads, rows * (op.heads / op.kv_heads), whole_vectors(op.head_dim), nullptr, &unused);
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
  float *key_copies, *value_copies; // room for a chunk that cannot be read where it lies, or a last pair
};

// The element of the cache with which the values (or keys) of one KV head in one block begin, and the slot in it.
struct Place {
  int64_t region, slot;
};
inline Place place_of(const Attention& op, int64_t seq, int64_t kv_head, int64_t position) {
  const uint32_t at = static_cast<uint32_t>(position), size = static_cast<uint32_t>(op.block_size);
  const int64_t block = op.block_tables[seq * op.blocks_per_seq + at / size];
  return {(block * op.kv_heads + kv_head) * op.block_size * op.head_dim, at % size};
}

// Of an item's query rows; a row sees keys up to its own.
inline int64_t first_position(const Attention& op, const AttentionItem& item) { return op.first_positions[item.seq] + item.first_row; }

// Keys that rows of an item may see in its partitions, from the beginning of a chunk.
struct Span {
  int64_t start, end;
};

inline Span span_of(const Attention& op, const AttentionItem& item) {
  const int64_t first = first_position(op, item), last = first + item.rows - 1;
  const int64_t seen = op.window ? most(0, first - op.window + 1) / kKeysPerChunk * kKeysPerChunk : 0;  // before it everything is behind every row's window
  return {most(item.first_partition * kKeysPerPartition, seen), least((item.first_partition + item.partitions) * kKeysPerPartition, last + 1)};
}

#if defined(__AMX_BF16__)
// Asks for memory some lines at a time beside what is computed, as all at once would keep other loads waiting, and in the order in which it lies: of each
// chunk the keys of an item's heads, then the values, chunk after chunk and item after item.
class Asker {
 public:
  Asker(const Attention& op, const AttentionItem& item, int64_t bytes) : op_(op), item_(&item), span_(span_of(op, item)), bytes_(bytes) {
    span_.start -= kKeysPerChunk;
  }

  void skip(int64_t lines) {
    while (lines > 0) {
      if (at_ >= end_ && !next_piece()) return;
      const int64_t some = least(lines, (end_ - at_ + 63) / 64);
      at_ += some * 64, lines -= some;
    }
  }

  void ask(int64_t lines) {
    while (lines > 0) {
      if (at_ >= end_ && !next_piece()) return;
      for (; lines > 0 && at_ < end_; at_ += 64, --lines) __builtin_prefetch(at_, 0, 2);  // the first-level cache is full
    }
  }

 private:
  // Keys or values of a chunk. None after the last item's.
  bool next_leg() {
    if (values_) {
      Span left = {span_.start + kKeysPerChunk, span_.end};
      while (left.start >= left.end) {
        if (item_ + 1 >= op_.items + op_.num_items) return false;
        left = span_of(op_, *++item_);
      }
      span_ = left;
    }
    values_ = !values_;
    position_ = span_.start, last_ = least(span_.start + kKeysPerChunk, span_.end), head_ = 0;
    return true;
  }

  // What lies one behind the other: of all heads of a whole block, else of one head.
  bool next_piece() {
    if (position_ >= last_ && !next_leg()) return false;
    const auto [region, slot] = place_of(op_, item_->seq, item_->first_kv_head + head_, position_);
    const int64_t slots = least(op_.block_size - slot, last_ - position_), heads = slots == op_.block_size ? item_->kv_heads : 1;
    at_ = static_cast<const char*>(values_ ? op_.value_cache : op_.key_cache) + (region + slot * op_.head_dim) * bytes_;
    end_ = at_ + (heads > 1 ? heads * op_.block_size : whole_vectors(slots)) * op_.head_dim * bytes_;
    head_ += heads;
    if (head_ == item_->kv_heads) head_ = 0, position_ += slots;
    return true;
  }

  const Attention& op_;
  const AttentionItem* item_;
  Span span_;  // from the chunk of this leg on, at first from the one before
  int64_t bytes_;
  bool values_ = true;
  int64_t position_ = 0, last_ = 0, head_ = 0;  // of the next piece
  const char *at_ = nullptr, *end_ = nullptr;
};

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

// Blocks of whole vectors are read where they lie.
template <class T>
inline void find_chunk(const Attention& op, int64_t seq, int64_t kv_head, int64_t first, int64_t count, Chunk* chunk) {
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
    const auto [region, slot] = place_of(op, seq, kv_head, first + i);
    for (int j = 0; j < kVectors; ++j) chunk->keys[v + j] = keys + (region + slot * op.head_dim) * T::kBytes + j * kLanes * 4;
    const char* at = values + region * T::kBytes + slot / kTogether_ * op.head_dim * 4;
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
      uint32_t* pair = reinterpret_cast<uint32_t*>(chunk->value_copies);
      for (int64_t d = 0; d < op.head_dim; d += kLanes) store(pair + d, load<Words>(at + (present / kTogether_ * op.head_dim + d) * 4) & 0xffffu);
      chunk->runs[chunk->num_runs++] = {reinterpret_cast<const char*>(pair), 1};
    }
  }
}

// Others are copied, element by element.
template <class T>
inline void copy_chunk(const Attention& op, int64_t seq, int64_t kv_head, int64_t first, int64_t count, Chunk* chunk) {
  typedef typename T::Storage Storage;
  constexpr int64_t kTogether_ = kTogether<T>;
  const int64_t head = whole_vectors(op.head_dim), size = op.block_size, dim = op.head_dim;
  Storage *keys = reinterpret_cast<Storage*>(chunk->key_copies), *values = reinterpret_cast<Storage*>(chunk->value_copies);
  memset(keys, 0, head * kKeysPerChunk * sizeof(Storage));
  memset(values, 0, kKeysPerChunk * head * sizeof(Storage));
  for (int64_t i = 0; i < count; ++i) {
    const auto [region, slot] = place_of(op, seq, kv_head, first + i);
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
    if constexpr (kTiles<T>) memset(query, 0, whole_vectors(op.head_dim) * 2);
    round_row(from, op.head_dim, op.scale, query);
  } else {
    scale_row(from, op.head_dim, op.scale, query, steps_of<T>(op.head_dim) * kTogether<T>);
  }
}

struct Seen {  // keys of a chunk that a row sees
  int64_t low, high;
};

// Turn scores into weights, rounded where they are multiplied as bfloat16; rescale the rows' sums to their new maximum.
// seen_of(r): what row r sees, ever later keys from row to row; meanwhile() is called after each row.
//
// As many rows at a time as a vector has lanes, for what is but one value of a row.
template <class T, class SeenOf, class Meanwhile>
inline void soften(int64_t rows, float* scores, SeenOf&& seen_of, Meanwhile&& meanwhile, const Sums& sums, int64_t head) {
  const Floats hidden = splat(-__builtin_inff());
  for (int64_t first = 0; first < rows; first += kLanes, scores += kLanes * kKeysPerChunk) {
    const int64_t count = least(kLanes, rows - first);
    const bool all = seen_of(first).high >= kKeysPerChunk && seen_of(first + count - 1).low <= 0;
    Floats best[kLanes], denominator[kLanes];
    for (int64_t r = count; r < kLanes; ++r) best[r] = denominator[r] = Floats{};
    for (int64_t r = 0; r < count; ++r) {
      float* row = scores + r * kKeysPerChunk;
      best[r] = hidden;
      if (all) {
#pragma GCC unroll 16
        for (int i = 0; i < kKeysPerChunk; i += kLanes) best[r] = max_of(best[r], load<Floats>(row + i));
      } else {
        const Seen seen = seen_of(first + r);
        const Ints begin = Ints{} + static_cast<int32_t>(seen.low), end = Ints{} + static_cast<int32_t>(seen.high);
        for (int i = 0; i < kKeysPerChunk; i += kLanes) {
          const Ints key = kLane + i;
          const Floats visible = (key >= begin) & (key < end) ? load<Floats>(row + i) : hidden;
          store(row + i, visible);
          best[r] = max_of(best[r], visible);
        }
      }
    }
    float *maximum = sums.maximum + first, shrink[kLanes];
    const Floats before = load<Floats>(maximum), now = max_of(largest_of_each(best), before), factor = exp_below_88(before - now);
    store(maximum, now);
    store(shrink, factor);
    for (int64_t r = 0; r < count; ++r) {
      float* row = scores + r * kKeysPerChunk;
      Floats sum = {};
#pragma GCC unroll 16
      for (int i = 0; i < kKeysPerChunk; i += 2 * kLanes) {
        const Floats weight = exp_below_88(load<Floats>(row + i) - maximum[r]), next = exp_below_88(load<Floats>(row + i + kLanes) - maximum[r]);
        if constexpr (kDots<T>) put_two(reinterpret_cast<Rounded*>(row) + i, weight, next);
        else put_two(row + i, weight, next);
        sum += weight;
        sum += next;
      }
      denominator[r] = sum;
      meanwhile();
      if (shrink[r] != 1.0f) {
        float* const row_sums = sums.numerators + (first + r) * head;
        for (int64_t d = 0; d < head; d += kLanes) store(row_sums + d, load<Floats>(row_sums + d) * shrink[r]);
      }
    }
    store(sums.denominator + first, load<Floats>(sums.denominator + first) * factor + sum_of_each(denominator));
  }
}

inline void reset(const Sums& sums, int64_t rows, int64_t head) {
  memset(sums.numerators, 0, rows * head * sizeof(float));
  for (int64_t r = 0; r < rows; r += kLanes) store(sums.maximum + r, splat(kNoKeyYet)), store(sums.denominator + r, Floats{});
}

// Add a partition's sums to the total of those before it.
inline void add_partition(const Sums& total, const Sums& part, int64_t rows, int64_t head) {
  for (int64_t first = 0; first < rows; first += kLanes) {
    const Floats before = load<Floats>(total.maximum + first), own = load<Floats>(part.maximum + first), now = max_of(before, own);
    float keep[kLanes], add[kLanes];
    store(keep, exp_below_88(before - now));
    store(add, exp_below_88(own - now));
    store(total.maximum + first, now);
    store(total.denominator + first, load<Floats>(total.denominator + first) * load<Floats>(keep) + load<Floats>(part.denominator + first) * load<Floats>(add));
    for (int64_t r = 0; r < least(kLanes, rows - first); ++r) {
      float* const to = total.numerators + (first + r) * head;
      const float* const from = part.numerators + (first + r) * head;
      for (int64_t d = 0; d < head; d += kLanes) store(to + d, load<Floats>(to + d) * keep[r] + load<Floats>(from + d) * add[r]);
    }
  }
}

template <class Out>
inline void write_row(const Sums& total, int64_t width, const Out& out, int64_t row, int64_t column) {
  const float scale = *total.denominator > 0.0f ? 1.0f / *total.denominator : 0.0f;
  int64_t d = 0;
  for (; d + kLanes <= width; d += kLanes) out.put(row, column + d, load<Floats>(total.numerators + d) * scale);
  for (; d < width; ++d) put(out.at(row, column + d), total.numerators[d] * scale);
}

// Call body(row, head, place) of an item's rows of one KV head: a query's row among all, its query head, and its place among the item's.
template <class Body>
inline void for_query_rows(const Attention& op, const AttentionItem& item, int64_t kv_head, Body&& body) {
  const int64_t group = op.heads / op.kv_heads, first = op.first_rows[item.seq] + item.first_row;
  for (int64_t i = 0; i < item.rows; ++i)
    for (int64_t g = 0; g < group; ++g) body(first + i, kv_head * group + g, i * group + g);
}

inline void write_output(const Attention& op, const AttentionItem& item, int64_t kv_head, const Sums& total, int64_t head) {
  to_rows(op.out, op.heads * op.head_dim, op.out_rounded, [&](const auto& out) {
    for_query_rows(op, item, kv_head, [&](int64_t row, int64_t query_head, int64_t place) {
      write_row(total.of(place, head), op.head_dim, out, row, query_head * op.head_dim);
    });
  });
}

// The first part of what this thread is likely to do after an item, so far as it can be asked for.
template <class T>
inline bool find_following(const Attention& op, const AttentionItem& item, Chunk* chunk) {
  const AttentionItem* const next = &item + 1;
  if (next >= op.items + op.num_items) return false;
  const Span span = span_of(op, *next);
  if (span.start >= span.end) return false;
  find_chunk<T>(op, next->seq, next->first_kv_head, span.start, even(least(kKeysPerChunk, span.end - span.start)), chunk);
  return true;
}

// Scores of query rows with the chunk's keys; those of `next` are asked for meanwhile.
template <class T>
inline void score_all(int64_t rows, const float* query, int64_t width, const Chunk& chunk, const Chunk* next, int64_t steps, float* scores) {
#if defined(__AMX_BF16__)
  if constexpr (kTiles<T>) return score_tile(reinterpret_cast<const char*>(query), width * 4, chunk, [] {}, scores);
#endif
  for (int64_t r = 0; r < rows; r += kRowsAtOnce)
    score<T>(least(kRowsAtOnce, rows - r), query + r * width, width, chunk, r ? nullptr : next, steps, scores + r * kKeysPerChunk);
}

// Add the chunk's values, weighted, to the rows' sums; likewise.
template <class T>
inline void weigh_all(int64_t rows, const float* weights, const Chunk& chunk, const Chunk* next, int64_t head, float* sums) {
#if defined(__AMX_BF16__)
  if constexpr (kTiles<T>) return weigh_tiles(weights, chunk, [] {}, head, sums);
#endif
  for (int64_t r = 0; r < rows; r += kRowsAtOnce)
    weigh<T>(least(kRowsAtOnce, rows - r), weights + r * kKeysPerChunk, chunk, r ? nullptr : next, head, sums + r * head);
}

// The sums of an item, partition by partition: each of a split item by itself, else the first in the totals, to which later ones are added.
class PartitionSums {
 public:
  PartitionSums(const Attention& op, const AttentionItem& item, const AttentionScratch& s, int64_t rows, int64_t head)
      : op_(op), item_(item), rows_(rows), head_(head), floats_(floats_of_sums(1, rows, head)), own_(s.sums) {
    sums_ = totals_ = item.partial < 0 ? s.totals : op.partials + item.partial;
    begin();
  }

  // Of the item's h-th KV head, in this partition.
  Sums of(int64_t h) const { return sums_in(sums_ + h * floats_, rows_, head_); }

  // Chunks come in order: this one may begin a partition.
  void come_to(int64_t chunk_begin) {
    if (chunk_begin % kKeysPerPartition) return;
    end();
    begin();
  }

  void write() {
    end();
    if (item_.partial < 0)
      for (int64_t h = 0; h < item_.kv_heads; ++h) write_output(op_, item_, item_.first_kv_head + h, sums_in(totals_ + h * floats_, rows_, head_), head_);
  }

 private:
  void begin() {
    for (int64_t h = 0; h < item_.kv_heads; ++h) reset(of(h), rows_, head_);
  }

  void end() {
    if (item_.partial >= 0) {
      sums_ += item_.kv_heads * floats_;
      return;
    }
    if (sums_ != totals_)
      for (int64_t h = 0; h < item_.kv_heads; ++h) add_partition(sums_in(totals_ + h * floats_, rows_, head_), of(h), rows_, head_);
    sums_ = own_;
  }

  const Attention& op_;
  const AttentionItem& item_;
  int64_t rows_, head_, floats_;
  float *own_, *totals_, *sums_;
};

// Of an item's keys, those from `begin` on that its rows see.
struct SeenBy {
  int64_t first, window, group, begin;

  SeenBy(const Attention& op, const AttentionItem& item, int64_t chunk_begin)
      : first(first_position(op, item)), window(op.window ? op.window : first + item.rows), group(op.heads / op.kv_heads), begin(chunk_begin) {}

  Seen operator()(int64_t row) const {
    const int64_t position = first + static_cast<uint32_t>(row) / static_cast<uint32_t>(group);
    return {position - window + 1 - begin, position + 1 - begin};
  }
};

#if defined(__AMX_BF16__)
// Few rows wait for memory. It is read in the order in which it lies, of each chunk the keys of all heads before the values, and asked for a little ahead,
// on into the item that the thread is likely to do next.
template <class T>
inline void attend_in_order(const Attention& op, const AttentionItem& item, const AttentionScratch& s, int64_t rows, int64_t head, PartitionSums& sums) {
  constexpr int64_t kLinesAhead = 192;
  static thread_local const AttentionItem* asked = nullptr;  // the item whose first lines the one before it has asked for; a mistake only costs time
  Asker asker(op, item, T::kBytes);
  if (asked == &item) asker.skip(kLinesAhead);
  else asker.ask(kLinesAhead);
  asked = &item + 1;
  const int64_t apart = rows * kKeysPerChunk, row_bytes = head * T::kBytes;
  Chunk chunks[kFewDimensions / 16];
  const Span span = span_of(op, item);
  for (int64_t begin = span.start; begin < span.end; begin += kKeysPerChunk) {
    if (begin != span.start) sums.come_to(begin);
    // As many lines as a head's keys and values have, a third of them beside the softmax.
    const int64_t count = least(kKeysPerChunk, span.end - begin), lines = 2 * whole_vectors(count) * row_bytes / 64, of_row = lines / (3 * rows);
    const int64_t products = 2 * kKeysPerChunk * head / 512;  // of 16 keys with 32 dimensions, and the other way round
    const int64_t of_product = (lines - of_row * rows + products - 1) / products;
    const auto ask = [&] { asker.ask(of_product); };
    const SeenBy seen_by(op, item, begin);
    for (int64_t h = 0; h < item.kv_heads; ++h) {
      chunks[h].value_copies = s.values;
      find_chunk<T>(op, item.seq, item.first_kv_head + h, begin, count, &chunks[h]);
      score_tile(reinterpret_cast<const char*>(s.query) + h * rows * row_bytes, row_bytes, chunks[h], ask, s.scores + h * apart);
    }
    for (int64_t h = 0; h < item.kv_heads; ++h) {
      if (chunks[h].rest) complete_last_run(op, chunks[h]);
      soften<T>(rows, s.scores + h * apart, seen_by, [&] { asker.ask(of_row); }, sums.of(h), head);
      weigh_tiles(s.scores + h * apart, chunks[h], ask, head, sums.of(h).numerators);
    }
  }
}
#endif

// Many rows in tiles take so long that memory need not be asked ahead.
template <class T>
inline void attend(const Attention& op, const AttentionItem& item, const AttentionScratch& s, int64_t rows, int64_t head, bool direct, PartitionSums& sums) {
  const int64_t steps = steps_of<T>(op.head_dim), width = kTiles<T> ? head / 2 : steps * kFactors<T>, apart = rows_of_head(rows);
  const int64_t some = kTiles<T> ? kTileRows : rows;
  const bool asks = direct && !kTiles<T>;
  Chunk found[kPartsAtOnce];
  for (int i = 0; i < kPartsAtOnce; ++i) found[i].key_copies = s.keys + i * head * kKeysPerChunk, found[i].value_copies = s.values + i * kKeysPerChunk * head;
  const Span span = span_of(op, item);
  const int64_t parts = most(0, span.end - span.start + kKeysPerChunk - 1) / kKeysPerChunk * item.kv_heads;
  const auto begin_of = [&](int64_t part) { return span.start + part / item.kv_heads * kKeysPerChunk; };
  bool follows = false;
  const auto find = [&](int64_t part) {
    Chunk* const chunk = &found[part % kPartsAtOnce];
    if (part < parts) {
      const int64_t begin = begin_of(part), count = least(kKeysPerChunk, span.end - begin), kv_head = item.first_kv_head + part % item.kv_heads;
      direct ? find_chunk<T>(op, item.seq, kv_head, begin, count, chunk) : copy_chunk<T>(op, item.seq, kv_head, begin, count, chunk);
    } else if (part == parts) {
      follows = asks && find_following<T>(op, item, chunk);
    }
  };
  const auto behind = [&](int64_t part) { return asks && (part + 1 < parts || (part + 1 == parts && follows)) ? &found[(part + 1) % kPartsAtOnce] : nullptr; };
  float *scores = s.scores, *others = s.scores + apart * kKeysPerChunk;
  const auto score_some = [&](int64_t part, int64_t r) {
    const float* const query = s.query + (part % item.kv_heads * apart + r) * width;
    score_all<T>(least(some, rows - r), query, width, found[part % kPartsAtOnce], r ? nullptr : behind(part), steps, scores);
  };
  if (parts) {
    find(0);
    find(1);
    score_some(0, 0);
  }
  // Scores are computed a turn before they are softened: neither waits for the other.
  for (int64_t part = 0; part < parts; ++part) {
    const int64_t begin = begin_of(part);
    if (part && part % item.kv_heads == 0) sums.come_to(begin);
    Chunk& chunk = found[part % kPartsAtOnce];
    find(part + 2);
#if defined(__AMX_BF16__)
    if constexpr (kTiles<T>)
      if (chunk.rest) complete_last_run(op, chunk);
#endif
    const SeenBy seen_by(op, item, begin);
    for (int64_t r = 0; r < rows; r += some) {
      float* const weights = scores;
      scores = others, others = weights;
      if (r + some < rows) score_some(part, r + some);
      else if (part + 1 < parts) score_some(part + 1, 0);
      const int64_t count = least(some, rows - r);
      const Sums row_sums = sums.of(part % item.kv_heads).of(r, head);
      soften<T>(count, weights, [&](int64_t i) { return seen_by(r + i); }, [] {}, row_sums, head);
      weigh_all<T>(count, weights, chunk, r ? nullptr : behind(part), head, row_sums.numerators);
    }
  }
}

template <class T>
inline void attention_of(const Attention& op, const AttentionItem& item, void* memory) {
  const int64_t head = whole_vectors(op.head_dim), rows = item.rows * (op.heads / op.kv_heads);
  const int64_t width = kTiles<T> ? head / 2 : steps_of<T>(op.head_dim) * kFactors<T>;
  const bool direct = op.block_size % kSlotsTogether == 0 && op.head_dim == head;
  AttentionScratch s;
  lay_out(item.kv_heads, rows, head, memory, &s);
  for (int64_t h = 0; h < item.kv_heads; ++h)
    for_query_rows(op, item, item.first_kv_head + h, [&](int64_t row, int64_t query_head, int64_t place) {
      take_query<T>(op.query + (row * op.heads + query_head) * op.head_dim, op, s.query + (h * rows_of_head(rows) + place) * width);
    });
  PartitionSums sums(op, item, s, rows, head);
#if defined(__AMX_BF16__)
  if constexpr (kTiles<T>) {
    configure_attention(rows);
    direct && rows <= kTileRows ? attend_in_order<T>(op, item, s, rows, head, sums) : attend<T>(op, item, s, rows, head, direct, sums);
    tile_release();
    return sums.write();
  }
#endif
  attend<T>(op, item, s, rows, head, direct, sums);
  sums.write();
}

inline void attention(const Attention& op, const AttentionItem& item, void* scratch) {
  switch (op.dtype) {
    case Dtype::bf16: return attention_of<Bf16>(op, item, scratch);
    case Dtype::f16: return attention_of<F16>(op, item, scratch);
    case Dtype::f32: return attention_of<F32>(op, item, scratch);
    case Dtype::i8: return;  // no cache has it
  }
}

// Put the partitions of `count` items, in order, together.
inline void merge(const Attention& op, const AttentionItem* items, int64_t count) {
  const int64_t head = whole_vectors(op.head_dim), rows = items->rows * (op.heads / op.kv_heads), floats = floats_of_sums(1, rows, head);
  for (int64_t h = 0; h < items->kv_heads; ++h) {
    const auto sums_of = [&](const AttentionItem& item, int64_t p) {
      return sums_in(op.partials + item.partial + (p * item.kv_heads + h) * floats, rows, head);
    };
    const Sums total = sums_of(*items, 0);
    for (int64_t i = 0; i < count; ++i)
      for (int64_t p = i == 0; p < items[i].partitions; ++p) add_partition(total, sums_of(items[i], p), rows, head);
    write_output(op, *items, items->first_kv_head + h, total, head);
  }
}
