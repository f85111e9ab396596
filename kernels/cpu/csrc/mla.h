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
  float *sums;     // of this partition
  float *totals;   // of those before it
};

inline int64_t lay_out(int64_t rows, int64_t rank, int64_t rope, void* memory, MlaScratch* s) {
  float* next = static_cast<float*>(memory);
  const int64_t key = rank + rope, sums = floats_of_sums(1, rows, rank);
  const int64_t sizes[] = {rows * key, key * kKeysPerChunk, kKeysPerChunk * rank, kLanes * rope, rows * kKeysPerChunk, sums, sums};
  float** places[] = {&s->query, &s->keys, &s->values, &s->widened, &s->scores, &s->sums, &s->totals};
  int64_t used = 0;
  for (int i = 0; i < 7; ++i) {
    *places[i] = next + used;
    used += sizes[i];
  }
  return used * static_cast<int64_t>(sizeof(float));
}

inline int64_t mla_scratch(const Mla& op, int64_t rows) {
  MlaScratch unused;
  return lay_out(rows, whole_vectors(op.rank), whole_vectors(op.rope), nullptr, &unused);
}

// kLanes rows of `width` floats, `width` apart, become columns of [width, kKeysPerChunk].
inline void transpose_keys(const float* rows, int64_t width, float* columns) {
  for (int64_t d = 0; d < width; d += kLanes) {
    Words block[kLanes];
#pragma GCC unroll 16
    for (int i = 0; i < kLanes; ++i) block[i] = load<Words>(rows + i * width + d);
    transpose(block);
#pragma GCC unroll 16
    for (int i = 0; i < kLanes; ++i) store(columns + (d + i) * kKeysPerChunk, block[i]);
  }
}

template <class T>
inline void read_latents(const Mla& op, const MlaItem& item, int64_t first, int64_t count, const MlaScratch& s) {
  typedef typename T::Storage Storage;
  const int64_t rank = whole_vectors(op.rank), rope = whole_vectors(op.rope);
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

inline void write_output(const Mla& op, const MlaItem& item, const Sums& total, int64_t rank) {
  const Rows<float> out = {op.out, op.heads * op.rank};
  for (int64_t r = 0; r < static_cast<int64_t>(item.rows) * item.heads; ++r) {
    const int64_t row = op.first_rows[item.seq] + item.first_row + r / item.heads;
    write_row(total.of(r, rank), op.rank, out, row, (item.first_head + r % item.heads) * op.rank);
  }
}

template <class T>
inline void mla_of(const Mla& op, const MlaItem& item, void* memory) {
  const int64_t rank = whole_vectors(op.rank), rope = whole_vectors(op.rope), key = rank + rope;
  const int64_t rows = static_cast<int64_t>(item.rows) * item.heads;
  MlaScratch s;
  lay_out(rows, rank, rope, memory, &s);
  for (int64_t r = 0; r < rows; ++r) {
    const int64_t head = (op.first_rows[item.seq] + item.first_row + r / item.heads) * op.heads + item.first_head + r % item.heads;
    scale_row(op.query + head * op.rank, op.rank, op.scale, s.query + r * key, rank);
    scale_row(op.query_rope + head * op.rope, op.rope, op.scale, s.query + r * key + rank, rope);
  }
  float *const totals = item.partial < 0 ? s.totals : op.partials + item.partial, *place = totals;  // of the first partition; then they are added
  // Positions of the item's query rows; a row sees keys up to its own.
  const int64_t first = op.first_positions[item.seq] + item.first_row, last = first + item.rows - 1;
  for (int64_t p = item.first_partition; p < item.first_partition + item.partitions; ++p) {
    const Sums sums = sums_in(place, rows, rank);
    reset(sums, rows, rank);
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
          rows, s.scores, [&](int64_t r) { return Seen{0, first + r / item.heads + 1 - start}; }, [] {}, sums, rank);
      for (int64_t r = 0; r < rows; r += kRowsAtOnce)
        weigh<F32>(least(kRowsAtOnce, rows - r), s.scores + r * kKeysPerChunk, chunk, nullptr, rank, sums.numerators + r * rank);
    }
    if (place != totals) add_partition(sums_in(totals, rows, rank), sums, rows, rank);
    place = s.sums;
  }
  if (item.partial < 0) write_output(op, item, sums_in(totals, rows, rank), rank);
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
inline void mla_merge(const Mla& op, const MlaItem* parts, int64_t count) {
  const int64_t rank = whole_vectors(op.rank), rows = static_cast<int64_t>(parts->rows) * parts->heads;
  const auto sums_of = [&](int64_t i) { return sums_in(op.partials + parts[i].partial, rows, rank); };
  for (int64_t i = 1; i < count; ++i) add_partition(sums_of(0), sums_of(i), rows, rank);
  write_output(op, *parts, sums_of(0), rank);
}
