// What every machine of this architecture runs: NEON on aarch64, plain vectors of four floats elsewhere.
#define VARIANT base
#if defined(__aarch64__)
#define VARIANT_NAME "neon"
#else
#define VARIANT_NAME "portable"
#endif
#include "variant.h"
