"""What this processor supports. Compiled without architecture flags: it must run on any.

``__builtin_cpu_supports`` answers from CPUID and XGETBV, so that a level counts only where the operating system saves
its registers too.
"""

cdef extern from *:
    """
    #if defined(__x86_64__)
    #  define X86 1
    #  define SUPPORTS_V2 __builtin_cpu_supports("x86-64-v2")
    #  define SUPPORTS_V3 __builtin_cpu_supports("x86-64-v3")
    #  define SUPPORTS_V4 __builtin_cpu_supports("x86-64-v4")
    #  define WIDEST_UNIT (__builtin_cpu_is("amdfam19h") ? 32 : 64)
    #else
    #  define X86 0
    #  define SUPPORTS_V2 0
    #  define SUPPORTS_V3 0
    #  define SUPPORTS_V4 0
    #  define WIDEST_UNIT 64
    #endif
    """
    enum:
        X86
    bint SUPPORTS_V2
    bint SUPPORTS_V3
    bint SUPPORTS_V4
    int WIDEST_UNIT


def supported():
    """The instruction sets of _dispatch.LEVELS that this processor and operating system run, lowest first."""
    if not X86:
        return ("baseline",)
    levels = []
    if SUPPORTS_V2:
        levels.append("x86-64-v2")
    if SUPPORTS_V3:
        levels.append("x86-64-v3")
    if SUPPORTS_V4:
        levels.append("x86-64-v4")
    return tuple(levels)


def multiply_adds_per_cycle(vector_bytes):
    """How many vectors of this width the processor multiplies and adds in a cycle.

    Two, on every x86-64 with fused multiply-add and on 64-bit Arm; a vector wider than a unit takes its place twice
    (AMD's Zen 4 has units of 32 bytes: family 19h).
    """
    return 1 if vector_bytes > WIDEST_UNIT else 2
