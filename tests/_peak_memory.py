"""Print by how many KiB one call raises the peak of resident memory, its arrays not counted.

    python tests/_peak_memory.py CASE

CASE is the repr of a `_problems.Case`. A program of its own, for what earlier calls have left
behind would hide what this one takes; test_memory.py runs it.
"""

from __future__ import annotations

import ctypes
import re
import sys
from pathlib import Path

from _problems import Call, Case
from _values import complex_integers, gaussian


def peak() -> int:
    """Return the peak of resident memory in KiB."""
    status = Path("/proc/self/status").read_text()
    return int(re.search(r"VmHWM:\s*(\d+) kB", status)[1])


def main(case: Case) -> None:
    """Print the difference that the call makes."""
    family = complex_integers if case.dtype.startswith("complex") else gaussian
    call = Call(case, family)
    # What is there once and for all: the code, the threads and their stacks.
    Call(Case((8, 8, 32, 32), (8, 8, 3, 3), dtype=case.dtype, threads=case.threads), family).run()
    ctypes.CDLL(None).malloc_trim(0)
    Path("/proc/self/clear_refs").write_text("5")  # the peak is now what is resident
    before = peak()
    call.compute(call.x, call.weight, call.bias, call.out)
    print(peak() - before)


if __name__ == "__main__":
    main(eval(sys.argv[1], {"Case": Case}))
