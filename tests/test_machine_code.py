"""What the compiled modules are made of: no instruction beyond their level, nothing writable that runs, one name each.

An instruction that the processor lacks ends the process, and it may hide where no test comes by. The assembler knows
which extension an instruction belongs to: so each module is disassembled, and assembled again for its level alone.
"""

from __future__ import annotations

import importlib.util
import re
import shutil
import subprocess
from functools import cache
from pathlib import Path

import pytest

from pyconv._dispatch import INTEGERS, LEVELS, built

# What the x86-64 psABI puts into each level, in the assembler's words, on top of the level before and of generic64. The
# module that detects the level may ask which registers the system saves (xgetbv).
EXTENSIONS = {
    "none": [],
    "detection": ["xsave"],
    "x86-64-v2": ["popcnt", "sse4.2"],
    "x86-64-v3": ["avx2", "bmi", "bmi2", "f16c", "fma", "lzcnt", "movbe"],
    "x86-64-v4": ["avx512f", "avx512bw", "avx512cd", "avx512dq", "avx512vl"],
}
MODULES = [
    ("none", "_known"),
    ("detection", "_cpu"),
    *((level, LEVELS[level] + kind) for level in built() for kind in ("", INTEGERS)),
]

pytestmark = [
    pytest.mark.skipif(not EXTENSIONS.keys() >= dict(MODULES).keys(), reason="not x86-64"),
    pytest.mark.skipif(not all(map(shutil.which, ("objdump", "readelf", "as", "ld"))), reason="needs binutils"),
]

_INSTRUCTION = re.compile(r"^\s*[0-9a-f]+:\s+([^#<\n]*)", re.MULTILINE)
# Jumps go to addresses that only the linker knows. Padding, and the landing pads that old processors take for padding,
# are of no level.
_OF_NO_LEVEL = re.compile(r"((bnd|notrack) )?(j|call|loop)|((data16|cs) )*(nop|xchg +%ax,%ax)|data16|endbr64")


def tool(*command: object, text: str | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(list(map(str, command)), input=text, capture_output=True, text=True, check=False)


def path_of(module: str) -> Path:
    """Find the shared object, without loading it: this processor may lack its level."""
    spec = importlib.util.find_spec(f"pyconv.{module}")
    assert spec is not None
    return Path(str(spec.origin))


@cache
def instructions(path: Path) -> tuple[str, ...]:
    """List the different instructions of a shared object."""
    disassembled = tool("objdump", "-d", "--no-show-raw-insn", path)
    assert disassembled.returncode == 0, disassembled.stderr
    found = {match[1].strip() for match in _INSTRUCTION.finditer(disassembled.stdout)}
    return tuple(sorted(text for text in found if text and not _OF_NO_LEVEL.match(text)))


def beyond(level: str, texts: tuple[str, ...]) -> list[str]:
    """Return the instructions that the level does not have."""
    below = [lower for lower in LEVELS if level in LEVELS and lower in EXTENSIONS and lower <= level]
    allowed = [name for each in below or [level] for name in EXTENSIONS[each]]
    assembled = tool(
        "as", f"-march={'+'.join(['generic64', *allowed])}", "-o", "/dev/null", "-", text="\n".join(texts) + "\n"
    )
    lines = re.findall(r":(\d+): Error", assembled.stderr)
    assert bool(lines) == bool(assembled.returncode), assembled.stderr
    return [texts[int(line) - 1] for line in lines]


def faults(path: Path) -> list[str]:
    """Return what is wrong with a shared object as the loader and the linker see it."""
    segments, dynamic, symbols = (tool("readelf", option, "-W", path).stdout for option in ("-l", "-d", "--dyn-syms"))
    stack = re.search(r"GNU_STACK .* (\w+) +0x", segments)
    defined = re.findall(r"(?:GLOBAL|WEAK) +\w+ +(?!UND)\S+ (\S+)$", symbols, re.MULTILINE)
    wrong = {
        f"the stack is {stack[1] if stack else 'of any kind'}, not RW": not stack or stack[1] != "RW",
        "a segment is writable and runs": re.search(r"^ +LOAD .* RWE ", segments, re.MULTILINE),
        "relocated data stays writable": "GNU_RELRO" not in segments,
        "functions are bound when they are called": "BIND_NOW" not in dynamic,
        "code is relocated": "TEXTREL" in dynamic,
        f"exports {defined}": not re.fullmatch(r"PyInit_\w+", " ".join(defined)),
    }
    return [what for what, found in wrong.items() if found]


@pytest.mark.parametrize(("level", "module"), MODULES)
def test_no_instruction_beyond_the_level(level: str, module: str) -> None:
    texts = instructions(path_of(module))
    assert len(texts) > 500
    assert not beyond(level, texts)


@pytest.mark.parametrize(("level", "module"), MODULES[4:])
def test_the_level_below_is_not_enough(level: str, module: str) -> None:
    """The test of the test: the vectors of a level are beyond the one before."""
    below, register = {"x86-64-v3": ("x86-64-v2", "%ymm"), "x86-64-v4": ("x86-64-v3", "%zmm")}[level]
    found = beyond(below, instructions(path_of(module)))
    assert sum(register in text for text in found) > 1000


@pytest.mark.parametrize(
    ("instruction", "level", "lowest"),
    [
        ("addps %xmm1,%xmm0", "none", None),
        ("xgetbv", "detection", "none"),
        ("pshufb %xmm1,%xmm0", "x86-64-v2", "detection"),
        ("vaddps %xmm2,%xmm1,%xmm0", "x86-64-v3", "x86-64-v2"),
        ("shlx %rax,%rcx,%rdx", "x86-64-v3", "x86-64-v2"),
        ("vaddps %xmm2,%xmm1,%xmm16", "x86-64-v4", "x86-64-v3"),
        ("kmovw %k1,%eax", "x86-64-v4", "x86-64-v3"),
        ("vpmullq %zmm2,%zmm1,%zmm0", "x86-64-v4", "x86-64-v3"),
        ("vpermb %zmm2,%zmm1,%zmm0", None, "x86-64-v4"),
        ("vpdpbusd %zmm2,%zmm1,%zmm0", None, "x86-64-v4"),
        ("vaesenc %xmm2,%xmm1,%xmm0", None, "x86-64-v4"),
        ("vexp2ps %zmm1,%zmm0", None, "x86-64-v4"),
    ],
)
def test_levels(instruction: str, level: str | None, lowest: str | None) -> None:
    """The level that has an instruction, and the highest that has not."""
    if level:
        assert not beyond(level, (instruction,))
    if lowest:
        assert beyond(lowest, ("ret", instruction)) == [instruction]


@pytest.mark.parametrize("module", dict.fromkeys(module for _, module in MODULES))
def test_hardened(module: str) -> None:
    assert not faults(path_of(module))


@pytest.mark.parametrize(("option", "fault"), [("--omagic", "is writable and runs"), ("-znotext", "code is relocated")])
def test_what_is_not_hardened_is_found(tmp_path: Path, option: str, fault: str) -> None:
    """The test of the test: a shared object with every other fault, and this one."""
    source, compiled, shared = (tmp_path / f"soft{suffix}" for suffix in (".s", ".o", ".so"))
    source.write_text(".globl leak\nleak:\n movabs $leak,%rax\n ret\n")
    assert tool("as", source, "-o", compiled).returncode == 0
    tool("ld", "-shared", option, "-zexecstack", "-zlazy", "-znorelro", "-o", shared, compiled)
    found = faults(shared)
    assert any(fault in each for each in found), found
    assert len(found) == 5, found
