// Attention over a paged cache with an online softmax, for prefill, chunked prefill and decode alike.
//
// An item is a few query rows of one sequence with all query heads that share one KV head. Keys are taken in chunks of
// kKeysPerChunk counted from position 0 and sums are closed at every kKeysPerPartition, so a row's result has the same bits however
// its prompt was cut into steps, whatever runs beside it, and whether or not its partitions were computed by different threads.

#if defined(__AVX512F__)
constexpr int kRowsAtOnce = 6, kVectorsAtOnce = 4;
#else
constexpr int kRowsAtOnce = 3, kVectorsAtOnce = 2;
#endif
constexpr float kNoKeyYet = -1e30f;  // finite, so that e^(maximum - maximum) is 1 before the first key

inline int64_t padded_head(int64_t head_dim) { return (head_dim + 15) / 16 * 16; }

struct Softmax {  // the running sums of one row
  float maximum, denominator;
};

struct AttentionScratch {
  float *query;      // [rows, head], scaled
  float *keys;       // [head, kKeysPerChunk]
  float *values;     // [kKeysPerChunk, head]
  float *widened;    // [kLanes, head]
  float *scores;     // [rows, kKeysPerChunk]
  float *sums;       // [rows, head], numerators of this partition
  float *totals;     // [rows, head], of all partitions so far
  Softmax *part, *total;  // [rows]
};

inline int64_t lay_out(int64_t rows, int64_t head, void* memory, AttentionScratch* s) {
  float* next = static_cast<float*>(memory);
  const int64_t sizes[] = {rows * head, head * kKeysPerChunk, kKeysPerChunk * head, kLanes * head, rows * kKeysPerChunk, rows * head, rows * head};
  float** places[] = {&s->query, &s->keys, &s->values, &s->widened, &s->scores, &s->sums, &s->totals};
  int64_t used = 0;
  for (int i = 0; i < 7; ++i) {
    *places[i] = next + used;
    used += sizes[i];
  }
  s->part = reinterpret_cast<Softmax*>(next + used);
  s->total = s->part + rows;
  return (used + 4 * rows) * static_cast<int64_t>(sizeof(float));
}

inline int64_t attention_scratch(const Attention& op, int64_t rows) {
  AttentionScratch unused;
  return lay_out(rows * (op.heads / op.kv_heads), padded_head(op.head_dim), nullptr, &unused);
}

inline void transpose(Floats (&row)[kLanes]) {
  Ints low, high;
  for (int i = 0; i < kLanes; ++i) {
    low[i] = i / 2 + (i % 2) * kLanes;
    high[i] = low[i] + kLanes / 2;
  }
  // log2(kLanes) perfect shuffles of the rows are a transposition.
#pragma GCC unroll 4
  for (int step = 1; step < kLanes; step *= 2) {
    Floats next[kLanes];
#pragma GCC unroll 16
    for (int i = 0; i < kLanes / 2; ++i) {
      next[2 * i] = __builtin_shuffle(row[i], row[i + kLanes / 2], low);
      next[2 * i + 1] = __builtin_shuffle(row[i], row[i + kLanes / 2], high);
    }
#pragma GCC unroll 16
    for (int i = 0; i < kLanes; ++i) row[i] = next[i];
  }
}

// Keys transposed and values, both as floats.
template <class T>
inline void read_chunk(const Attention& op, const AttentionItem& item, int64_t first, int64_t count, const AttentionScratch& s) {
  typedef typename T::Storage Storage;
  const int64_t head = padded_head(op.head_dim);
  const int32_t* table = op.block_tables + item.seq * op.blocks_per_seq;
  for (int64_t group = 0; group < count; group += kLanes) {
    for (int64_t i = 0; i < kLanes; ++i) {
      float* key = s.widened + i * head;
      if (group + i >= count) {
        memset(key, 0, head * sizeof(float));
        continue;
      }
      const int64_t position = first + group + i, block = table[position / op.block_size];
      const int64_t row = ((block * op.block_size + position % op.block_size) * op.kv_heads + item.kv_head) * op.head_dim;
      widen_row<T>(static_cast<const Storage*>(op.key_cache) + row, op.head_dim, key, head);
      widen_row<T>(static_cast<const Storage*>(op.value_cache) + row, op.head_dim, s.values + (group + i) * head, head);
    }
    for (int64_t d = 0; d < head; d += kLanes) {
      Floats block[kLanes];
#pragma GCC unroll 16
      for (int i = 0; i < kLanes; ++i) block[i] = load<Floats>(s.widened + i * head + d);
      transpose(block);
#pragma GCC unroll 16
      for (int i = 0; i < kLanes; ++i) store(s.keys + (d + i) * kKeysPerChunk + group, block[i]);
    }
  }
}

template <int kRows>
inline void score_rows(const float* query, const float* keys, int64_t head, float* scores) {
  for (int64_t column = 0; column < kKeysPerChunk; column += kVectorsAtOnce * kLanes) {
    Floats sum[kRows][kVectorsAtOnce] = {};
    for (int64_t d = 0; d < head; ++d)
#pragma GCC unroll 16
      for (int v = 0; v < kVectorsAtOnce; ++v) {
        const Floats key = load<Floats>(keys + d * kKeysPerChunk + column + v * kLanes);
#pragma GCC unroll 16
        for (int r = 0; r < kRows; ++r) sum[r][v] += query[r * head + d] * key;
      }
#pragma GCC unroll 16
    for (int r = 0; r < kRows; ++r)
#pragma GCC unroll 16
      for (int v = 0; v < kVectorsAtOnce; ++v) store(scores + r * kKeysPerChunk + column + v * kLanes, sum[r][v]);
  }
}

template <int kRows>
inline void weigh_rows(const float* weights, const float* values, int64_t count, int64_t head, float* sums) {
  // The padded head is a multiple of 16 floats, of which kVectorsAtOnce vectors may be more.
  for (int64_t d = 0; d < head; d += kVectorsAtOnce * kLanes) {
    const int vectors = static_cast<int>(least(kVectorsAtOnce, (head - d) / kLanes));
    Floats sum[kRows][kVectorsAtOnce] = {};
#pragma GCC unroll 16
    for (int r = 0; r < kRows; ++r)
#pragma GCC unroll 16
      for (int v = 0; v < kVectorsAtOnce; ++v)
        if (v < vectors) sum[r][v] = load<Floats>(sums + r * head + d + v * kLanes);
    if (vectors == kVectorsAtOnce) {
      for (int64_t i = 0; i < count; ++i)
#pragma GCC unroll 16
        for (int v = 0; v < kVectorsAtOnce; ++v) {
          const Floats value = load<Floats>(values + i * head + d + v * kLanes);
#pragma GCC unroll 16
          for (int r = 0; r < kRows; ++r) sum[r][v] += weights[r * kKeysPerChunk + i] * value;
        }
    } else {
      for (int64_t i = 0; i < count; ++i)
        for (int v = 0; v < vectors; ++v) {
          const Floats value = load<Floats>(values + i * head + d + v * kLanes);
#pragma GCC unroll 16
          for (int r = 0; r < kRows; ++r) sum[r][v] += weights[r * kKeysPerChunk + i] * value;
        }
    }
#pragma GCC unroll 16
    for (int r = 0; r < kRows; ++r)
#pragma GCC unroll 16
      for (int v = 0; v < kVectorsAtOnce; ++v)
        if (v < vectors) store(sums + r * head + d + v * kLanes, sum[r][v]);
  }
}

template <int kRows = kRowsAtOnce>
inline void score(int64_t rows, const float* query, const float* keys, int64_t head, float* scores) {
  if constexpr (kRows > 1)
    if (rows < kRows) return score<kRows - 1>(rows, query, keys, head, scores);
  score_rows<kRows>(query, keys, head, scores);
}

template <int kRows = kRowsAtOnce>
inline void weigh(int64_t rows, const float* weights, const float* values, int64_t count, int64_t head, float* sums) {
  if constexpr (kRows > 1)
    if (rows < kRows) return weigh<kRows - 1>(rows, weights, values, count, head, sums);
  weigh_rows<kRows>(weights, values, count, head, sums);
}

inline void scale_row(const float* from, int64_t count, float scale, float* to, int64_t padded) {
  for (int64_t d = 0; d < padded; ++d) to[d] = d < count ? from[d] * scale : 0.0f;
}

// How a chunk's keys and values are read and multiplied with a few query rows. As floats, unless there are instructions for pairs of T.
template <class T>
struct Chunk {
  static int64_t query_width(int64_t head) { return head; }
  static void take_query(const float* from, const Attention& op, int64_t head, float* query) {
    scale_row(from, op.head_dim, op.scale, query, head);
  }
  static void read(const Attention& op, const AttentionItem& item, int64_t first, int64_t count, const AttentionScratch& s) {
    read_chunk<T>(op, item, first, count, s);
  }
  static void score(int64_t rows, const float* query, const float* keys, int64_t head, float* scores) {
    VARIANT::score(rows, query, keys, head, scores);
  }
  static void take_weights(float*) {}
  static void weigh(int64_t rows, const float* weights, const float* values, int64_t count, int64_t head, float* sums) {
    VARIANT::weigh(rows, weights, values, count, head, sums);
  }
};

#if defined(__AVX512BF16__)
#include "attention_dot.h"
#endif

// Turn a row's scores into weights, of keys in [low, high) of the chunk; rescale its sums to the new maximum.
inline void soften(float* scores, int64_t low, int64_t high, float* sums, int64_t head, Softmax& state) {
  Ints lane;
  for (int i = 0; i < kLanes; ++i) lane[i] = i;
  const Floats hidden = splat(-__builtin_inff());
  const Ints begin = Ints{} + static_cast<int32_t>(low), end = Ints{} + static_cast<int32_t>(high);
  Floats best = hidden;
  for (int i = 0; i < kKeysPerChunk; i += kLanes) {
    const Ints key = lane + i;
    const Floats seen = (key >= begin) & (key < end) ? load<Floats>(scores + i) : hidden;
    store(scores + i, seen);
    best = max_of(best, seen);
  }
  const float largest = largest_of(best);
  const float maximum = largest > state.maximum ? largest : state.maximum;
  Floats denominator = {};
  for (int i = 0; i < kKeysPerChunk; i += kLanes) {
    const Floats weight = exp_of(load<Floats>(scores + i) - maximum);
    store(scores + i, weight);
    denominator += weight;
  }
  if (maximum > state.maximum) {
    const float shrink = exp_of(splat(state.maximum - maximum))[0];
    for (int64_t d = 0; d < head; d += kLanes) store(sums + d, load<Floats>(sums + d) * shrink);
    state.denominator *= shrink;
    state.maximum = maximum;
  }
  state.denominator += sum_of(denominator);
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

inline float* output_row(const Attention& op, const AttentionItem& item, int64_t r) {
  const int64_t group = op.heads / op.kv_heads, row = op.first_rows[item.seq] + item.first_row + r / group;
  return op.out + (row * op.heads + item.kv_head * group + r % group) * op.head_dim;
}

inline void write_row(const float* totals, Softmax total, int64_t width, float* out) {
  const float scale = total.denominator > 0.0f ? 1.0f / total.denominator : 0.0f;
  for (int64_t d = 0; d < width; ++d) out[d] = totals[d] * scale;
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

template <class T>
inline void attention_of(const Attention& op, const AttentionItem& item, void* memory) {
  const int64_t head = padded_head(op.head_dim), group = op.heads / op.kv_heads, rows = item.rows * group;
  const int64_t width = Chunk<T>::query_width(head);
  AttentionScratch s;
  lay_out(rows, head, memory, &s);
  for (int64_t r = 0; r < rows; ++r) {
    const int64_t row = op.first_rows[item.seq] + item.first_row + r / group;
    const float* from = op.query + (row * op.heads + item.kv_head * group + r % group) * op.head_dim;
    Chunk<T>::take_query(from, op, head, s.query + r * width);
  }
  reset(s.totals, s.total, rows, head);
  // Positions of the item's query rows; a row sees keys up to its own.
  const int64_t first = op.context_lens[item.seq] - op.q_seq_lens[item.seq] + item.first_row, last = first + item.rows - 1;
  const int64_t window = op.window ? op.window : last + 1;
  for (int64_t p = item.first_partition; p < item.first_partition + item.partitions; ++p) {
    reset(s.sums, s.part, rows, head);
    const int64_t end = least((p + 1) * kKeysPerPartition, last + 1);
    for (int64_t start = p * kKeysPerPartition; start < end; start += kKeysPerChunk) {
      if (start + kKeysPerChunk <= first - window + 1) continue;  // behind every row's window
      const int64_t count = least(kKeysPerChunk, end - start);
      Chunk<T>::read(op, item, start, count, s);
      for (int64_t r = 0; r < rows; r += kRowsAtOnce)
        Chunk<T>::score(least(kRowsAtOnce, rows - r), s.query + r * width, s.keys, head, s.scores + r * kKeysPerChunk);
      for (int64_t r = 0; r < rows; ++r) {
        const int64_t position = first + r / group;
        soften(s.scores + r * kKeysPerChunk, position - window + 1 - start, position + 1 - start, s.sums + r * head, head, s.part[r]);
        Chunk<T>::take_weights(s.scores + r * kKeysPerChunk);
      }
      for (int64_t r = 0; r < rows; r += kRowsAtOnce)
        Chunk<T>::weigh(least(kRowsAtOnce, rows - r), s.scores + r * kKeysPerChunk, s.values, count, head, s.sums + r * head);
    }
    for (int64_t r = 0; r < rows; ++r) add_partition(s.totals + r * head, s.total[r], s.sums + r * head, s.part[r], head);
  }
  for (int64_t r = 0; r < rows; ++r) {
    if (item.partial < 0) {
      write_row(s.totals + r * head, s.total[r], op.head_dim, output_row(op, item, r));
    } else {
      write_partial(s.totals + r * head, s.total[r], head, op.partials + item.partial + r * (head + 2));
    }
  }
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
    write_row(totals, total, op.head_dim, output_row(op, *parts, r));
  }
}
