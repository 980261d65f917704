"""What this CPU can run."""

cdef extern from "cpu.h":
    enum:
        QCY_CPU_AVX2
        QCY_CPU_AVXVNNI
        QCY_CPU_AVX512VNNI
        QCY_CPU_DOTPROD
        QCY_CPU_I8MM
        QCY_CPU_AVX512VBMI
    int qcy_cpu_features()

cdef extern from *:
    """
    #if defined(__clang__)
    #define QCY_COMPILER "clang " __clang_version__
    #elif defined(__GNUC__)
    #define QCY_COMPILER "gcc " __VERSION__
    #elif defined(_MSC_VER)
    #define QCY_TEXT_(x) #x
    #define QCY_TEXT(x) QCY_TEXT_(x)
    #define QCY_COMPILER "msvc " QCY_TEXT(_MSC_VER)
    #else
    #define QCY_COMPILER "unknown"
    #endif
    """
    const char* QCY_COMPILER

#: The compiler that built qcy.
compiler = QCY_COMPILER.decode()

_FEATURES = qcy_cpu_features()
_NEEDS = {
    "portable": 0,
    "baseline": 0,      # what every CPU of the architecture has: it was built, so it runs
    "avx2": QCY_CPU_AVX2,
    "avxvnni": QCY_CPU_AVXVNNI,
    "avx512vnni": QCY_CPU_AVX512VNNI,
    "avx512vbmi": QCY_CPU_AVX512VNNI | QCY_CPU_AVX512VBMI,
    "dotprod": QCY_CPU_DOTPROD,
    "i8mm": QCY_CPU_I8MM,
}


def supports(variant):
    """Return whether this CPU and operating system can run `variant`."""
    return _FEATURES & _NEEDS[variant] == _NEEDS[variant]
