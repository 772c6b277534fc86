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
    #else
    #  define X86 0
    #  define SUPPORTS_V2 0
    #  define SUPPORTS_V3 0
    #  define SUPPORTS_V4 0
    #endif
    """
    enum:
        X86
    bint SUPPORTS_V2
    bint SUPPORTS_V3
    bint SUPPORTS_V4


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
