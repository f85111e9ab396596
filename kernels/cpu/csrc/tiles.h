// Rows and weights of products in tile registers (AMX), where there are any: up to 16 rows of 64 bytes each.

template <class T>
constexpr bool kTiles = false;

constexpr int64_t kTileRows = 16;

#if defined(__AMX_BF16__)
template <>
constexpr bool kTiles<Bf16> = true;

constexpr int64_t kTileBytes = 64;  // of a row: 32 values of bfloat16, or 16 sums
constexpr int64_t kTileStep = 32;   // values of a row that one instruction multiplies

struct TileShape {
  int64_t rows, bytes;  // of a row; no rows where a register is not used
};

// How the registers are used until tile_release().
inline void tile_configure(const TileShape (&shapes)[8]) {
  struct {
    uint8_t palette = 1, start = 0, reserved[14] = {};
    uint16_t row_bytes[16] = {};
    uint8_t rows[16] = {};
  } config;
  for (int i = 0; i < 8; ++i) {
    config.row_bytes[i] = static_cast<uint16_t>(shapes[i].rows ? shapes[i].bytes : 0);
    config.rows[i] = static_cast<uint8_t>(shapes[i].rows);
  }
  __asm__ volatile("ldtilecfg %0" : : "m"(config));
}

inline void tile_release() { __asm__ volatile("tilerelease"); }

template <int kTile>
inline void tile_zero() {
  __asm__ volatile("tilezero %%tmm%c0" : : "i"(kTile));
}

// Rows lie `stride` bytes apart. What is passing leaves the first-level cache to others. The compiler's own intrinsics do not tell it what they read.
template <int kTile, bool kPassing = false>
inline void tile_load(const void* from, int64_t stride) {
  if constexpr (kPassing) __asm__ volatile("tileloaddt1 (%0,%1,1), %%tmm%c2" : : "r"(from), "r"(stride), "i"(kTile) : "memory");
  else __asm__ volatile("tileloadd (%0,%1,1), %%tmm%c2" : : "r"(from), "r"(stride), "i"(kTile) : "memory");
}

template <int kTile>
inline void tile_store(void* to, int64_t stride) {
  __asm__ volatile("tilestored %%tmm%c2, (%0,%1,1)" : : "r"(to), "r"(stride), "i"(kTile) : "memory");
}

// Sums [rows, 16] += rows [rows, 32] of bfloat16 times [16, 16] pairs of them. Rows are added up each by itself, and one takes as long as 16.
template <int kSums, int kRows, int kPairs>
inline void tile_multiply() {
  __asm__ volatile("tdpbf16ps %%tmm%c2, %%tmm%c1, %%tmm%c0" : : "i"(kSums), "i"(kRows), "i"(kPairs));
}

// Rows as products read them: rounded, filled up with zeros to whole steps, of which those of 16 rows lie side by side.
inline int64_t tile_row_bytes(int64_t k) { return whole(k, kTileStep) * 2; }
#endif
