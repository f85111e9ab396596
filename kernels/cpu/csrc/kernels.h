// What the operators need computed, and the table of functions that compute it on one instruction set.
//
// Every function works on a range of rows, panels or items, so that a thread team can share an operator. No result
// depends on how the ranges are cut.
#pragma once

#include <cstdint>

enum class Dtype : int { bf16 = 0, f16 = 1, f32 = 2, i8 = 3 };

// Weights are packed in panels of 32 output features: [ceil(N / 32)][ceil(K / 2)][32][2] for 2-byte types (two
// consecutive inputs k lie side by side, as dot-product instructions want them) and [ceil(N / 32)][K][32] for float32. A panel of
// int8 weights begins with the 32 scales of its features, float32, by which they are multiplied; [ceil(K / 2)][32][2] follows. Where there are tile
// registers for bfloat16 (Kernels::tile), each 16 of those pairs, and what is left, lie as [2][pairs][16][2], as registers are loaded.
constexpr int64_t kPanel = 32;
constexpr int64_t kScaleBytes = kPanel * 4;

// Up to a multiple of `together`.
inline int64_t whole(int64_t count, int64_t together) { return (count + together - 1) / together * together; }
inline int64_t even(int64_t k) { return whole(k, 2); }

inline int64_t panel_bytes(Dtype dtype, int64_t k) {
  switch (dtype) {
    case Dtype::f32: return k * kPanel * 4;
    case Dtype::i8: return kScaleBytes + even(k) * kPanel;
    default: return even(k) * kPanel * 2;
  }
}

// Where a pair of inputs of one feature is among those of a panel.
inline int64_t place_of_pair(int64_t tile, int64_t pairs, int64_t pair, int64_t lane) {
  const int64_t first = pair / tile * tile, height = pairs - first < tile ? pairs - first : tile;
  return first * kPanel + (lane / tile * height + pair - first) * tile + lane % tile;
}

// The KV cache of paged attention lies, within a block, head by head: matrices of keys [head_dim, 16], one for each 16 slots, and one of
// values [block_size, head_dim], all with their rows in pairs where the type has 2 bytes. So the scores of neighbouring slots, and the sums
// of neighbouring dimensions, are computed side by side from what is read in one piece. Where an element of such a matrix [n, m] is:
inline int64_t place_in_pairs(int64_t together, int64_t i, int64_t j, int64_t n, int64_t m) {
  const int64_t first = i / together * together, side_by_side = n - first < together ? n - first : together;
  return first * m + j * side_by_side + i - first;
}
constexpr int64_t kSlotsTogether = 16;  // whole vectors of them, if a block's size is a multiple

// Where dimension d of a slot's key is among the keys of one head in a block of `size` slots.
inline int64_t place_of_key(int64_t together, int64_t d, int64_t slot, int64_t dim, int64_t size) {
  const int64_t first = slot / kSlotsTogether * kSlotsTogether, width = size - first < kSlotsTogether ? size - first : kSlotsTogether;
  return first * dim + place_in_pairs(together, d, slot - first, dim, width);
}

constexpr int64_t kKeysPerChunk = 64;        // keys whose scores are computed at once
constexpr int64_t kKeysPerPartition = 512;   // keys after which partial softmax sums are merged
constexpr int kMaxOutputs = 4;

// What an item of attention is computed with: for each of its KV heads some rows of `head` floats, padded, with room for whole tiles if they fill one.
constexpr int64_t kFewDimensions = 512;  // that the KV heads of an item have together, if they are several
inline int64_t whole_vectors(int64_t count) { return whole(count, 16); }  // of any instruction set
inline int64_t rows_of_head(int64_t rows) { return rows < 16 ? rows : whole_vectors(rows); }
// Floats of their running sums: numerators, and of each row a maximum and a denominator.
inline int64_t floats_of_sums(int64_t kv_heads, int64_t rows, int64_t head) { return kv_heads * (rows_of_head(rows) * head + 2 * whole_vectors(rows)); }

// Rows of activations are float32. Where products round them to bfloat16 in any case (Kernels::rounds_rows), an operator that nothing but such
// products reads may be asked for rows that are rounded already. As many as a tile has (Kernels::tile) lie together: [tiles, width / 32, tile, 32].
struct MatMul {
  const void* x;         // [rows, k], rows x_stride values apart
  bool x_rounded;        // k is then x_stride and a multiple of kRoundedColumns
  const void* weight;    // packed
  const float* bias;     // [n] or null; gate then up, [2 * width[0]], where gated
  void* room;            // for the rows from first_packed on as tiles read them
  const void* packed_rows;  // where they are
  int64_t first_packed;
  int64_t rows, k, panels, x_stride;
  int64_t tiles;         // the rows are cut into this many nearly equal tiles
  int64_t together;      // rows: tiles begin at multiples of them
  Dtype dtype;
  bool gated;            // panels hold 16 gate and 16 up features alternately: out = silu(gate) * up
  int num_outputs;       // the n features are spread over these
  void* out[kMaxOutputs];
  bool out_rounded;      // of what is gated
  int64_t width[kMaxOutputs], stride[kMaxOutputs];  // of an output: its features, and the values between its rows
};
constexpr int64_t kRoundedColumns = 32;

// Of nearly equal tiles that begin at multiples of `together`.
inline int64_t tile_begin(int64_t rows, int64_t tiles, int64_t tile, int64_t together = 1) {
  const int64_t begin = whole(rows * tile / tiles, together);
  return begin < rows ? begin : rows;
}
inline int64_t tile_begin(const MatMul& m, int64_t tile) { return tile_begin(m.rows, m.tiles, tile, m.together); }

struct Embedding {
  const void* weight;  // packed
  const int32_t* token_ids;
  float* out;  // [rows, hidden]
  int64_t ids, hidden;
  Dtype dtype;
};

struct RmsNorm {
  const float* x;
  const float* add;    // null, or what is added to x first
  const float* gamma;  // [group]
  void* y;
  bool y_rounded;
  float* sum;          // x + add, where add is given
  int64_t width;       // floats per row, a multiple of group
  int64_t group;
  float epsilon;
};

struct Rope {
  const float *query, *key;  // [rows, heads * head_dim], [rows, kv_heads * head_dim]
  const float *cos, *sin;    // [positions, rotary]
  const int32_t* position_ids;
  float *query_out, *key_out;
  int64_t heads, kv_heads, head_dim, rotary, positions;
};

struct CacheWrite {
  const float *key, *value;  // [rows, key_width], [rows, value_width]
  void *key_cache, *value_cache;
  const int32_t* slot_mapping;
  int64_t key_width, value_width, slots;
  int64_t kv_heads, block_size;  // of the cache of paged attention
  bool latent;                   // rows as they come, for latent attention
  Dtype dtype;
};

struct AttentionItem {
  int32_t seq;
  int32_t first_kv_head, kv_heads;
  int32_t first_row;      // of the sequence's own query rows
  int32_t rows;
  int32_t first_partition, partitions;
  int64_t partial;        // offset of its running sums in Attention::partials, or -1 when it writes results
};

struct Attention {
  const float* query;  // [rows, heads * head_dim]
  const void *key_cache, *value_cache;  // [blocks, block_size, kv_heads, head_dim]
  const int32_t *block_tables, *context_lens, *q_seq_lens;
  const int64_t* first_rows;  // [seqs], row of each sequence's first query
  const int64_t* first_positions;  // [seqs], its position
  void* out;
  bool out_rounded;
  float* partials;  // running sums of split items
  const AttentionItem* items;
  int64_t num_items;
  int64_t heads, kv_heads, head_dim, block_size, blocks, blocks_per_seq;
  float scale;
  int64_t window;  // 0: none
  Dtype dtype;
};

// Which experts a token goes to, and with which weights.
struct Gating {
  const float* logits;  // [rows, experts]
  const float* bias;    // [experts] or null: added to the scores for the choice, not for the weights
  float* weights;       // [rows, chosen], largest score first
  int32_t* experts_out; // [rows, chosen]
  int64_t experts, chosen;
  int64_t groups, chosen_groups;  // only experts of the best groups are chosen
  int64_t group_scores;           // as many of its best scores are a group's score
  bool sigmoid;                   // or softmax
  bool normalize;                 // weights sum to 1 before they are scaled
  float scale;
};
constexpr int64_t kMaxExperts = 1024;

struct Unpermute {
  const float* x;           // [rows * chosen, width], by expert
  const int32_t* positions; // [rows * chosen], row of x that holds each token's answers
  const float* weights;     // [rows, chosen]
  float* out;               // [rows, width]
  int64_t width, chosen, x_rows;
};

struct MlaItem {
  int32_t seq, first_head, heads;
  int32_t first_row, rows;  // of the sequence's own query rows
  int32_t first_partition, partitions;
  int64_t partial;          // offset of its running sums in Mla::partials, or -1 when it writes results
};

struct Mla {
  const float *query, *query_rope;       // [rows, heads * rank], [rows, heads * rope]
  const void *latent_cache, *rope_cache; // [blocks, block_size, 1, rank], [blocks, block_size, 1, rope]
  const int32_t *block_tables, *context_lens, *q_seq_lens;
  const int64_t *first_rows, *first_positions;
  float* out;                            // [rows, heads * rank]
  float* partials;                       // running sums of split items
  int64_t heads, rank, rope, block_size, blocks_per_seq;
  float scale;
  Dtype dtype;
};

struct Kernels {
  const char* name;
  int max_tile_rows[4];  // of a product with weights of a Dtype
  bool rounds_rows;      // of products with weights of bfloat16
  int64_t tile;          // rows, pairs of inputs and features of a tile register for bfloat16; 1 where there is none
  int64_t cached_bytes;  // of rows, in the second-level cache while panels pass
  const void* (*pack_rows)(const MatMul&, int64_t tile_begin, int64_t tile_end);  // returns where they are: in MatMul::room, or where they were
  void (*matmul)(const MatMul&, int64_t panel_begin, int64_t panel_end, int64_t tile_begin, int64_t tile_end);
  void (*embedding)(const Embedding&, int64_t row_begin, int64_t row_end);
  void (*rms_norm)(const RmsNorm&, int64_t row_begin, int64_t row_end);
  void (*rope)(const Rope&, int64_t row_begin, int64_t row_end);
  void (*cache_write)(const CacheWrite&, int64_t row_begin, int64_t row_end);
  int64_t (*attention_scratch)(const Attention&, int64_t rows, int64_t kv_heads);  // bytes that attention() needs for an item
  void (*attention)(const Attention&, const AttentionItem&, void* scratch);
  void (*merge)(const Attention&, const AttentionItem* parts, int64_t count);
  int32_t (*argmax)(const float* x, int64_t count);  // the lowest index among equals
  // out = e^((x - best) / temperature), with room for whole vectors; 0 of what is no number
  void (*exponentials)(const float* x, int64_t count, float best, float temperature, float* out);
  void (*gating)(const Gating&, int64_t row_begin, int64_t row_end);
  void (*unpermute)(const Unpermute&, int64_t row_begin, int64_t row_end);
  void (*add)(const float* x1, const float* x2, int64_t count, float* out);
  void (*sigmoid_mul)(const float* x, const float* gate, int64_t width, int64_t row_begin, int64_t row_end, float* out);
  int64_t (*mla_scratch)(const Mla&, int64_t rows);  // bytes that mla() needs for an item of so many rows, heads counted each
  void (*mla)(const Mla&, const MlaItem&, void* scratch);
  void (*mla_merge)(const Mla&, const MlaItem* parts, int64_t count);
};

// The instruction sets that this library was built with and this machine can run, best first; null-terminated.
const Kernels* const* available_kernels();
const Kernels& kernels();
bool set_kernels(const char* name);
