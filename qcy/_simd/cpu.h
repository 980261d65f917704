/* What this CPU, and the operating system under it, lets us run.
 *
 * Our own cpuid and xgetbv: __builtin_cpu_supports answers 0 under some compilers (zig cc). An
 * instruction set counts only if the CPU has it and the system saves its registers (XCR0). */
#ifndef QCY_CPU_H
#define QCY_CPU_H

enum {
    QCY_CPU_AVX2 = 1,
    QCY_CPU_AVXVNNI = 2,
    QCY_CPU_AVX512VNNI = 4,
    QCY_CPU_DOTPROD = 8,
    QCY_CPU_I8MM = 16,
    QCY_CPU_AVX512VBMI = 32
};

#if defined(__x86_64__) || defined(__i386__) || defined(_M_X64) || defined(_M_IX86)

#ifdef _MSC_VER
#include <intrin.h>
static void qcy_cpuid(unsigned leaf, unsigned subleaf, unsigned r[4])
{
    __cpuidex((int *)r, (int)leaf, (int)subleaf);
}
static unsigned qcy_xcr0(void) { return (unsigned)_xgetbv(0); }
#else
#include <cpuid.h>
static void qcy_cpuid(unsigned leaf, unsigned subleaf, unsigned r[4])
{
    __cpuid_count(leaf, subleaf, r[0], r[1], r[2], r[3]);
}
static unsigned qcy_xcr0(void)
{
    unsigned low, high;
    __asm__ volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
    return low;
}
#endif

static int qcy_has(unsigned word, unsigned bits) { return (word & bits) == bits; }

static int qcy_cpu_features(void)
{
    unsigned base[4], leaf7[4], leaf71[4] = {0, 0, 0, 0}, xcr0;
    int found = 0;
    qcy_cpuid(0, 0, base);
    if (base[0] < 7) return 0;
    qcy_cpuid(1, 0, base);
    if (!qcy_has(base[2], 1u << 27)) return 0;              /* OSXSAVE */
    xcr0 = qcy_xcr0();
    if (!qcy_has(xcr0, 0x06)) return 0;                     /* XMM and YMM are saved */
    qcy_cpuid(7, 0, leaf7);
    if (leaf7[0] >= 1) qcy_cpuid(7, 1, leaf71);
    if (qcy_has(leaf7[1], 1u << 5) && qcy_has(base[2], 1u << 12)) {     /* AVX2, FMA */
        found |= QCY_CPU_AVX2;
        if (qcy_has(leaf71[0], 1u << 4)) found |= QCY_CPU_AVXVNNI;
        /* ZMM and mask registers are saved; F, DQ, BW, VL; VNNI. */
        if (qcy_has(xcr0, 0xE6) && qcy_has(leaf7[1], 0xC0030000u)
            && qcy_has(leaf7[2], 1u << 11)) {
            found |= QCY_CPU_AVX512VNNI;
            if (qcy_has(leaf7[2], 1u << 1)) found |= QCY_CPU_AVX512VBMI;
        }
    }
    return found;
}

#elif defined(__aarch64__) && defined(__linux__)

#include <sys/auxv.h>
static int qcy_cpu_features(void)
{
    int found = 0;
    if (getauxval(16 /* AT_HWCAP */) & (1UL << 20)) found |= QCY_CPU_DOTPROD;
    if (getauxval(26 /* AT_HWCAP2 */) & (1UL << 13)) found |= QCY_CPU_I8MM;
    return found;
}

#elif defined(__aarch64__) && defined(__APPLE__)

#include <stddef.h>
#include <sys/sysctl.h>
static int qcy_sysctl(const char *name)
{
    int value = 0;
    size_t size = sizeof value;
    return sysctlbyname(name, &value, &size, NULL, 0) == 0 && value != 0;
}
static int qcy_cpu_features(void)
{
    return (qcy_sysctl("hw.optional.arm.FEAT_DotProd") ? QCY_CPU_DOTPROD : 0)
        | (qcy_sysctl("hw.optional.arm.FEAT_I8MM") ? QCY_CPU_I8MM : 0);
}

#else
static int qcy_cpu_features(void) { return 0; }
#endif
#endif
