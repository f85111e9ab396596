// float16 conversions of aarch64. Part of simd.h.
inline Floats floats_of_f16(Halves h) { return (Floats)vcvt_f32_f16((float16x4_t)h); }
inline Halves f16_of_floats(Floats f) { return (Halves)vcvt_f16_f32((float32x4_t)f); }
