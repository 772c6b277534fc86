"""Read the assembly of the tiles: every innermost loop of multiply-adds, and whether it touches the stack.

A tile is at its peak only if its accumulators stay in registers. This disassembles modules built in place (or with
``pip install -e``; others have no names of functions) and lists, for each function that holds tiles, its innermost
loops: multiply-adds, instructions, and vectors kept on the stack, which should be none.

    python benchmarks/assembly.py [ISA ...]          needs objdump (binutils)
"""

from __future__ import annotations

import importlib.util
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass

import pyconv
from pyconv._dispatch import LEVELS

_FUNCTION = re.compile(
    r"^[0-9a-f]+ <(?:.*_)?((?:oc|ow)_(?:1x1|1x1_apart|3x3|taps)|dw_(?:\ds\d|any)|dc_(?:taps|groups|borders))"
    r"(?:\.\w+)*>:$"
)
_FUSED = re.compile(r"fuse_(\d)_\d")
_LINE = re.compile(r"^\s*([0-9a-f]+):\s+(.*)$")
# A vector register and the stack in one instruction; an address kept there costs nothing.
_SPILL = re.compile(r"(?=.*%[xyz]mm)(?=.*\(%r[sb]p)")
_JUMP = re.compile(r"^j\w+\s+([0-9a-f]+)\b")


@dataclass(frozen=True, slots=True)
class Loop:
    """An innermost loop."""

    multiply_adds: int
    instructions: int
    stack: int


def functions(text: str) -> Iterator[tuple[str, list[tuple[int, str]]]]:
    """Yield the functions that hold tiles: name and (address, instruction)."""
    name, body = "", list[tuple[int, str]]()
    for line in text.splitlines():
        if line.endswith(">:"):
            found, fused = _FUNCTION.match(line), _FUSED.search(line)
            name = f"{'double' if fused and fused[1] == '1' else 'float'} {found[1]}" if found else ""
            body = []
        elif name and (parts := _LINE.match(line)):
            body.append((int(parts[1], 16), parts[2]))
        elif name and not line.strip():
            yield name, body
            name = ""


def innermost_loops(body: list[tuple[int, str]]) -> Iterator[Loop]:
    """Yield the loops with multiply-adds that contain no other such loop."""
    index = {address: i for i, (address, _) in enumerate(body)}
    spans = []
    for i, (_, instruction) in enumerate(body):
        jump = _JUMP.match(instruction)
        if jump and (start := index.get(int(jump[1], 16), i + 1)) <= i:
            loop = [text for _, text in body[start : i + 1]]
            count = sum(text.startswith(("vfmadd", "mulp")) for text in loop)
            if count:
                spans.append(
                    (
                        start,
                        i,
                        Loop(count, len(loop), sum(bool(_SPILL.search(text)) for text in loop)),
                    )
                )
    for start, end, loop in spans:
        if not any(start <= s and e <= end and (s, e) != (start, end) for s, e, _ in spans):
            yield loop


def main() -> None:
    clean = True
    for isa in sys.argv[1:] or pyconv.available_isas():
        spec = importlib.util.find_spec(f"pyconv.{LEVELS[isa]}")  # not loaded: this processor may lack the level
        assert spec is not None
        command = ["objdump", "-d", "--no-show-raw-insn", str(spec.origin)]
        text = subprocess.run(command, capture_output=True, text=True, check=True).stdout
        found = list(functions(text))
        if not found:
            sys.exit(f"{spec.origin} names no functions: build in place, or install with -e")
        print(f"\n{isa}")
        for name, body in found:
            loops = list(innermost_loops(body))
            spilling = [loop for loop in loops if loop.stack]
            clean &= not spilling
            print(
                f"  {name:<19} {len(loops):3} loops, "
                f"{sum(loop.instructions for loop in loops) / max(1, sum(loop.multiply_adds for loop in loops)):.2f} "
                f"instructions for each multiply-add, {len(spilling)} that spill"
                + "".join(f"\n      {loop}" for loop in spilling)
            )
    if not clean:
        sys.exit("some tiles spill")


if __name__ == "__main__":
    main()
