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
#define QCY_ROWS 3              /* what a dot needs of its own leaves no room for more */
QCY_INLINE qcy_sums qcy_dot(qcy_sums sums, qcy_lhs a, qcy_rhs b)
{
    int32x4_t low = vpaddlq_s16(vmull_s8(vget_low_s8(a), vget_low_s8(b)));
    int32x4_t high = vpaddlq_s16(vmull_s8(vget_high_s8(a), vget_high_s8(b)));
    return vaddq_s32(sums, vpaddq_s32(low, high));
}
#endif
#endif

#define qcy_prefetch(p) __builtin_prefetch(p)
QCY_INLINE qcy_rhs qcy_rhs_load(const int8_t *b) { return vld1q_s8(b); }
QCY_INLINE qcy_sums qcy_sums_load(const int32_t *p) { return vld1q_s32(p); }
QCY_INLINE void qcy_sums_store(int32_t *p, qcy_sums s) { vst1q_s32(p, s); }
QCY_INLINE qcy_sums qcy_sums_set(int32_t t) { return vdupq_n_s32(t); }
QCY_INLINE qcy_sums qcy_sums_add(qcy_sums s, qcy_sums t) { return vaddq_s32(s, t); }
QCY_INLINE qcy_sums qcy_sums_sub(qcy_sums s, qcy_sums t) { return vsubq_s32(s, t); }
QCY_INLINE qcy_sums qcy_sums_mul(qcy_sums s, qcy_sums t) { return vmulq_s32(s, t); }
QCY_INLINE qcy_sums qcy_widen(const uint8_t *p)
{
    uint32_t four;
    memcpy(&four, p, 4);
    return vreinterpretq_s32_u32(
        vmovl_u16(vget_low_u16(vmovl_u8(vreinterpret_u8_u32(vdup_n_u32(four))))));
}
QCY_INLINE qcy_sums qcy_widen_signed(const uint8_t *p)
{
    uint32_t four;
    memcpy(&four, p, 4);
    return vmovl_s16(vget_low_s16(vmovl_s8(vreinterpret_s8_u32(vdup_n_u32(four)))));
}
QCY_INLINE qcy_reals qcy_reals_of(qcy_sums s) { return vcvtq_f32_s32(s); }
QCY_INLINE qcy_reals qcy_reals_set(float x) { return vdupq_n_f32(x); }
QCY_INLINE qcy_reals qcy_reals_load(const float *p) { return vld1q_f32(p); }
QCY_INLINE void qcy_reals_store(float *p, qcy_reals x) { vst1q_f32(p, x); }
QCY_INLINE qcy_reals qcy_reals_add(qcy_reals x, qcy_reals y) { return vaddq_f32(x, y); }
QCY_INLINE qcy_reals qcy_reals_mul(qcy_reals x, qcy_reals y) { return vmulq_f32(x, y); }
QCY_INLINE qcy_reals qcy_reals_div(qcy_reals x, qcy_reals y) { return vdivq_f32(x, y); }
QCY_INLINE qcy_reals qcy_reals_min(qcy_reals x, qcy_reals y) { return vminq_f32(x, y); }
QCY_INLINE qcy_reals qcy_reals_max(qcy_reals x, qcy_reals y) { return vmaxq_f32(x, y); }
QCY_INLINE qcy_reals qcy_reals_halve(qcy_reals x, qcy_reals n)
{
    return vreinterpretq_f32_s32(vsubq_s32(
        vreinterpretq_s32_f32(x), vshlq_n_s32(vreinterpretq_s32_f32(n), 23)));
}
QCY_INLINE qcy_reals qcy_reals_tame(qcy_reals x)
{
    /* Of a number and a NaN, the number. */
    return vminnmq_f32(vmaxnmq_f32(x, vdupq_n_f32(-QCY_REAL_MAX)), vdupq_n_f32(QCY_REAL_MAX));
}
QCY_INLINE int qcy_reals_have_nan(qcy_reals x, qcy_reals y)
{
    return vminvq_u32(vandq_u32(vceqq_f32(x, x), vceqq_f32(y, y))) == 0;
}
QCY_INLINE qcy_codes qcy_round_pack(
    qcy_reals p0, qcy_reals p1, qcy_reals p2, qcy_reals p3, int zero_point)
{
    const int16x8_t zero = vdupq_n_s16((int16_t)zero_point);
    int16x8_t low16 = vcombine_s16(vqmovn_s32(vcvtnq_s32_f32(p0)), vqmovn_s32(vcvtnq_s32_f32(p1)));
    int16x8_t high16 = vcombine_s16(vqmovn_s32(vcvtnq_s32_f32(p2)), vqmovn_s32(vcvtnq_s32_f32(p3)));
    return vcombine_u8(vqmovun_s16(vqaddq_s16(low16, zero)), vqmovun_s16(vqaddq_s16(high16, zero)));
}
#define qcy_round_pack_lanes qcy_round_pack
QCY_INLINE qcy_codes qcy_codes_set(uint8_t c) { return vdupq_n_u8(c); }
QCY_INLINE qcy_codes qcy_codes_load(const uint8_t *p) { return vld1q_u8(p); }
QCY_INLINE qcy_codes qcy_codes_max(qcy_codes c, qcy_codes d) { return vmaxq_u8(c, d); }
QCY_INLINE qcy_codes qcy_codes_min(qcy_codes c, qcy_codes d) { return vminq_u8(c, d); }
QCY_INLINE qcy_codes qcy_codes_xor(qcy_codes c, qcy_codes d) { return veorq_u8(c, d); }
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
typedef struct { qcy_lhs part[4]; } qcy_taps;
QCY_INLINE qcy_lhs qcy_lhs_of(uint16x8_t taps)
{
#ifdef QCY_ISA_I8MM
    return vreinterpretq_u8_u16(taps);
#else
    return vreinterpretq_s8_u8(veorq_u8(vreinterpretq_u8_u16(taps), vdupq_n_u8(0x80)));
#endif
}
QCY_INLINE qcy_taps qcy_interleave(qcy_codes t0, qcy_codes t1, qcy_codes t2, qcy_codes t3)
{
    const uint16x8_t low01 = vreinterpretq_u16_u8(vzip1q_u8(t0, t1));
    const uint16x8_t low23 = vreinterpretq_u16_u8(vzip1q_u8(t2, t3));
    const uint16x8_t high01 = vreinterpretq_u16_u8(vzip2q_u8(t0, t1));
    const uint16x8_t high23 = vreinterpretq_u16_u8(vzip2q_u8(t2, t3));
    qcy_taps t;
    t.part[0] = qcy_lhs_of(vzip1q_u16(low01, low23));
    t.part[1] = qcy_lhs_of(vzip2q_u16(low01, low23));
    t.part[2] = qcy_lhs_of(vzip1q_u16(high01, high23));
    t.part[3] = qcy_lhs_of(vzip2q_u16(high01, high23));
    return t;
}
#define QCY_TAPS_ARE_LEFT
#define QCY_LOOKUP_16
QCY_INLINE qcy_codes qcy_lookup_16(qcy_codes c, const uint8_t *table)
{
    const uint8x16_t next = vdupq_n_u8(64);
    uint8x16_t found = vdupq_n_u8(0);
    int i;
    for (i = 0; i < 4; i++) {
        uint8x16x4_t part;
        part.val[0] = vld1q_u8(table + 64 * i);
        part.val[1] = vld1q_u8(table + 64 * i + 16);
        part.val[2] = vld1q_u8(table + 64 * i + 32);
        part.val[3] = vld1q_u8(table + 64 * i + 48);
        found = vqtbx4q_u8(found, part, c);
        c = vsubq_u8(c, next);
    }
    return found;
}

#endif
