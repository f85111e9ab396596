#define VARIANT avx512bf16
#define VARIANT_NAME "avx512bf16"
#include "variant.h"
