// Weights into the order in which the matrix products read them.
#pragma once

#include <cstdint>

#include "kernels.h"

struct PackWeight {
  const void* const* parts;  // row-major [rows[i], k], one below the other
  const int64_t* rows;
  int64_t num_parts, k;
  Dtype from, to;
  bool interleaved;  // two parts, of which 16 rows of each make a panel
  void* out;
  const float* const* scales;  // of int8 parts, [rows[i]] for each
};

// Whether all values of the result are finite.
bool pack_weight(const PackWeight&);
