#define VARIANT avx2
#define VARIANT_NAME "avx2"
#include "variant.h"
