// The operators of mixtures of experts, see op.h.
#include "products.h"

// logits [T, E], [bias [E],] group_num, group_topk, n, is_norm, scale [1], num_tokens [1] -> weights [T, K], experts [T, K]
static int gating_op(void** params, int64_t** shapes, bool sigmoid) {
  const int first = 1 + sigmoid;  // only the sigmoid's experts have a bias
  Gating op = {};
  op.logits = in<float>(params, 0);
  op.bias = sigmoid ? in<float>(params, 1) : nullptr;
  op.groups = *in<int32_t>(params, first), op.chosen_groups = *in<int32_t>(params, first + 1);
  op.group_scores = *in<int32_t>(params, first + 2);
  op.normalize = *in<int32_t>(params, first + 3);
  op.scale = *in<float>(params, first + 4);
  op.weights = out<float>(params, first + 6), op.experts_out = out<int32_t>(params, first + 7);
  op.experts = shapes[0][1], op.chosen = shapes[first + 6][1];
  if (op.experts > kMaxExperts) return 1;
  op.sigmoid = sigmoid;
  // Choosing passes over the scores once for each choice.
  for_rows(count_of(params, first + 5, shapes[0][0]), op.experts * (op.chosen + 8), [&](int64_t begin, int64_t end) { kernels().gating(op, begin, end); });
  return 0;
}

OP(fused_add_topk_div, 8) { return gating_op(params, shapes, true); }
OP(moe_gating_topk_softmax, 7) { return gating_op(params, shapes, false); }

// x [T, C], expert_idx [T, K], num_tokens [1] -> expanded_x [T * K, C], expanded_row_idx [T * K], expert_tokens [E]
OP(moe_init_routing, 3) {
  const int64_t columns = shapes[0][1], chosen = shapes[1][1], experts = shapes[5][0];
  const int64_t entries = count_of(params, 2, shapes[0][0]) * chosen;
  const int32_t* expert_idx = in<int32_t>(params, 1);
  float* expanded = out<float>(params, 3);
  int32_t *positions = out<int32_t>(params, 4), *ends = out<int32_t>(params, 5);
  // A counting sort, which keeps the order of tokens within an expert.
  int32_t* next = static_cast<int32_t*>(scratch(Purpose::items, (experts + 1) * sizeof(int32_t)));
  std::fill(next, next + experts + 1, 0);
  for (int64_t i = 0; i < entries; ++i) ++next[std::clamp<int64_t>(expert_idx[i], 0, experts - 1) + 1];
  for (int64_t e = 0; e < experts; ++e) ends[e] = next[e + 1] += next[e];
  for (int64_t i = 0; i < entries; ++i) positions[i] = next[std::clamp<int64_t>(expert_idx[i], 0, experts - 1)]++;
  for_rows(entries, columns, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i)
      std::memcpy(expanded + positions[i] * columns, in<float>(params, 0) + i / chosen * columns, columns * sizeof(float));
  });
  return 0;
}

// x [M, K], weight [E, panels, ...], group_list [E] -> [M, N]; rows up to group_list[e] that are no other expert's are e's
static int grouped_matmul_op(void** params, int64_t** shapes, const char** dtypes, bool gated) {
  MatMul shared = {};
  if (!weight_dtype_of(dtypes[1], &shared.dtype)) return 1;
  const int64_t experts = shapes[1][0], k = shapes[0][1], width = shapes[3][1];
  shared.k = shared.x_stride = k;
  shared.panels = shapes[1][1];
  shared.gated = gated;
  shared.num_outputs = 1;
  shared.width[0] = shared.stride[0] = width;
  MatMul* ops = scratch_products(experts);
  int64_t count = 0, first = 0;
  for (int64_t e = 0; e < experts; ++e) {
    const int64_t end = std::clamp<int64_t>(in<int32_t>(params, 2)[e], first, shapes[0][0]);
    if (end == first) continue;  // an expert without tokens costs nothing
    MatMul op = shared;
    op.x = in<float>(params, 0) + first * k;
    op.out[0] = out<float>(params, 3) + first * width;
    op.weight = in<char>(params, 1) + e * group_bytes(op.dtype, op.panels, k);
    op.rows = end - first;
    ops[count++] = op;
    first = end;
  }
  run_all(ops, count);
  return 0;
}

OP(grouped_matmul, 3) { return grouped_matmul_op(params, shapes, dtypes, false); }
OP(grouped_matmul_swiglu, 3) { return grouped_matmul_op(params, shapes, dtypes, true); }

// permuted_tokens [T * K, C], sorted_indices [T * K], probs [T, K], num_tokens [1] -> [T, C]
OP(moe_token_unpermute, 4) {
  Unpermute op = {in<float>(params, 0), in<int32_t>(params, 1), in<float>(params, 2), out<float>(params, 4), shapes[0][1], shapes[2][1], shapes[0][0]};
  for_rows(count_of(params, 3, shapes[2][0]), op.width * op.chosen, [&](int64_t begin, int64_t end) { kernels().unpermute(op, begin, end); });
  return 0;
}

// x1 [T, C], x2 [T, C], num_tokens [1] -> [T, C]
OP(add, 3, params_at(0, 1)) {
  const int64_t columns = shapes[0][1];
  for_rows(count_of(params, 2, shapes[0][0]), columns, [&](int64_t begin, int64_t end) {
    kernels().add(in<float>(params, 0) + begin * columns, in<float>(params, 1) + begin * columns, (end - begin) * columns,
                  out<float>(params, 3) + begin * columns);
  });
  return 0;
}

// x [T, C], gate [T, 1], num_tokens [1] -> [T, C]
OP(sigmoid_mul, 3, params_at(0, 1)) {
  const int64_t columns = shapes[0][1];
  for_rows(count_of(params, 2, shapes[0][0]), columns, [&](int64_t begin, int64_t end) {
    kernels().sigmoid_mul(in<float>(params, 0), in<float>(params, 1), columns, begin, end, out<float>(params, 3));
  });
  return 0;
}
