"""Build the compiled part: one source, once for each instruction set.

All compiler flags and Cython directives are in the tables below. ``PYCONV_DEBUG=1`` builds with bounds checks, debug
symbols and the address and undefined-behaviour sanitizers instead.
"""

import multiprocessing
import os
import platform
import subprocess
import sysconfig
from pathlib import Path

from Cython.Build import cythonize
from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext

DEBUG = os.environ.get("PYCONV_DEBUG", "0") not in ("", "0")

DIRECTIVES = {
    "language_level": 3,
    "boundscheck": DEBUG,
    "wraparound": False,
    "initializedcheck": DEBUG,
    "nonecheck": DEBUG,
    "cdivision": True,
    "embedsignature": True,
    "freethreading_compatible": True,
}

# Level -> flags. A level is a micro-architecture level of the x86-64 psABI; any other processor gets its compiler's
# baseline (64-bit Arm: NEON with fused multiply-add).
if platform.machine().lower() in ("x86_64", "amd64"):
    LEVELS = {
        "x86_64_v2": ["-march=x86-64-v2"],
        "x86_64_v3": ["-march=x86-64-v3"],
        # 512-bit vectors must be asked for: the compiler's default width for this level is 256.
        "x86_64_v4": ["-march=x86-64-v4", "-mprefer-vector-width=512"],
    }
else:
    LEVELS = {"baseline": []}

PLAIN = ["_cpu", "_known"]  # modules that run on any processor: built once, without a level's flags

# -O1 would not contract a multiplication and an addition: other bits.
OPTIMISE = ["-O2", "-g", "-fno-omit-frame-pointer"] if DEBUG else ["-O3", "-g0"]
SANITIZE = ["-fsanitize=address,undefined", "-fno-sanitize-recover=undefined"] if DEBUG else []
# A tile is fast only if its loops over M and NV unroll completely and its accumulators stay in registers: inline it
# into every instance, allow bodies of that size, and keep the optimiser from carrying loads over iterations.
INLINE = ["-DCYTHON_INLINE=inline __attribute__((always_inline))"]
UNROLL = {
    "gcc": [
        "-fno-predictive-commoning",
        # Some tunings leave a single chain unfused because it is faster on their processor. It is other bits, too.
        "--param=avoid-fma-max-bits=0",
        "-fno-inline-functions-called-once",
        # Rows are short: a loop over vectors must not become a call of memcpy.
        "-fno-tree-loop-distribute-patterns",
        "--param=max-completely-peeled-insns=1000",
        "--param=max-completely-peel-times=32",
    ],
    "clang": [],
}
HIDE = ["-fvisibility=hidden"]  # all but PyInit_*
# Where a function begins in its cache line is where its loops do, whatever was compiled before it (measured: weights of
# 3x3 kernels are packed in 0.9 to 1 times the time).
PLACE = ["-falign-functions=64"]
KERNEL = [*INLINE, *HIDE, *PLACE, "-ffp-contract=fast", "-fno-math-errno"]
OPENMP = ["-fopenmp"]
KINDS = {"": [], "_int": ["-DPYCONV_INTEGERS"]}  # of numbers: what a level's modules are called, and their flags
SLIM = ["-Wl,--strip-all"] if platform.system() == "Linux" and not DEBUG else []
HARDEN = ["-Wl,-z,relro,-z,now,-z,noexecstack"] if platform.system() == "Linux" else []


def compiler() -> str:
    """Whether the C compiler is gcc or clang: they take different flags for unrolling."""
    command = (os.environ.get("CC") or sysconfig.get_config_var("CC") or "cc").split()
    version = subprocess.run([*command, "--version"], capture_output=True, text=True, check=False)
    return "clang" if "clang" in version.stdout else "gcc"


def directory(level: str) -> Path:
    """Name the directory for the C of a module of kernels."""
    return Path("build", "cython", level)


def kernels(level: str, flags: list[str]) -> Extension:
    """Describe the extension module of one level, or of its integers, a build directory for each.

    The flags come after `cythonize`, which would hand those of one module of a source down to the next.
    """
    depends = [str(path) for path in Path("pyconv").glob("*.px[di]")]
    (module,) = cythonize(
        [Extension(f"pyconv._kernels_{level}", ["pyconv/_kernels.pyx"], depends=depends)],
        build_dir=str(directory(level)),
        compiler_directives=DIRECTIVES,
    )
    module.extra_compile_args = [*OPTIMISE, *SANITIZE, *KERNEL, *UNROLL[compiler()], *flags, *OPENMP]
    module.extra_link_args = [*SANITIZE, *OPENMP, *HARDEN]
    return module


def translate(modules: list[tuple[str, list[str]]]) -> None:
    """Translate these modules to C, as many at a time as there are processors: `cythonize` then finds them done.

    It would share out modules itself, if they did not have one source.
    """
    if not hasattr(os, "fork"):
        return
    at_once = os.cpu_count() or 1
    for i in range(0, len(modules), at_once):
        some = modules[i : i + at_once]
        processes = [multiprocessing.get_context("fork").Process(target=kernels, args=module) for module in some]
        for process in processes:
            process.start()
        for process, (level, _) in zip(processes, some, strict=True):
            process.join()
            if process.exitcode:  # killed, for want of memory, it may leave half a file
                (directory(level) / "pyconv" / "_kernels.c").unlink(missing_ok=True)


def extensions() -> list[Extension]:
    """Every extension module."""
    modules: list[Extension] = cythonize(
        [
            Extension(
                f"pyconv.{name}",
                [f"pyconv/{name}.pyx"],
                extra_compile_args=[*OPTIMISE, *SANITIZE, *HIDE],
                extra_link_args=[*SANITIZE, *HARDEN],
            )
            for name in PLAIN
        ],
        build_dir="build/cython/plain",
        compiler_directives=DIRECTIVES,
    )
    levels = [(f"{level}{kind}", [*flags, *more]) for level, flags in LEVELS.items() for kind, more in KINDS.items()]
    translate(levels)
    return modules + [kernels(*level) for level in levels]


class Build(build_ext):
    """Leaves the names of functions out of what is installed; in place, profilers and assembly.py want them."""

    def run(self) -> None:
        """Build all modules."""
        if not (self.inplace or self.editable_mode):
            for module in self.extensions:
                module.extra_link_args += SLIM
        super().run()


setup(
    ext_modules=extensions(),
    cmdclass={"build_ext": Build},
    options={"build_ext": {"parallel": os.cpu_count()}},
)
