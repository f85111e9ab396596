#define VARIANT amx
#define VARIANT_NAME "amx"
#include "variant.h"
