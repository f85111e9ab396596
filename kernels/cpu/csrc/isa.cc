// Which instruction set the kernels use.
#include <atomic>
#include <cstring>

#include "kernels.h"

#if defined(HAS_AMX)
#include <cpuid.h>
#include <sys/syscall.h>
#include <unistd.h>
#endif

namespace base { extern const Kernels table; }
#if defined(__x86_64__)
namespace avx2 { extern const Kernels table; }
namespace avx512 { extern const Kernels table; }
namespace avx512bf16 { extern const Kernels table; }
#if defined(HAS_AMX)
namespace amx { extern const Kernels table; }
#endif
#endif

namespace {
#if defined(HAS_AMX)
// Linux gives the registers to processes that ask for them, and none where a thread has a signal stack too small to hold them.
bool may_use_amx() {
  unsigned eax, ebx, ecx, edx;
  if (!__get_cpuid_count(7, 0, &eax, &ebx, &ecx, &edx)) return false;
  constexpr unsigned kBf16 = 1u << 22, kTile = 1u << 24;
  constexpr long kRequestPermission = 0x1023, kTileData = 18;  // ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA
  return (edx & kBf16) && (edx & kTile) && !syscall(SYS_arch_prctl, kRequestPermission, kTileData);
}
#endif

struct Available {
  const Kernels* tables[6] = {};
  Available() {
    int count = 0;
#if defined(__x86_64__)
    __builtin_cpu_init();
    // Whoever has AVX2 converts float16 as well, which g++ 10 has no name for.
    const bool has_avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
    const bool has_avx512 = has_avx2 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                            __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");
    const bool has_bf16 = has_avx512 && __builtin_cpu_supports("avx512bf16") && __builtin_cpu_supports("avx512vnni");
#if defined(HAS_AMX)
    if (has_bf16 && may_use_amx()) tables[count++] = &amx::table;
#endif
    if (has_bf16) tables[count++] = &avx512bf16::table;
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
