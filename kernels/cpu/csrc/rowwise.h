// Operators that treat each row by itself.

// A token's row lies across its panel.
template <class T>
inline void embed_row(const Embedding& op, int64_t id, float* out) {
  typedef typename T::Storage Storage;
  constexpr int kTogether = T::kBytes == 4 ? 1 : 2;
  const char* panel = static_cast<const char*>(op.weight) + id / kPanel * panel_bytes(op.dtype, op.hidden);
  const Storage* from = reinterpret_cast<const Storage*>(panel);
  const int64_t steps = (op.hidden + kTogether - 1) / kTogether;
  for (int64_t k = 0; k < op.hidden; k += kLanes) {
    const int64_t count = least(kLanes, op.hidden - k);
    Storage values[kLanes] = {};
    for (int64_t i = 0; i < count; ++i) values[i] = from[place_of_pair(kTile<T>, steps, (k + i) / kTogether, id % kPanel) * kTogether + (k + i) % kTogether];
    const Floats widened = T::load_floats(values);
    memcpy(out + k, &widened, count * sizeof(float));  // the next row belongs to another thread
  }
}

inline void embed_int8_row(const Embedding& op, int64_t id, float* out) {
  const char* panel = static_cast<const char*>(op.weight) + id / kPanel * panel_bytes(op.dtype, op.hidden);
  const float scale = reinterpret_cast<const float*>(panel)[id % kPanel];
  const int8_t* from = reinterpret_cast<const int8_t*>(panel + kScaleBytes) + id % kPanel * 2;
  for (int64_t k = 0; k < op.hidden; ++k) out[k] = scale * from[k / 2 * kPanel * 2 + k % 2];
}

inline void embedding(const Embedding& op, int64_t begin, int64_t end) {
  for (int64_t row = begin; row < end; ++row) {
    const int64_t id = op.token_ids[row];
    float* out = op.out + row * op.hidden;
    if (id < 0 || id >= op.ids) {
      memset(out, 0, op.hidden * sizeof(float));
      continue;
    }
    switch (op.dtype) {
      case Dtype::bf16: embed_row<Bf16>(op, id, out); break;
      case Dtype::f16: embed_row<F16>(op, id, out); break;
      case Dtype::f32: embed_row<F32>(op, id, out); break;
      case Dtype::i8: embed_int8_row(op, id, out); break;
    }
  }
}

inline int32_t argmax(const float* x, int64_t count) {
  Floats best = splat(-__builtin_inff());
  Ints where = {}, index = kLane;
  const int64_t whole = count / kLanes * kLanes;
  for (int64_t i = 0; i < whole; i += kLanes, index += kLanes) {
    const Floats v = load<Floats>(x + i);
    const Ints larger = v > best;
    best = larger ? v : best;
    where = larger ? index : where;
  }
  float largest = -__builtin_inff();
  int32_t found = 0;
  for (int i = 0; i < kLanes && whole; ++i)
    if (best[i] > largest || (best[i] == largest && where[i] < found)) largest = best[i], found = where[i];
  for (int64_t i = whole; i < count; ++i)
    if (x[i] > largest) largest = x[i], found = static_cast<int32_t>(i);
  return found;
}

inline void exponentials(const float* x, int64_t count, float best, float temperature, float* out) {
  const auto of = [&](Floats v) {
    const Floats exponential = exp_below_88((v - best) / temperature);
    return v == v ? exponential : Floats{};
  };
  const int64_t whole = count / kLanes * kLanes;
  for (int64_t i = 0; i < whole; i += kLanes) store(out + i, of(load<Floats>(x + i)));
  for (int64_t i = whole; i < count; ++i) out[i] = of(splat(x[i]))[0];
}

template <class Out>
inline void rms_norm_group(const RmsNorm& op, const float* x, const float* add, float* total, const Out& y, int64_t row, int64_t column) {
  const int64_t whole = op.group / kLanes * kLanes;
  Floats squares = {};
  float rest = 0.0f;
  const float* source = x;
  if (add) {
    for (int64_t i = 0; i < whole; i += kLanes) store(total + i, load<Floats>(x + i) + load<Floats>(add + i));
    for (int64_t i = whole; i < op.group; ++i) total[i] = x[i] + add[i];
    source = total;
  }
  for (int64_t i = 0; i < whole; i += kLanes) {
    const Floats v = load<Floats>(source + i);
    squares += v * v;
  }
  for (int64_t i = whole; i < op.group; ++i) rest += source[i] * source[i];
  const float mean = (sum_of(squares) + rest) / static_cast<float>(op.group);
  const float scale = 1.0f / __builtin_sqrtf(mean + op.epsilon);
  for (int64_t i = 0; i < whole; i += kLanes) y.put(row, column + i, load<Floats>(source + i) * scale * load<Floats>(op.gamma + i));
  for (int64_t i = whole; i < op.group; ++i) put(y.at(row, column + i), source[i] * scale * op.gamma[i]);
}

inline void rms_norm(const RmsNorm& op, int64_t begin, int64_t end) {
  to_rows(op.y, op.width, op.y_rounded, [&](const auto& y) {
    for (int64_t row = begin; row < end; ++row)
      for (int64_t column = 0; column < op.width; column += op.group) {
        const int64_t i = row * op.width + column;
        rms_norm_group(op, op.x + i, op.add ? op.add + i : nullptr, op.sum ? op.sum + i : nullptr, y, row, column);
      }
  });
}

// Rotate the first `rotary` floats of a head: (a, b) -> (a cos - b sin, b cos + a sin) for the two halves a, b.
inline void rotate_head(const float* x, const float* cos, const float* sin, int64_t rotary, int64_t head_dim, float* out) {
  const int64_t half = rotary / 2, whole = half / kLanes * kLanes;
  for (int64_t i = 0; i < whole; i += kLanes) {
    const Floats a = load<Floats>(x + i), b = load<Floats>(x + half + i);
    store(out + i, a * load<Floats>(cos + i) - b * load<Floats>(sin + i));
    store(out + half + i, b * load<Floats>(cos + half + i) + a * load<Floats>(sin + half + i));
  }
  for (int64_t i = whole; i < half; ++i) {
    out[i] = x[i] * cos[i] - x[half + i] * sin[i];
    out[half + i] = x[half + i] * cos[half + i] + x[i] * sin[half + i];
  }
  memcpy(out + rotary, x + rotary, (head_dim - rotary) * sizeof(float));
}

inline void rope(const Rope& op, int64_t begin, int64_t end) {
  for (int64_t row = begin; row < end; ++row) {
    // A position past the table would read foreign memory; the adapters never send one.
    const int64_t position = most(0, least(op.position_ids[row], op.positions - 1));
    const float *cos = op.cos + position * op.rotary, *sin = op.sin + position * op.rotary;
    for (int64_t head = row * op.heads; head < (row + 1) * op.heads; ++head)
      rotate_head(op.query + head * op.head_dim, cos, sin, op.rotary, op.head_dim, op.query_out + head * op.head_dim);
    for (int64_t head = row * op.kv_heads; head < (row + 1) * op.kv_heads; ++head)
      rotate_head(op.key + head * op.head_dim, cos, sin, op.rotary, op.head_dim, op.key_out + head * op.head_dim);
  }
}

// The keys (or values) of one KV head in the block of a slot.
template <class T>
inline typename T::Storage* head_of_slot(const CacheWrite& op, void* cache, int64_t slot, int64_t kv_head, int64_t dim) {
  return static_cast<typename T::Storage*>(cache) + (slot / op.block_size * op.kv_heads + kv_head) * op.block_size * dim;
}

// A token's keys or values of all heads, to where place_of_key or place_in_pairs says.
template <class T, bool kKeys>
inline void write_heads(const CacheWrite& op, int64_t slot, const float* from, int64_t dim, void* cache) {
  constexpr int64_t kPiece = 64;
  const int64_t size = op.block_size, in_block = slot % size;
  for (int64_t h = 0; h < op.kv_heads; ++h) {
    typename T::Storage* to = head_of_slot<T>(op, cache, slot, h, dim);
    for (int64_t first = 0; first < dim; first += kPiece) {
      typename T::Storage narrowed[kPiece];
      const int64_t count = least(kPiece, dim - first);
      narrow_row<T>(from + h * dim + first, count, narrowed);
      for (int64_t d = first; d < first + count; ++d)
        to[kKeys ? place_of_key(kTogether<T>, d, in_block, dim, size) : place_in_pairs(kTogether<T>, in_block, d, size, dim)] = narrowed[d - first];
    }
  }
}

// Those of kSlotsTogether tokens whose slots lie side by side, in words of kTogether<T> values. dim is a multiple of that.
template <class T, bool kKeys>
inline void write_slots_together(const CacheWrite& op, int64_t slot, const float* from, int64_t width, void* cache) {
  typedef typename T::Storage Storage;
  constexpr int64_t kPiece = 64, kTogether_ = kTogether<T>;
  const int64_t dim = width / op.kv_heads;
  for (int64_t h = 0; h < op.kv_heads; ++h) {
    uint32_t* const to = reinterpret_cast<uint32_t*>(head_of_slot<T>(op, cache, slot, h, dim) + slot % op.block_size * dim);
    for (int64_t first = 0; first < dim; first += kPiece) {
      Storage narrowed[kSlotsTogether][kPiece];
      const int64_t count = least(kPiece, dim - first);
      for (int64_t i = 0; i < kSlotsTogether; ++i) narrow_row<T>(from + i * width + h * dim + first, count, narrowed[i]);
      if constexpr (kKeys) {  // a word of some dimensions, of each slot
        uint32_t* const columns = to + first / kTogether_ * kSlotsTogether;
        for (int64_t i = 0; i < kSlotsTogether; i += kLanes) {
          int64_t word = 0;
          for (; word + kLanes <= count / kTogether_; word += kLanes) {
            Words block[kLanes];
            for (int64_t j = 0; j < kLanes; ++j) block[j] = load<Words>(narrowed[i + j] + word * kTogether_);
            transpose(block);
            for (int64_t j = 0; j < kLanes; ++j) store(columns + (word + j) * kSlotsTogether + i, block[j]);
          }
          for (; word < count / kTogether_; ++word)
            for (int64_t j = i; j < i + kLanes; ++j) memcpy(columns + word * kSlotsTogether + j, narrowed[j] + word * kTogether_, 4);
        }
      } else {  // a word of some slots, of each dimension
        for (int64_t i = 0; i < kSlotsTogether; i += kTogether_)
          for (int64_t d = 0; d < count; ++d) {
            Storage word[kTogether_];
            for (int64_t j = 0; j < kTogether_; ++j) word[j] = narrowed[i + j][d];
            memcpy(to + i / kTogether_ * dim + first + d, word, 4);
          }
      }
    }
  }
}

// Lines that a token's keys and values are written to, a few bytes each of most. A call of what does nothing but this may be left out by the compiler.
template <class T>
inline __attribute__((always_inline)) void ask_for_slot(const CacheWrite& op, int64_t slot) {
  const int64_t dim = op.key_width / op.kv_heads, value_dim = op.value_width / op.kv_heads, in_block = slot % op.block_size;
  for (int64_t h = 0; h < op.kv_heads; ++h) {
    const auto* keys = head_of_slot<T>(op, op.key_cache, slot, h, dim) + in_block / kSlotsTogether * kSlotsTogether * dim;
    for (int64_t i = 0; i < kSlotsTogether * dim; i += 64 / T::kBytes) __builtin_prefetch(keys + i, 0, 2);
    const auto* values = head_of_slot<T>(op, op.value_cache, slot, h, value_dim) + in_block / kTogether<T> * kTogether<T> * value_dim;
    for (int64_t i = 0; i < kTogether<T> * value_dim; i += 64 / T::kBytes) __builtin_prefetch(values + i, 0, 2);
  }
}

template <class T>
inline void cache_write_of(const CacheWrite& op, int64_t begin, int64_t end) {
  typedef typename T::Storage Storage;
  constexpr int64_t kRowsAhead = 8;
  const int64_t dim = op.key_width / op.kv_heads, value_dim = op.value_width / op.kv_heads;
  const bool whole = !op.latent && op.block_size % kSlotsTogether == 0 && dim % kTogether<T> == 0;
  const auto is_slot = [&](int64_t row) { return op.slot_mapping[row] >= 0 && op.slot_mapping[row] < op.slots; };
  const auto side_by_side = [&](int64_t row) {
    const int32_t* slots = op.slot_mapping + row;
    if (!whole || row + kSlotsTogether > end || slots[0] % kSlotsTogether || slots[0] < 0 || slots[0] + kSlotsTogether > op.slots) return false;
    for (int32_t i = 1; i < kSlotsTogether; ++i)
      if (slots[i] != slots[0] + i) return false;
    return true;
  };
  int64_t asked = begin;
  for (int64_t row = begin; row < end;) {
    const float *key = op.key + row * op.key_width, *value = op.value + row * op.value_width;
    const int64_t slot = op.slot_mapping[row];
    if (side_by_side(row)) {
      write_slots_together<T, true>(op, slot, key, op.key_width, op.key_cache);
      write_slots_together<T, false>(op, slot, value, op.value_width, op.value_cache);
      asked = most(asked, row += kSlotsTogether);
      continue;
    }
    for (; asked < least(row + kRowsAhead, end); ++asked)
      if (whole && is_slot(asked)) ask_for_slot<T>(op, op.slot_mapping[asked]);
    if (!is_slot(row++)) continue;
    if (op.latent) {
      narrow_row<T>(key, op.key_width, static_cast<Storage*>(op.key_cache) + slot * op.key_width);
      narrow_row<T>(value, op.value_width, static_cast<Storage*>(op.value_cache) + slot * op.value_width);
    } else {
      write_heads<T, true>(op, slot, key, dim, op.key_cache);
      write_heads<T, false>(op, slot, value, value_dim, op.value_cache);
    }
  }
}

inline void cache_write(const CacheWrite& op, int64_t begin, int64_t end) {
  switch (op.dtype) {
    case Dtype::bf16: return cache_write_of<Bf16>(op, begin, end);
    case Dtype::f16: return cache_write_of<F16>(op, begin, end);
    case Dtype::f32: return cache_write_of<F32>(op, begin, end);
    case Dtype::i8: return;  // no cache has it
  }
}
