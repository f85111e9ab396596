// Matrix products on the thread team: one, or several at once, as one for each expert that has tokens or for each head.
#pragma once

#include <atomic>
#include <limits>

#include "op.h"

// The products of `scratch_products`. All have the same k, dtype and number of panels.
//
// A thread packs the rows it needs for itself, even if another packs them too: to share them would be a wait for each other, and lines that one core
// writes and others have read before go back and forth between their caches, which takes several times as long as packing does.
//
// compute(product, panel, panel_end, tile, tile_end) is called for at most so many panels at once.
template <class Compute>
void run_all(MatMul* ops, int64_t count, int64_t panels_at_once, Compute&& compute) {
  if (!count) return;
  static std::atomic<uint64_t> runs{0};
  const uint64_t run = ++runs;
  const Kernels& isa = kernels();
  const int64_t panels = ops->panels, tile_rows = isa.max_tile_rows[static_cast<int>(ops->dtype)];
  const int64_t threads = team_size(), fit = std::max<int64_t>(1, isa.cached_bytes / (ops->k * tile_rows * 2));
  // Rows that stay in the second-level cache while panels pass; of many, each thread has some of its own.
  const auto tiles_of_block = [&](int64_t tiles) {
    const int64_t most = std::min(fit, std::max<int64_t>(8, (tiles + threads - 1) / threads)), blocks = (tiles + most - 1) / most;
    return (tiles + blocks - 1) / blocks;
  };
  // Items are tiles of panels: block by block, panel by panel.
  int64_t* begins = reinterpret_cast<int64_t*>(ops + count);
  begins[0] = 0;
  for (int64_t g = 0; g < count; ++g) {
    ops[g].tiles = (ops[g].rows + tile_rows - 1) / tile_rows;
    ops[g].together = ops->dtype == Dtype::bf16 ? isa.tile : 1;
    begins[g + 1] = begins[g] + ops[g].tiles * panels;
  }
  team_run_ranges(begins[count], [&](int64_t begin, int64_t end) {
    struct Packed {
      uint64_t run;
      int64_t product, block;
      const void* rows;
    };
    thread_local Packed packed = {0, 0, 0, nullptr};
    for (int64_t g = std::upper_bound(begins, begins + count, begin) - begins - 1; begin < end;) {
      while (begin == begins[g + 1]) ++g;
      MatMul op = ops[g];
      const int64_t in_block = tiles_of_block(op.tiles), block = (begin - begins[g]) / (in_block * panels);
      const int64_t first = block * in_block, tiles = std::min(in_block, op.tiles - first), origin = begins[g] + first * panels;
      op.first_packed = tile_begin(op, first);
      op.room = scratch(Purpose::packed_rows, tiles * tile_rows * (op.k + 31) * 4);
      if (packed.run != run || packed.product != g || packed.block != block) packed = {run, g, block, isa.pack_rows(op, first, first + tiles)};
      op.packed_rows = packed.rows;
      for (const int64_t stop = std::min(end, origin + tiles * panels); begin < stop;) {
        const int64_t panel = (begin - origin) / tiles, tile = (begin - origin) % tiles;
        const int64_t some = std::min(tiles - tile, stop - begin);
        const int64_t alike = some == tiles ? std::min((stop - begin) / tiles, panels_at_once) : 1;  // whole panels
        compute(op, panel, panel + alike, first + tile, first + tile + some);
        begin += alike * some;
      }
    }
  });
}

inline void run_all(MatMul* ops, int64_t count) { run_all(ops, count, std::numeric_limits<int64_t>::max(), kernels().matmul); }

// Room for so many products and what run_all needs beside them.
inline MatMul* scratch_products(int64_t count) {
  return static_cast<MatMul*>(scratch(Purpose::items, count * sizeof(MatMul) + (count + 1) * sizeof(int64_t)));
}

// Bytes of the packed weight of one group, of a tensor [groups, panels, ...].
inline int64_t group_bytes(Dtype dtype, int64_t panels, int64_t k) { return panels * panel_bytes(dtype, k); }
