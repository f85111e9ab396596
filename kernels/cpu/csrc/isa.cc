// Which instruction set the kernels use.
#include <atomic>
#include <cstring>

#include "kernels.h"

namespace base { extern const Kernels table; }
#if defined(__x86_64__)
namespace avx2 { extern const Kernels table; }
namespace avx512 { extern const Kernels table; }
namespace avx512bf16 { extern const Kernels table; }
#endif

namespace {
struct Available {
  const Kernels* tables[5] = {};
  Available() {
    int count = 0;
#if defined(__x86_64__)
    __builtin_cpu_init();
    const bool has_avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("f16c");
    const bool has_avx512 = has_avx2 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                            __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");
    if (has_avx512 && __builtin_cpu_supports("avx512bf16") && __builtin_cpu_supports("avx512vnni")) tables[count++] = &avx512bf16::table;
    if (has_avx512) tables[count++] = &avx512::table;
    if (has_avx2) tables[count++] = &avx2::table;
#endif
    tables[count] = &base::table;
  }
};

const Available& available() {
  static const Available instance;
  return instance;
}

std::atomic<const Kernels*> current{nullptr};
}  // namespace

const Kernels* const* available_kernels() { return available().tables; }

const Kernels& kernels() {
  const Kernels* chosen = current.load(std::memory_order_acquire);
  if (!chosen) current.store(chosen = available().tables[0], std::memory_order_release);
  return *chosen;
}

bool set_kernels(const char* name) {
  for (const Kernels* const* table = available_kernels(); *table; ++table)
    if (!std::strcmp((*table)->name, name)) {
      current.store(*table, std::memory_order_release);
      return true;
    }
  return false;
}
