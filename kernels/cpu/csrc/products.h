// Several matrix products at once: one for each expert that has tokens, or one for each head.
#pragma once

#include "op.h"

// Run body(group, i) for each i in [0, count(group)) of each group; `begins` has room for groups + 1.
template <class Count, class F>
void team_run_groups(int64_t groups, int64_t* begins, Count&& count, F&& body) {
  begins[0] = 0;
  for (int64_t g = 0; g < groups; ++g) begins[g + 1] = begins[g] + count(g);
  team_run(begins[groups], [&](int64_t item) {
    const int64_t group = std::upper_bound(begins, begins + groups + 1, item) - begins - 1;
    body(group, item - begins[group]);
  });
}

// The products of `scratch_products`. All have the same k and number of panels, and at least one row.
inline void run_all(MatMul* ops, int64_t count) {
  if (!count) return;
  const Kernels& isa = kernels();
  int64_t* begins = reinterpret_cast<int64_t*>(ops + count);
  const int64_t k = ops->k, panels = ops->panels;
  int64_t bytes = 0;
  for (int64_t g = 0; g < count; ++g) {
    ops[g].tiles = (ops[g].rows + isa.max_tile_rows - 1) / isa.max_tile_rows;
    bytes += (ops[g].rows * (k + 1) * 4 + 63) / 64 * 64;
  }
  char* rows = static_cast<char*>(scratch(Purpose::packed_rows, bytes));
  for (int64_t g = 0; g < count; ++g) {
    ops[g].packed_rows = rows;
    rows += (ops[g].rows * (k + 1) * 4 + 63) / 64 * 64;
  }
  const int64_t tiles_worth = std::max<int64_t>(1, kFloatsWorthSharing * 4 / (k * isa.max_tile_rows));
  team_run_groups(count, begins, [&](int64_t g) { return (ops[g].tiles + tiles_worth - 1) / tiles_worth; },
                  [&](int64_t g, int64_t i) { isa.pack_rows(ops[g], i * tiles_worth, std::min(ops[g].tiles, (i + 1) * tiles_worth)); });
  // As for a single product: rows that stay in the second-level cache while panels pass.
  const int64_t block = std::max<int64_t>(1, (512 << 10) / (k * isa.max_tile_rows * 2));
  const int64_t width = std::clamp<int64_t>(panels * count / 64, 1, 4), columns = (panels + width - 1) / width;
  team_run_groups(count, begins, [&](int64_t g) { return (ops[g].tiles + block - 1) / block * columns; },
                  [&](int64_t g, int64_t i) {
                    const int64_t tile = i / columns * block, panel = i % columns * width;
                    isa.matmul(ops[g], panel, std::min(panels, panel + width), tile, std::min(ops[g].tiles, tile + block));
                  });
}

// Room for so many products and what run_all needs beside them.
inline MatMul* scratch_products(int64_t count) {
  return static_cast<MatMul*>(scratch(Purpose::items, count * sizeof(MatMul) + (count + 1) * sizeof(int64_t)));
}

// Bytes of the packed weight of one group, of a tensor [groups, panels, ...].
inline int64_t group_bytes(Dtype dtype, int64_t panels, int64_t k) { return panels * panel_bytes(dtype, k); }
