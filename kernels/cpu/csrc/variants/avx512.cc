#define VARIANT avx512
#define VARIANT_NAME "avx512"
#include "variant.h"
