// float16 conversions of x86 (F16C, AVX512). Part of simd.h.
#if defined(__AVX512F__)
inline Floats floats_of_f16(Halves h) { return (Floats)_mm512_cvtph_ps((__m256i)h); }
inline Halves f16_of_floats(Floats f) { return (Halves)_mm512_cvtps_ph((__m512)f, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC); }
#else
inline Floats floats_of_f16(Halves h) { return (Floats)_mm256_cvtph_ps((__m128i)h); }
inline Halves f16_of_floats(Floats f) { return (Halves)_mm256_cvtps_ph((__m256)f, _MM_FROUND_TO_NEAREST_INT); }
#endif
