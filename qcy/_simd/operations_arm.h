/* The operations of operations.h in the instructions of AArch64: i8mm, dotprod, NEON. */
#ifndef QCY_OPERATIONS_ARM_H
#define QCY_OPERATIONS_ARM_H

#include <arm_neon.h>
#define QCY_LANES 4
#define QCY_GROUP 4
#define QCY_VECTORS 4
typedef int32x4_t qcy_sums;
typedef int8x16_t qcy_rhs;
typedef float32x4_t qcy_reals;
typedef uint8x16_t qcy_codes;

#if defined(QCY_ISA_I8MM)
#define QCY_ROWS 6
#define QCY_LHS_ZERO 0
typedef uint8x16_t qcy_lhs;
QCY_INLINE qcy_lhs qcy_lhs_word(uint32_t word) { return vreinterpretq_u8_u32(vdupq_n_u32(word)); }
QCY_INLINE qcy_sums qcy_dot(qcy_sums sums, qcy_lhs a, qcy_rhs b)
{
    return vusdotq_s32(sums, a, b);
}
#else
#define QCY_LHS_ZERO 128
typedef int8x16_t qcy_lhs;
QCY_INLINE qcy_lhs qcy_lhs_word(uint32_t word)
{
    return vreinterpretq_s8_u32(vdupq_n_u32(word ^ 0x80808080u));
}
#ifdef QCY_ISA_DOTPROD
#define QCY_ROWS 6
QCY_INLINE qcy_sums qcy_dot(qcy_sums sums, qcy_lhs a, qcy_rhs b) { return vdotq_s32(sums, a, b); }
#else
#define QCY_ROWS 4
QCY_INLINE qcy_sums qcy_dot(qcy_sums sums, qcy_lhs a, qcy_rhs b)
{
    int32x4_t low = vpaddlq_s16(vmull_s8(vget_low_s8(a), vget_low_s8(b)));
    int32x4_t high = vpaddlq_s16(vmull_s8(vget_high_s8(a), vget_high_s8(b)));
    return vaddq_s32(sums, vpaddq_s32(low, high));
}
#endif
#endif

QCY_INLINE qcy_sums qcy_zero(void) { return vdupq_n_s32(0); }
QCY_INLINE qcy_rhs qcy_rhs_load(const int8_t *b) { return vld1q_s8(b); }
QCY_INLINE qcy_sums qcy_sums_load(const int32_t *p) { return vld1q_s32(p); }
QCY_INLINE void qcy_sums_store(int32_t *p, qcy_sums s) { vst1q_s32(p, s); }
QCY_INLINE qcy_sums qcy_sums_add(qcy_sums s, qcy_sums t) { return vaddq_s32(s, t); }
QCY_INLINE qcy_sums qcy_sums_scale(qcy_sums s, int32_t t) { return vmulq_n_s32(s, t); }
QCY_INLINE qcy_reals qcy_scaled(qcy_sums s, const float *multiplier)
{
    return vmulq_f32(vcvtq_f32_s32(s), vld1q_f32(multiplier));
}
QCY_INLINE qcy_codes qcy_round_pack(
    qcy_reals p0, qcy_reals p1, qcy_reals p2, qcy_reals p3, int zero_point)
{
    const int16x8_t zero = vdupq_n_s16((int16_t)zero_point);
    int16x8_t low16 = vcombine_s16(vqmovn_s32(vcvtnq_s32_f32(p0)), vqmovn_s32(vcvtnq_s32_f32(p1)));
    int16x8_t high16 = vcombine_s16(vqmovn_s32(vcvtnq_s32_f32(p2)), vqmovn_s32(vcvtnq_s32_f32(p3)));
    return vcombine_u8(vqmovun_s16(vqaddq_s16(low16, zero)), vqmovun_s16(vqaddq_s16(high16, zero)));
}
QCY_INLINE qcy_codes qcy_clamp_flip(qcy_codes c, uint8_t low, uint8_t high, uint8_t flip)
{
    c = vminq_u8(vmaxq_u8(c, vdupq_n_u8(low)), vdupq_n_u8(high));
    return veorq_u8(c, vdupq_n_u8(flip));
}
QCY_INLINE void qcy_codes_store(uint8_t *p, qcy_codes c, int vectors)
{
    uint32_t four;
    if (vectors == 4) vst1q_u8(p, c);
    if (vectors == 2 || vectors == 3) vst1_u8(p, vget_low_u8(c));
    if (vectors == 3) {
        four = vgetq_lane_u32(vreinterpretq_u32_u8(c), 2);
        memcpy(p + 8, &four, 4);
    }
    if (vectors == 1) {
        four = vgetq_lane_u32(vreinterpretq_u32_u8(c), 0);
        memcpy(p, &four, 4);
    }
}

#endif
