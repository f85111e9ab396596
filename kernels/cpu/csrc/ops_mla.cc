// The operators of multi-head latent attention, see op.h.
#include "products.h"

// x [T, H * K], weight [H, panels, ...], num_tokens [1] -> [T, H * N]
OP(transpose_batch_matmul_transpose, 3) {
  MatMul shared = {};
  if (!weight_dtype_of(dtypes[1], &shared.dtype)) return 1;
  const int64_t heads = shapes[1][0], k = shapes[0][1] / heads, width = shapes[3][1] / heads;
  shared.k = k, shared.x_stride = heads * k;
  shared.panels = shapes[1][1];
  shared.rows = count_of(params, 2, shapes[0][0]);
  shared.num_outputs = 1;
  shared.width[0] = width, shared.stride[0] = heads * width;
  MatMul* ops = scratch_products(heads);
  for (int64_t h = 0; h < heads; ++h) {
    ops[h] = shared;
    ops[h].x = in<float>(params, 0) + h * k;
    ops[h].out[0] = out<float>(params, 3) + h * width;
    ops[h].weight = in<char>(params, 1) + h * group_bytes(shared.dtype, shared.panels, k);
  }
  run_all(ops, heads);
  return 0;
}

namespace {

constexpr int64_t kHeadsPerItem = 16, kRowsPerItem = 48;

// Items of all sequences: one that decodes is split over its partitions, prompts are cut into tiles. Without room only counts.
struct MlaPlan {
  int64_t items = 0, splits = 0, partial_floats = 0;

  MlaPlan(const Mla& op, int64_t seqs, int64_t tokens, MlaItem* items_out, int64_t* first_rows, int64_t* first_positions, int64_t* first_parts) {
    const int64_t group = std::min(op.heads, kHeadsPerItem), tile = kRowsPerItem / group;
    int64_t row = 0;
    for (int64_t s = 0; s < seqs; ++s) {
      const int64_t new_tokens = std::clamp<int64_t>(op.q_seq_lens[s], 0, tokens - row);
      const int64_t context = std::clamp<int64_t>(op.context_lens[s], new_tokens, op.blocks_per_seq * op.block_size);
      if (items_out) first_rows[s] = row, first_positions[s] = context - new_tokens;
      row += new_tokens;
      const int64_t tiles = (new_tokens + tile - 1) / tile;
      for (int64_t t = tiles - 1; t >= 0; --t) {  // the last tiles see the most keys: begin with them
        const int64_t first = t * tile, rows = std::min(tile, new_tokens - first), end = context - new_tokens + first + rows;
        const int64_t partitions = (end + kKeysPerPartition - 1) / kKeysPerPartition;
        const bool is_split = tiles == 1 && partitions > 1;
        for (int64_t h = 0; h < op.heads; h += group) {
          const int64_t heads = std::min(group, op.heads - h);
          if (is_split && items_out) first_parts[splits] = items;
          splits += is_split;
          for (int64_t p = 0; p < (is_split ? partitions : 1); ++p, ++items) {
            if (items_out)
              items_out[items] = {static_cast<int32_t>(s), static_cast<int32_t>(h), static_cast<int32_t>(heads), static_cast<int32_t>(first),
                                  static_cast<int32_t>(rows), static_cast<int32_t>(p), static_cast<int32_t>(is_split ? 1 : partitions),
                                  is_split ? partial_floats : -1};
            if (is_split) partial_floats += floats_of_sums(1, rows * heads, whole_vectors(op.rank));
          }
        }
      }
    }
  }
};

}  // namespace

// query [T, H * rank], q_rope [T, H * rope], kv_cache [blocks, block_size, 1, rank], k_rope [blocks, block_size, 1, rope],
// block_tables [S, B], context_lens [S], q_seq_lens [S], scale [1], num_seqs [1] -> [T, H * rank]
OP(mla, 9) {
  Mla op = {};
  if (!dtype_of(dtypes[2], &op.dtype)) return 1;
  op.query = in<float>(params, 0), op.query_rope = in<float>(params, 1);
  op.latent_cache = params[2], op.rope_cache = params[3];
  op.block_tables = in<int32_t>(params, 4), op.context_lens = in<int32_t>(params, 5), op.q_seq_lens = in<int32_t>(params, 6);
  op.scale = *in<float>(params, 7);
  op.out = out<float>(params, 9);
  op.block_size = shapes[2][1], op.rank = shapes[2][3], op.rope = shapes[3][3];
  op.heads = shapes[0][1] / op.rank;
  op.blocks_per_seq = shapes[4][1];
  const int64_t seqs = count_of(params, 8, shapes[4][0]), tokens = shapes[0][0];

  const MlaPlan size(op, seqs, tokens, nullptr, nullptr, nullptr, nullptr);
  op.partials = static_cast<float*>(scratch(Purpose::items, size.partial_floats * 4 + size.items * sizeof(MlaItem) + (2 * seqs + size.splits) * 8));
  MlaItem* items = reinterpret_cast<MlaItem*>(op.partials + size.partial_floats);
  int64_t *first_rows = reinterpret_cast<int64_t*>(items + size.items), *first_positions = first_rows + seqs, *first_parts = first_positions + seqs;
  const MlaPlan plan(op, seqs, tokens, items, first_rows, first_positions, first_parts);
  op.first_rows = first_rows, op.first_positions = first_positions;

  const Kernels& isa = kernels();
  const int64_t scratch_bytes = isa.mla_scratch(op, kRowsPerItem);
  team_run(plan.items, [&](int64_t i) { isa.mla(op, items[i], scratch(Purpose::attention, scratch_bytes)); });
  team_run(plan.splits, [&](int64_t i) {
    int64_t end = first_parts[i];
    const MlaItem& first = items[end];
    while (end < plan.items && items[end].partial >= 0 && items[end].seq == first.seq && items[end].first_head == first.first_head) ++end;
    isa.mla_merge(op, &first, end - first_parts[i]);
  });
  return 0;
}
