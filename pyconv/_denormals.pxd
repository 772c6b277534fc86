# How this thread's floating point unit rounds, and whether subnormal numbers are zeros to it: a register of the
# processor, which can be saved, changed and put back.
#
# x86-64 takes subnormal operands for zero (DAZ) and makes zeros of subnormal results (FTZ); one bit of 64-bit Arm does
# both.

cdef extern from *:
    """
    #if defined(__x86_64__)
    #  define FLUSHING 0x8040UL
    #  define rounds_down(state) (((state) >> 13 & 3) == 1)
    static inline unsigned long float_state(void) {
        unsigned int state; __asm__ volatile("stmxcsr %0" : "=m"(state) : : "memory"); return state;
    }
    static inline void set_float_state(unsigned long value) {
        unsigned int state = (unsigned int) value; __asm__ volatile("ldmxcsr %0" : : "m"(state) : "memory");
    }
    #elif defined(__aarch64__)
    #  define FLUSHING (1UL << 24)
    #  define rounds_down(state) (((state) >> 22 & 3) == 2)
    static inline unsigned long float_state(void) {
        unsigned long state; __asm__ volatile("mrs %0, fpcr" : "=r"(state) : : "memory"); return state;
    }
    static inline void set_float_state(unsigned long state) {
        __asm__ volatile("msr fpcr, %0" : : "r"(state) : "memory");
    }
    #else
    #  define FLUSHING 0UL
    #  define rounds_down(state) 0
    static inline unsigned long float_state(void) { return 0; }
    static inline void set_float_state(unsigned long state) { (void) state; }
    #endif
    """
    enum:
        FLUSHING
    unsigned long float_state() noexcept nogil
    bint rounds_down(unsigned long state) noexcept nogil
    void set_float_state(unsigned long state) noexcept nogil
