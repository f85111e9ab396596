// The operators of the dense networks, as MindSpore calls them: AOT custom operators, see op.h.
#include "products.h"

// x [T, K], weight, [bias [N],] num_tokens [1] -> `outputs` of [T, n]. False for what cannot be computed.
static bool product_of(void** params, int64_t** shapes, const char** dtypes, bool has_bias, int outputs, MatMul* op) {
  const int count = 2 + has_bias, first_output = count + 1;
  *op = {};
  if (!weight_dtype_of(dtypes[1], &op->dtype) || !rounded_of(dtypes[0], &op->x_rounded) || !rounded_of(dtypes[first_output], &op->out_rounded)) return false;
  if (outputs > kMaxOutputs) return false;
  op->x = params[0];
  op->weight = params[1];
  op->bias = has_bias ? in<float>(params, 2) : nullptr;
  op->k = op->x_stride = shapes[0][1];
  op->rows = count_of(params, count, shapes[0][0]);
  op->panels = shapes[1][0];
  op->num_outputs = outputs;
  for (int i = 0; i < outputs; ++i) {
    op->out[i] = params[first_output + i];
    op->width[i] = op->stride[i] = shapes[first_output + i][1];
  }
  return true;
}

static int matmul_op(void** params, int64_t** shapes, const char** dtypes, int nparam, bool has_bias, bool gated) {
  MatMul& op = *scratch_products(1);
  if (!product_of(params, shapes, dtypes, has_bias, nparam - 3 - has_bias, &op)) return 1;
  op.gated = gated;
  run_all(&op, 1);
  return 0;
}

OP(matmul, 3, params_at(0), params_at(0)) { return matmul_op(params, shapes, dtypes, nparam, false, false); }
OP(matmul_bias, 4, params_at(0), params_at(0)) { return matmul_op(params, shapes, dtypes, nparam, true, false); }
OP(matmul_swiglu, 3, params_at(0), params_at(0, 3)) { return matmul_op(params, shapes, dtypes, nparam, false, true); }
OP(matmul_swiglu_bias, 4, params_at(0), params_at(0, 4)) { return matmul_op(params, shapes, dtypes, nparam, true, true); }

// weight packed, token_ids [T], num_tokens [1] -> [T, hidden]; zeros for an id outside the vocabulary
OP(embedding, 3, params_at(1)) {
  Dtype dtype;
  if (!weight_dtype_of(dtypes[0], &dtype)) return 1;
  Embedding op = {params[0], in<int32_t>(params, 1), out<float>(params, 3), shapes[0][0] * kPanel, shapes[3][1], dtype};
  for_rows(count_of(params, 2, shapes[1][0]), op.hidden, [&](int64_t begin, int64_t end) { kernels().embedding(op, begin, end); });
  return 0;
}

// x [T, C], gamma [D], epsilon [1], num_tokens [1] -> [T, C]
OP(rms_norm, 4, params_at(0), params_at(4)) {
  RmsNorm op = {in<float>(params, 0), nullptr, in<float>(params, 1), params[4], false, nullptr, shapes[0][1], shapes[1][0], *in<float>(params, 2)};
  if (!rounded_of(dtypes[4], &op.y_rounded)) return 1;
  for_rows(count_of(params, 3, shapes[0][0]), op.width, [&](int64_t begin, int64_t end) { kernels().rms_norm(op, begin, end); });
  return 0;
}

// x1 [T, C], x2 [T, C], gamma [C], epsilon [1], num_tokens [1] -> y [T, C], x_sum [T, C]
OP(add_rms_norm, 5, params_at(0, 1), params_at(5)) {
  RmsNorm op = {in<float>(params, 0), in<float>(params, 1), in<float>(params, 2), params[5], false, out<float>(params, 6),
                shapes[0][1], shapes[2][0], *in<float>(params, 3)};
  if (!rounded_of(dtypes[5], &op.y_rounded)) return 1;
  for_rows(count_of(params, 4, shapes[0][0]), op.width, [&](int64_t begin, int64_t end) { kernels().rms_norm(op, begin, end); });
  return 0;
}

// query [T, H * D], key [T, KV * D], cos [P, R], sin [P, R], position_ids [T], head_dim [1], num_tokens [1] -> query, key
OP(apply_rotary_pos_emb, 7, params_at(0, 1, 4)) {
  Rope op = {};
  op.query = in<float>(params, 0), op.key = in<float>(params, 1), op.cos = in<float>(params, 2), op.sin = in<float>(params, 3);
  op.position_ids = in<int32_t>(params, 4);
  op.head_dim = *in<int32_t>(params, 5);
  op.query_out = out<float>(params, 7), op.key_out = out<float>(params, 8);
  op.heads = shapes[0][1] / op.head_dim, op.kv_heads = shapes[1][1] / op.head_dim;
  op.positions = shapes[2][0], op.rotary = shapes[2][1];
  for_rows(count_of(params, 6, shapes[0][0]), shapes[0][1] + shapes[1][1], [&](int64_t begin, int64_t end) { kernels().rope(op, begin, end); });
  return 0;
}

static int cache_op(void** params, int64_t** shapes, const char** dtypes, bool latent) {
  CacheWrite op = {};
  if (!dtype_of(dtypes[2], &op.dtype)) return 1;
  op.latent = latent;
  op.block_size = shapes[2][1], op.kv_heads = shapes[2][2];
  op.key = in<float>(params, 0), op.value = in<float>(params, 1);
  op.key_cache = params[2], op.value_cache = params[3];
  op.slot_mapping = in<int32_t>(params, 4);
  op.key_width = shapes[0][1], op.value_width = shapes[1][1];
  op.slots = shapes[2][0] * shapes[2][1];
  const auto write = [&](int64_t begin, int64_t end) { kernels().cache_write(op, begin, end); };
  const int64_t rows = count_of(params, 5, shapes[0][0]), items = 2 * team_size();
  const int64_t dearness = latent ? 1 : 8;  // of a float of a key, which goes to a line of its own, unlike a latent's
  if (latent || rows < 4 * kSlotsTogether) for_rows(rows, dearness * (op.key_width + op.value_width), write);
  else team_run(items, [&](int64_t i) { write(tile_begin(rows, items, i), tile_begin(rows, items, i + 1)); });  // what lies side by side is written together
  __atomic_store_n(out<int32_t>(params, 6), 0, __ATOMIC_RELAXED);  // blocks of a captured chain write it at once
  return 0;
}

// key, value [T, KV * D], key_cache, value_cache [blocks, block_size, KV, D], slot_mapping [T], num_tokens [1] -> [1]; see place_in_pairs
OP(reshape_and_cache, 6, params_at(0, 1, 4)) { return cache_op(params, shapes, dtypes, false); }

// latent [T, D], rope [T, E], latent_cache [blocks, block_size, 1, D], rope_cache [blocks, block_size, 1, E], slot_mapping [T], num_tokens [1] -> [1]
OP(cache_latents, 6, params_at(0, 1, 4)) { return cache_op(params, shapes, dtypes, true); }

// query [T, H * D], key_cache, value_cache [blocks, block_size, KV, D], block_tables [S, B], context_lens [S], q_seq_lens [S],
// scale [1], sliding_window [1], num_seqs [1] -> [T, H * D]
OP(paged_attention, 9, 0, params_at(9)) {
  Attention op = {};
  if (!dtype_of(dtypes[1], &op.dtype) || !rounded_of(dtypes[9], &op.out_rounded)) return 1;
  op.query = in<float>(params, 0);
  op.key_cache = params[1], op.value_cache = params[2];
  op.block_tables = in<int32_t>(params, 3), op.context_lens = in<int32_t>(params, 4), op.q_seq_lens = in<int32_t>(params, 5);
  op.scale = *in<float>(params, 6);
  op.window = *in<int32_t>(params, 7);
  op.out = params[9];
  op.blocks = shapes[1][0], op.block_size = shapes[1][1], op.kv_heads = shapes[1][2], op.head_dim = shapes[1][3];
  op.heads = shapes[0][1] / op.head_dim;
  op.blocks_per_seq = shapes[3][1];
  const int64_t seqs = count_of(params, 8, shapes[3][0]), tokens = shapes[0][0], group = op.heads / op.kv_heads;
  const int64_t tile = std::max<int64_t>(1, 48 / group);  // query positions per item
  // Where a sequence has few rows, one item may have several KV heads, whose keys are one piece of memory, and several partitions, if that leaves
  // enough items to share.
  constexpr int64_t kFewRows = 16;
  const int64_t few = kFewRows / group;
  int64_t pieces = 0;
  for (int64_t s = 0; s < seqs; ++s) {
    const int64_t context = op.context_lens[s], seen = op.window ? std::min<int64_t>(context, op.window + op.q_seq_lens[s]) : context;
    pieces += (seen + kKeysPerPartition - 1) / kKeysPerPartition;
  }
  const int64_t at_once = std::max<int64_t>(1, pieces / (16 * team_size()));
  const int64_t together = pieces < 4 * team_size() ? 1 : std::clamp<int64_t>(kFewDimensions / op.head_dim, 1, op.kv_heads);

  // Pass 0 counts, pass 1 writes: a sequence that decodes is split over its partitions, prompts are cut into tiles.
  int64_t num_items = 0, num_splits = 0, partial_floats = 0;
  AttentionItem* items = nullptr;
  int64_t *first_rows = nullptr, *first_positions = nullptr, *splits = nullptr;
  for (int pass = 0; pass < 2; ++pass) {
    int64_t item = 0, split = 0, partial = 0, row = 0;
    for (int64_t s = 0; s < seqs; ++s) {
      const int64_t new_tokens = std::clamp<int64_t>(op.q_seq_lens[s], 0, tokens - row);
      const int64_t context = std::clamp<int64_t>(op.context_lens[s], new_tokens, op.blocks_per_seq * op.block_size);
      if (pass) first_rows[s] = row, first_positions[s] = context - new_tokens;
      row += new_tokens;
      const int64_t tiles = (new_tokens + tile - 1) / tile;
      for (int64_t t = tiles - 1; t >= 0; --t) {  // the last tiles see the most keys: begin with them
        const int64_t first = t * tile, rows = std::min(tile, new_tokens - first);
        const int64_t past = context - new_tokens + first, end = past + rows;  // positions of its rows
        const int64_t begin_partition = op.window ? std::max<int64_t>(0, past - op.window + 1) / kKeysPerPartition : 0;
        const int64_t partitions = (end + kKeysPerPartition - 1) / kKeysPerPartition - begin_partition;
        const bool is_split = tiles == 1 && partitions > at_once;
        const int64_t heads_of_item = tiles == 1 && rows <= few ? together : 1;
        for (int64_t h = 0; h < op.kv_heads; h += heads_of_item) {
          const int64_t kv_heads = std::min(heads_of_item, op.kv_heads - h);
          if (is_split && pass) splits[split] = item;
          split += is_split;
          for (int64_t p = 0; p < partitions; ++item) {
            const int64_t count = is_split ? std::min(at_once, partitions - p) : partitions;
            if (pass)
              items[item] = {static_cast<int32_t>(s), static_cast<int32_t>(h), static_cast<int32_t>(kv_heads), static_cast<int32_t>(first), static_cast<int32_t>(rows),
                             static_cast<int32_t>(begin_partition + p), static_cast<int32_t>(count), is_split ? partial : -1};
            if (is_split) partial += count * floats_of_sums(kv_heads, rows * group, whole_vectors(op.head_dim));
            p += count;
          }
        }
      }
    }
    if (!pass) {
      num_items = item, num_splits = split, partial_floats = partial;
      op.partials = static_cast<float*>(scratch(Purpose::items, partial_floats * 4 + num_items * sizeof(AttentionItem) + (2 * seqs + num_splits) * 8));
      items = reinterpret_cast<AttentionItem*>(op.partials + partial_floats);
      first_rows = reinterpret_cast<int64_t*>(items + num_items);
      first_positions = first_rows + seqs;
      splits = first_positions + seqs;
    }
  }
  op.items = items;
  op.num_items = num_items;
  op.first_rows = first_rows, op.first_positions = first_positions;
  const Kernels& isa = kernels();
  const int64_t scratch_bytes = std::max(isa.attention_scratch(op, tile, 1), isa.attention_scratch(op, few, together));
  team_run(num_items, [&](int64_t i) { isa.attention(op, items[i], scratch(Purpose::attention, scratch_bytes)); });
  team_run(num_splits, [&](int64_t i) {
    int64_t end = splits[i];
    const AttentionItem& begin = items[splits[i]];
    while (end < num_items && items[end].partial >= 0 && items[end].seq == begin.seq && items[end].first_kv_head == begin.first_kv_head) ++end;
    isa.merge(op, &begin, end - splits[i]);
  });
  return 0;
}

// x [T, C], indices [L], num_logits [1] -> [L, C]
OP(gather, 3) {
  const int64_t columns = shapes[0][1], rows = count_of(params, 2, shapes[1][0]);
  const int32_t* indices = in<int32_t>(params, 1);
  for (int64_t i = 0; i < rows; ++i) {
    const int64_t row = std::clamp<int64_t>(indices[i], 0, shapes[0][0] - 1);
    std::memcpy(out<float>(params, 3) + i * columns, in<float>(params, 0) + row * columns, columns * sizeof(float));
  }
  return 0;
}

namespace {
struct Largest {
  float value;
  int32_t index;  // the lowest among equals
};
void keep_larger(Largest* best, const Largest& other) {
  if (other.value > best->value || (other.value == best->value && other.index < best->index)) *best = other;
}
}  // namespace

// x [L, K], weight, num_logits [1] -> logits [L, N], index of the largest of each row [L]
OP(matmul_argmax, 3, 0, params_at(0)) {
  constexpr int64_t kFloatsAtOnce = 16 << 10;  // are looked at while the second-level cache has them
  MatMul& op = *scratch_products(1);
  if (!product_of(params, shapes, dtypes, false, 1, &op)) return 1;
  const Kernels& isa = kernels();
  // Each thread keeps what it finds in a part of its own.
  const int64_t threads = team_size(), apart = whole(op.rows, 64 / sizeof(Largest));
  Largest* const found = static_cast<Largest*>(scratch(Purpose::found, threads * apart * sizeof(Largest)));
  std::fill_n(found, threads * apart, Largest{-std::numeric_limits<float>::infinity(), 0});
  const int64_t panels_at_once = std::max<int64_t>(1, kFloatsAtOnce / (kPanel * std::max<int64_t>(1, op.rows)));
  run_all(&op, 1, panels_at_once, [&](const MatMul& product, int64_t panel, int64_t panel_end, int64_t tile, int64_t tile_end) {
    isa.matmul(product, panel, panel_end, tile, tile_end);
    const int64_t column = panel * kPanel, columns = std::min(panel_end * kPanel, product.width[0]) - column;
    Largest* const own = found + team_number() * apart;
    for (int64_t row = tile_begin(product, tile); row < tile_begin(product, tile_end); ++row) {
      const float* const logits = static_cast<const float*>(product.out[0]) + row * product.stride[0] + column;
      const int32_t index = isa.argmax(logits, columns);
      keep_larger(&own[row], {logits[index], static_cast<int32_t>(column + index)});
    }
  });
  for (int64_t row = 0; row < op.rows; ++row) {
    for (int64_t t = 1; t < threads; ++t) keep_larger(&found[row], found[t * apart + row]);
    out<int32_t>(params, 4)[row] = found[row].index;
  }
  return 0;
}
