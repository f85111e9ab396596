#include "pack.h"

#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstring>

#include "float_mode.h"
#include "team.h"

namespace {

float float_of_bits(uint32_t bits) {
  float f;
  std::memcpy(&f, &bits, 4);
  return f;
}

uint32_t bits_of(float f) {
  uint32_t bits;
  std::memcpy(&bits, &f, 4);
  return bits;
}

// IEEE 754 conversions, to nearest even, one value at a time.
template <Dtype>
struct Format;

template <>
struct Format<Dtype::f32> {
  using Storage = float;
  static constexpr uint32_t kExponent = 0x7f800000;
  static uint32_t bits(float x) { return bits_of(x); }
  static float widen(float x) { return x; }
  static float narrow(float x) { return x; }
};

template <>
struct Format<Dtype::bf16> {
  using Storage = uint16_t;
  static constexpr uint32_t kExponent = 0x7f80;
  static uint32_t bits(uint16_t x) { return x; }
  static float widen(uint16_t x) { return float_of_bits(static_cast<uint32_t>(x) << 16); }
  static uint16_t narrow(float x) {
    const uint32_t bits = bits_of(x);
    if (std::isnan(x)) return static_cast<uint16_t>(bits >> 16 | 0x40);
    return static_cast<uint16_t>((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
  }
};

template <>
struct Format<Dtype::f16> {
  using Storage = uint16_t;
  static constexpr uint32_t kExponent = 0x7c00;
  static uint32_t bits(uint16_t x) { return x; }
  static float widen(uint16_t x) {
    const uint32_t sign = (x & 0x8000u) << 16, magnitude = x & 0x7fffu;
    if (magnitude >= 0x7c00) return float_of_bits(sign | 0x7f800000u | (magnitude & 0x3ffu) << 13);
    return float_of_bits(bits_of(float_of_bits(magnitude << 13) * 5.192296858534828e33f) | sign);  // 2^112
  }
  static uint16_t narrow(float x) {
    const uint32_t bits = bits_of(x), magnitude = bits & 0x7fffffffu;
    const uint16_t sign = static_cast<uint16_t>(bits >> 16 & 0x8000u);
    if (magnitude > 0x7f800000u) return sign | 0x7e00;
    if (magnitude >= 0x477ff000u) return sign | 0x7c00;  // rounds past the largest half
    if (magnitude < 0x38800000u) return static_cast<uint16_t>(sign | (bits_of(float_of_bits(magnitude) + 0.5f) - 0x3f000000u));
    return static_cast<uint16_t>(sign | (magnitude + 0xc8000fffu + (magnitude >> 13 & 1)) >> 13);
  }
};

// Where the row is that a lane of a panel takes.
struct Place {
  int64_t part, row;
};

// With the part -1 past the end.
Place place_of(const PackWeight& op, int64_t panel, int64_t lane) {
  if (op.interleaved) {
    const int64_t row = panel * (kPanel / 2) + lane % (kPanel / 2), part = lane / (kPanel / 2);
    return row < op.rows[part] ? Place{part, row} : Place{-1, 0};
  }
  int64_t row = panel * kPanel + lane;
  for (int64_t part = 0; part < op.num_parts; row -= op.rows[part++])
    if (row < op.rows[part]) return {part, row};
  return {-1, 0};
}

// The row that a lane of a panel takes, or null past the end.
const char* row_of(const PackWeight& op, int64_t panel, int64_t lane, int64_t row_bytes) {
  const Place place = place_of(op, panel, lane);
  return place.part < 0 ? nullptr : static_cast<const char*>(op.parts[place.part]) + place.row * row_bytes;
}

template <Dtype from, Dtype to>
bool pack_panel(const PackWeight& op, int64_t panel) {
  using From = typename Format<from>::Storage;
  using To = typename Format<to>::Storage;
  constexpr int64_t kTogether = to == Dtype::f32 ? 1 : 2;
  const int64_t steps = (op.k + kTogether - 1) / kTogether;
  const int64_t tile = to == Dtype::bf16 ? kernels().tile : 1;
  const From* rows[kPanel];
  for (int64_t lane = 0; lane < kPanel; ++lane)
    rows[lane] = reinterpret_cast<const From*>(row_of(op, panel, lane, op.k * static_cast<int64_t>(sizeof(From))));
  bool infinite = false;
  To* const panel_out = reinterpret_cast<To*>(static_cast<char*>(op.out) + panel * panel_bytes(to, op.k));
  for (int64_t step = 0; step < steps; ++step)
    for (int64_t lane = 0; lane < kPanel; ++lane) {
      To* out = panel_out + place_of_pair(tile, steps, step, lane) * kTogether;
      for (int64_t i = 0; i < kTogether; ++i) {
        const int64_t k = step * kTogether + i;
        if (!rows[lane] || k >= op.k) {
          *out++ = 0;
          continue;
        }
        // memcpy: a checkpoint's tensors need not be aligned.
        From value;
        std::memcpy(&value, rows[lane] + k, sizeof(From));
        To packed;
        if constexpr (from == to) packed = value;
        else packed = Format<to>::narrow(Format<from>::widen(value));
        infinite |= (~Format<to>::bits(packed) & Format<to>::kExponent) == 0;
        *out++ = packed;
      }
    }
  return !infinite;
}

// A panel of int8: scales, then values.
struct Int8Panel {
  float* scales;
  int8_t* values;

  Int8Panel(const PackWeight& op, int64_t panel) {
    char* out = static_cast<char*>(op.out) + panel * panel_bytes(Dtype::i8, op.k);
    scales = reinterpret_cast<float*>(out);
    values = reinterpret_cast<int8_t*>(out + kScaleBytes);
  }

  int8_t& value(int64_t lane, int64_t k) { return values[(k / 2 * kPanel + lane) * 2 + k % 2]; }
};

// Values that are int8 already, and their rows' scales.
bool copy_int8_panel(const PackWeight& op, int64_t panel) {
  Int8Panel out(op, panel);
  bool finite = true;
  for (int64_t lane = 0; lane < kPanel; ++lane) {
    const Place place = place_of(op, panel, lane);
    const int8_t* row = place.part < 0 ? nullptr : static_cast<const int8_t*>(op.parts[place.part]) + place.row * op.k;
    float scale = 0.0f;
    if (row) std::memcpy(&scale, op.scales[place.part] + place.row, sizeof(scale));  // a file may hold them anywhere
    out.scales[lane] = scale;
    finite &= std::isfinite(scale);
    for (int64_t k = 0; k < even(op.k); ++k) out.value(lane, k) = row && k < op.k ? row[k] : 0;
  }
  return finite;
}

// A row's largest magnitude becomes 127; to nearest even.
template <Dtype from>
bool quantize_panel(const PackWeight& op, int64_t panel) {
  using From = typename Format<from>::Storage;
  Int8Panel out(op, panel);
  bool finite = true;
  for (int64_t lane = 0; lane < kPanel; ++lane) {
    const char* row = row_of(op, panel, lane, op.k * static_cast<int64_t>(sizeof(From)));
    const auto value = [&](int64_t k) {
      From stored = {};
      if (row && k < op.k) std::memcpy(&stored, row + k * sizeof(From), sizeof(From));
      return Format<from>::widen(stored);
    };
    float largest = 0.0f;
    for (int64_t k = 0; k < op.k; ++k) {
      finite &= std::isfinite(value(k));
      largest = std::max(largest, std::fabs(value(k)));
    }
    const bool zero = !(largest > 1e-30f);
    out.scales[lane] = zero ? 0.0f : largest / 127.0f;
    const float inverse = zero ? 0.0f : 127.0f / largest;
    for (int64_t k = 0; k < even(op.k); ++k) out.value(lane, k) = static_cast<int8_t>(std::lrint(value(k) * inverse));
  }
  return finite;
}

template <Dtype from>
bool pack_from(const PackWeight& op, int64_t panel) {
  switch (op.to) {
    case Dtype::bf16: return pack_panel<from, Dtype::bf16>(op, panel);
    case Dtype::f16: return pack_panel<from, Dtype::f16>(op, panel);
    case Dtype::f32: return pack_panel<from, Dtype::f32>(op, panel);
    case Dtype::i8: return quantize_panel<from>(op, panel);
  }
  return false;
}

}  // namespace

bool pack_weight(const PackWeight& op) {
  int64_t rows = 0;
  for (int64_t i = 0; i < op.num_parts; ++i) rows += op.rows[i];
  const int64_t panels = op.interleaved ? (op.rows[0] + kPanel / 2 - 1) / (kPanel / 2) : (rows + kPanel - 1) / kPanel;
  std::atomic<bool> finite{true};
  const ExactFloats mode;
  team_run(panels, [&](int64_t panel) {
    bool good = true;
    switch (op.from) {
      case Dtype::bf16: good = pack_from<Dtype::bf16>(op, panel); break;
      case Dtype::f16: good = pack_from<Dtype::f16>(op, panel); break;
      case Dtype::f32: good = pack_from<Dtype::f32>(op, panel); break;
      case Dtype::i8: good = op.to == Dtype::i8 && copy_int8_panel(op, panel); break;  // nothing else is made of it
    }
    if (!good) finite.store(false, std::memory_order_relaxed);
  });
  return finite.load();
}
