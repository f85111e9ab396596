// Multi-head latent attention (DeepSeek-V2, 2024) in its absorbed form, over a paged cache of latents.
//
// All heads share one key, [latent, rope], of which the latent is the value as well. An item is a few query positions of one sequence
// with some of its heads; chunks, partitions and their merging are those of attention.h, so a row's bits depend on nothing else.

struct MlaScratch {
  float *query;    // [rows, rank + rope, each padded], scaled
  float *keys;     // [rank + rope, kKeysPerChunk]
  float *values;   // [kKeysPerChunk, rank]
  float *widened;  // [kLanes, rope]
  float *scores;   // [rows, kKeysPerChunk]
  float *sums;     // [rows, rank], numerators of this partition
  float *totals;   // [rows, rank], of all partitions so far
  Softmaxes part;  // of this partition
  Softmax* total;  // [rows]
};

inline int64_t lay_out(int64_t rows, int64_t rank, int64_t rope, void* memory, MlaScratch* s) {
  float* next = static_cast<float*>(memory);
  const int64_t key = rank + rope, states = room_for_rows(rows);
  const int64_t sizes[] = {rows * key, key * kKeysPerChunk, kKeysPerChunk * rank, kLanes * rope, rows * kKeysPerChunk, rows * rank, rows * rank, states, states};
  float** places[] = {&s->query, &s->keys, &s->values, &s->widened, &s->scores, &s->sums, &s->totals, &s->part.maximum, &s->part.denominator};
  int64_t used = 0;
  for (int i = 0; i < 9; ++i) {
    *places[i] = next + used;
    used += sizes[i];
  }
  s->total = reinterpret_cast<Softmax*>(next + used);
  return (used + 2 * rows) * static_cast<int64_t>(sizeof(float));
}

inline int64_t mla_scratch(const Mla& op, int64_t rows) {
  MlaScratch unused;
  return lay_out(rows, padded_head(op.rank), padded_head(op.rope), nullptr, &unused);
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

// kLanes rows of `width` floats, `width` apart, become columns of [width, kKeysPerChunk].
inline void transpose_keys(const float* rows, int64_t width, float* columns) {
  for (int64_t d = 0; d < width; d += kLanes) {
    Floats block[kLanes];
#pragma GCC unroll 16
    for (int i = 0; i < kLanes; ++i) block[i] = load<Floats>(rows + i * width + d);
    transpose(block);
#pragma GCC unroll 16
    for (int i = 0; i < kLanes; ++i) store(columns + (d + i) * kKeysPerChunk, block[i]);
  }
}

template <class T>
inline void read_latents(const Mla& op, const MlaItem& item, int64_t first, int64_t count, const MlaScratch& s) {
  typedef typename T::Storage Storage;
  const int64_t rank = padded_head(op.rank), rope = padded_head(op.rope);
  const int32_t* table = op.block_tables + item.seq * op.blocks_per_seq;
  for (int64_t group = 0; group < count; group += kLanes) {
    for (int64_t i = 0; i < kLanes; ++i) {
      float *latent = s.values + (group + i) * rank, *turned = s.widened + i * rope;
      if (group + i >= count) {
        memset(latent, 0, rank * sizeof(float));
        memset(turned, 0, rope * sizeof(float));
        continue;
      }
      const int64_t position = first + group + i;
      const int64_t slot = static_cast<int64_t>(table[position / op.block_size]) * op.block_size + position % op.block_size;
      widen_row<T>(static_cast<const Storage*>(op.latent_cache) + slot * op.rank, op.rank, latent, rank);
      widen_row<T>(static_cast<const Storage*>(op.rope_cache) + slot * op.rope, op.rope, turned, rope);
    }
    transpose_keys(s.values + group * rank, rank, s.keys + group);
    transpose_keys(s.widened, rope, s.keys + rank * kKeysPerChunk + group);
  }
}

inline float* mla_output(const Mla& op, const MlaItem& item, int64_t r) {
  const int64_t row = op.first_rows[item.seq] + item.first_row + r / item.heads;
  return op.out + (row * op.heads + item.first_head + r % item.heads) * op.rank;
}

template <class T>
inline void mla_of(const Mla& op, const MlaItem& item, void* memory) {
  const int64_t rank = padded_head(op.rank), rope = padded_head(op.rope), key = rank + rope;
  const int64_t rows = static_cast<int64_t>(item.rows) * item.heads;
  MlaScratch s;
  lay_out(rows, rank, rope, memory, &s);
  for (int64_t r = 0; r < rows; ++r) {
    const int64_t head = (op.first_rows[item.seq] + item.first_row + r / item.heads) * op.heads + item.first_head + r % item.heads;
    scale_row(op.query + head * op.rank, op.rank, op.scale, s.query + r * key, rank);
    scale_row(op.query_rope + head * op.rope, op.rope, op.scale, s.query + r * key + rank, rope);
  }
  reset(s.totals, s.total, rows, rank);
  // Positions of the item's query rows; a row sees keys up to its own.
  const int64_t first = op.context_lens[item.seq] - op.q_seq_lens[item.seq] + item.first_row, last = first + item.rows - 1;
  for (int64_t p = item.first_partition; p < item.first_partition + item.partitions; ++p) {
    reset(s.sums, s.part, rows, rank);
    const int64_t end = least((p + 1) * kKeysPerPartition, last + 1);
    for (int64_t start = p * kKeysPerPartition; start < end; start += kKeysPerChunk) {
      const int64_t count = least(kKeysPerChunk, end - start);
      read_latents<T>(op, item, start, count, s);
      Chunk chunk;
      for (int v = 0; v < kChunkVectors; ++v) chunk.keys[v] = reinterpret_cast<const char*>(s.keys + v * kLanes);
      chunk.stride = kKeysPerChunk * 4;
      chunk.runs[0] = {reinterpret_cast<const char*>(s.values), count};
      chunk.num_runs = 1;
      for (int64_t r = 0; r < rows; r += kRowsAtOnce)
        score<F32>(least(kRowsAtOnce, rows - r), s.query + r * key, key, chunk, nullptr, key, s.scores + r * kKeysPerChunk);
      soften<F32>(
          rows, s.scores, [&](int64_t r) { return Seen{0, first + r / item.heads + 1 - start}; }, s.sums, rank, s.part);
      for (int64_t r = 0; r < rows; r += kRowsAtOnce)
        weigh<F32>(least(kRowsAtOnce, rows - r), s.scores + r * kKeysPerChunk, chunk, nullptr, rank, s.sums + r * rank);
    }
    for (int64_t r = 0; r < rows; ++r) add_partition(s.totals + r * rank, s.total[r], s.sums + r * rank, s.part.of(r), rank);
  }
  for (int64_t r = 0; r < rows; ++r) {
    if (item.partial < 0) {
      write_row(s.totals + r * rank, s.total[r], op.rank, mla_output(op, item, r));
    } else {
      write_partial(s.totals + r * rank, s.total[r], rank, op.partials + item.partial + r * (rank + 2));
    }
  }
}

inline void mla(const Mla& op, const MlaItem& item, void* scratch) {
  switch (op.dtype) {
    case Dtype::bf16: return mla_of<Bf16>(op, item, scratch);
    case Dtype::f16: return mla_of<F16>(op, item, scratch);
    case Dtype::f32: return mla_of<F32>(op, item, scratch);
    case Dtype::i8: return;  // no cache has it
  }
}

// Put the partitions of one split item, in order, together. Each holds exactly one partition.
inline void mla_merge(const Mla& op, const MlaItem* parts, int64_t count, void* scratch) {
  const int64_t rank = padded_head(op.rank), rows = static_cast<int64_t>(parts->rows) * parts->heads;
  float* totals = static_cast<float*>(scratch);
  for (int64_t r = 0; r < rows; ++r) {
    Softmax total;
    reset(totals, &total, 1, rank);
    for (int64_t i = 0; i < count; ++i) merge_partial(op.partials + parts[i].partial + r * (rank + 2), rank, totals, total);
    write_row(totals, total, op.rank, mla_output(op, *parts, r));
  }
}
