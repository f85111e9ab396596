// Every kernel for one instruction set, in the namespace VARIANT. Include after defining VARIANT and VARIANT_NAME.
#include "kernels.h"

#if defined(__x86_64__)
#include <immintrin.h>
#elif defined(__aarch64__)
#include <arm_neon.h>
#endif
#include <stdint.h>
#include <string.h>

namespace VARIANT {
namespace {
#include "simd.h"
#include "sums.h"
#include "tiles.h"
#include "rows.h"

#include "attention.h"
#include "matmul.h"
#include "mla.h"
#include "rowwise.h"

#include "moe.h"
}  // namespace

extern const Kernels table;
const Kernels table = {VARIANT_NAME, {kMaxRows<Bf16>, kMaxRows<F16>, kMaxRows<F32>, kMaxRows<I8>}, kDots<Bf16>, kTile<Bf16>, kCachedBytes, pack_rows, matmul, embedding, rms_norm, rope, cache_write, attention_scratch, attention, merge,
                       argmax, exponentials, gating, unpermute, add, sigmoid_mul, mla_scratch, mla, mla_merge};
}  // namespace VARIANT
