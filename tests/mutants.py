"""Break the kernels on purpose and see whether the tests notice.

    python tests/mutants.py [--count 40] [--seed 0] [--only N]

A mutant is one line of the compiled part's sources with one small mistake in it, such as `<` for `<=`: RULES below. It
is built by itself, and the ordinary tests are run on it until one fails. Each mutant that no test fails on is a hole in
the tests, or else computes the same: then it belongs into SAME_RESULTS, with the reason. The same seed draws the same
mutants from the same sources, from each file in proportion to its length.

The lowest level is built, with little optimisation: it has no fused multiply-add on x86-64, so that no bit depends on
what the compiler makes of it, and no tile need be inlined. What this leaves alive is tried again on the next level, as
setup.py builds it, if the processor has that: some paths need fused multiply-adds. The unmutated sources go first, to
show that all tests pass on such builds. A mutant that does not compile is none, and one whose machine code is that of
the original on either level computes the same: others take their places. What only 512-bit vectors run is not seen.

Exits with status 1 if fewer than 95 % are killed. It takes half a minute for each mutant that is killed and several for
one that survives, so it is a program of its own; pytest does not collect it.
"""

from __future__ import annotations

import argparse
import os
import random
import re
import runpy
import shutil
import signal
import subprocess
import sys
import sysconfig
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import chdir
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any
from unittest import mock

TESTS = Path(__file__).parent
ROOT = TESTS.parent

FILES = (
    "_kernels.pyx", "_nests.pxi", "_depthwise_nests.pxi", "_in_place.pxi", "_doors.pxi", "_strip.pxd", "_copy.pxd",
    "_widen.pxd", "_tile.pxd", "_depthwise.pxd", "_channels.pxd", "_pack.pxd", "_store.pxd", "_lowered.pxd",
    "_queue.pxd", "_split.pxd", "_vector.pxd",
)  # fmt: skip

# The modules of a level, each with the tests that may see a mistake in it: the fastest killers first.
STAGES = {
    "": (
        "test_exact.py", "test_memory.py", "test_variants.py", "test_dtypes.py", "test_scratch.py",
        "test_determinism.py", "test_padding_promise.py", "test_threads.py", "test_repeated_calls.py",
    ),
    "_int": ("test_dtypes.py",),
}  # fmt: skip

# What a mutant makes of a line, and why that computes the same.
SAME_RESULTS = {
    "span.low = (axis.step - 1 - span.first) // axis.step if span.first <= 0 else 0": "of 0 the quotient is 0, too",
    "for i in range((bytes) // VECTOR_BYTES):": "the last vector of a whole number is copied twice",
    "phases.first = spans[0].first - spans[0].low * cols.step": (
        "where low is not 0 the phase of segment 0 is too large, and segments are gathered one after the other"
    ),
    "inner_pixels(&p.rows, p.sh, p.row_reach, t.oh_start, t.n_oh, &bottom, &top)": (
        "no pixel seems to have all its taps inside, so that all go by way of the strip"
    ),
    "if runs.first_pixel[runs.n] + n * width >= n_ow:": "a run that ends with the row may as well be two",
    "rows = max(p.M[p.NV], p.oh)": "whether rows displace each other in the cache: the same bits from a strip",
    "t.overhang = min(t.overhang, overhang_of(p, t.n_ow))": "lanes past a row are dropped, whatever they have read",
    "if not (n_threads == 1):": "one thread can be a team, and a team's tasks can be done by one thread",
    "if not (real is f32):": "in `copy_pixels`, whose vectors are copied whatever they are of",
    "p.rows.pad == p.cols.pad == 0 and (p.oh - 1) * p.sh < p.rows.extent and (p.ow + 1) * p.sw < p.cols.extent": (
        "fewer maps of a 1x1 kernel count as inside the image: the same bits from a strip"
    ),
    "if bottom <= top or right - left <= width:": "the narrowest task of rectangles goes by way of the strip",
    "if not (overhang):": "lanes past a row are dropped, whatever they have read",
    "bint whole = t.n_ow > VL and fits_output(call, t, 0, VL, sizeof(real))": "a row of one vector may have a buffer",
    "holds = part.last and not is_final(call, &target, sizeof(real), width)": (
        "whether sums wait for the next tile's: those that need not are stored from there, and the same"
    ),
    "Py_ssize_t n_kw = KW if not (KW) else taps.n_kw": "assumed to be above 0, it cannot be KW where that is 0",
    "if n <= end:": "clears the ends of a row that has none",
    "return i + extent if i <= 0 else i - extent": "of 0, which is inside, nobody asks",
    "for col in range(n_cols - 1):": "lanes past the last channel are cleared and then dropped, whatever they hold",
    "return stretch_of(&p.cols, p.kw, p.sw, p.dw, col, t.ow_start - t.n_ow)": "stretches of one pixel",
}

PASSING = 0.95

# Names of pointers: to swap one of these with a number would not compile.
POINTERS = {name for file in FILES for name in re.findall(r"\*(\w+)", (ROOT / "pyconv" / file).read_text())}

# Functions and lines that no result depends on, and why.
UNSEEN_FUNCTIONS = {
    "multiply_adds": "a yardstick of the benchmark",
    "tile_multiply_adds": "a yardstick of the benchmark",
    "tile_fits": "which tiles there are: all of them give the same bits",
    "depthwise_fits": "which tiles there are",
    "channels_fits": "which tiles there are",
    "variants": "which tiles there are",
    "max_threads": "what OpenMP says",
    "extent": "how large a frame is, below",
    "has_large_rectangles": "whether rectangles are worth it: the same bits from a strip",
    "pixels_of": "pixels asked for early: it is neither a read nor a write",
    "pixels_after": "pixels asked for early",
    "expect_turn": "weights asked for early",
    "sum_rows": "turns of many taps, for builds with fused multiply-add",
}
UNSEEN_LINES = {
    r"ahead|expect_|prefetch|% CACHE_LINE == 0": "pixels or weights asked for early: it is neither a read nor a write",
    r"assume\(|in_register|1 < M <= 3|M < NV": "what stays in registers",
    r"tasks_at_once|chunk|PyErr_CheckSignals": "how often Ctrl-C is looked for, how many tasks a thread takes at once",
    r"\bslots = \($|extent\(.*(left|top|bottom|n_oh)|rows \* \($": "whether a frame is worth it: the same bits without",
    r"\blines = p\.|\bsets\b|\broom\(|pitch // 2": "whether pixels displace each other in the cache",
    r"PAGES_AT_ONCE": "how many channels are gathered before the next panel",
}


def _operator(before: str, after: str) -> tuple[str, Callable[[str], Iterator[str]]]:
    """Make the rule that puts one text in the place of another, wherever that stands in a line."""

    def mutate(line: str) -> Iterator[str]:
        for found in re.finditer(re.escape(before) + (r"\b" if before[-1].isalnum() else ""), line):
            yield line[: found.start()] + after + line[found.end() :]

    return f"{before.strip()} to {after.strip() or 'nothing'}", mutate


def _calls(line: str) -> Iterator[tuple[str, int, list[str]]]:
    """Yield the calls within a line: the function, where its arguments begin, and these."""
    for found in re.finditer(r"(\w+)\(", line):
        depth, parts, start = 1, [], found.end()
        for i in range(found.end(), len(line)):
            depth += (line[i] in "([") - (line[i] in ")]")
            if depth == 0 or (depth == 1 and line[i] == ","):
                parts.append(line[start:i])
                start = i + 1
            if depth == 0:
                yield found[1], found.end(), parts
                break


def _later_start(line: str) -> Iterator[str]:
    for name, begin, parts in _calls(line):
        if name == "range" and len(parts) == 1:
            yield f"{line[:begin]}1, {line[begin:]}"
        elif name == "range":
            yield f"{line[:begin]}1 + {line[begin:]}"


def _earlier_end(line: str) -> Iterator[str]:
    for name, begin, parts in _calls(line):
        if name == "range":
            end = begin + len(",".join(parts[:2]))
            yield f"{line[:end]} - 1{line[end:]}"


def _swapped(line: str) -> Iterator[str]:
    """Swap two neighbouring numbers among the arguments of a call, or in a line of nothing else."""
    lists = [(begin, parts) for name, begin, parts in _calls(line) if name not in ("min", "max", "range")]
    alone = re.fullmatch(r"(\s+)(&?[\w.]+(?:, &?[\w.]+)+)(,?)", line)
    if alone:
        lists.append((alone.end(1), alone[2].split(",")))
    for begin, parts in lists:
        for i in range(len(parts) - 1):
            one, other = parts[i].strip(), parts[i + 1].strip()
            if one != other and "<" not in one + other and POINTERS.isdisjoint(re.split(r"\W+", f"{one} {other}")):
                before, here = ",".join(parts[:i]), ",".join(parts[: i + 2])
                comma = ", " if i else ""
                yield f"{line[:begin]}{before}{comma}{other}, {one}{line[begin + len(here) :]}"


def _negated(line: str) -> Iterator[str]:
    found = re.fullmatch(r"(\s*(?:el)?if )(.+)(:)", line) or re.fullmatch(r"(.* if )(.+?)( else .*)", line)
    if found:
        yield f"{found[1]}not ({found[2]}){found[3]}"


def _dropped(line: str) -> Iterator[str]:
    found = re.fullmatch(r"(\s*)(?:([\w.]+) = \2 .*|[\w.]+ [-+|]= .*|continue|return)", line)
    if found:
        yield f"{found[1]}pass"


RULES: dict[str, Callable[[str], Iterator[str]]] = {
    **dict(
        _operator(*pair)
        for pair in (
            (" < ", " <= "), (" <= ", " < "), (" > ", " >= "), (" >= ", " > "), (" == ", " != "), (" != ", " == "),
            (" + 1", ""), (" - 1", ""), (" + ", " - "), (" - ", " + "), ("min(", "max("), ("max(", "min("),
            (" and ", " or "), (" or ", " and "), ("True", "False"), ("False", "True"),
        )
    ),
    "range from 1 on": _later_start,
    "range to the last but one": _earlier_end,
    "arguments swapped": _swapped,
    "condition negated": _negated,
    "statement dropped": _dropped,
}  # fmt: skip


@dataclass(frozen=True)
class Mutant:
    """A line of a file, counted from 1, and what it becomes."""

    file: str
    number: int
    rule: str
    before: str
    after: str

    def __str__(self) -> str:
        return f"{self.file}:{self.number}: {self.rule}: {self.before.strip()} -> {self.after.strip()}"

    def apply(self, tree: Path) -> None:
        """Make the mistake in the sources of a tree."""
        path = tree / "pyconv" / self.file
        lines = path.read_text().splitlines()
        assert lines[self.number - 1].startswith(self.before)
        lines[self.number - 1] = self.after
        path.write_text("\n".join(lines) + "\n")


def code_lines(text: str) -> Iterator[tuple[int, str]]:
    """Yield the lines of functions that do something, without their comments."""
    function, in_string, in_signature = "", False, False
    for number, line in enumerate(text.splitlines(), start=1):
        quotes = line.count('"""')
        if quotes or in_string:
            in_string ^= quotes == 1
            continue
        code = re.sub(r"\s*#.*", "", line)
        if in_signature:
            in_signature = not code.endswith(":")
            continue
        if re.match(r"\s*(cdef|def) .*(\(|\(.*[:,])$", code):
            named = re.match(r"[^(]*?(\w+)\(", code)
            assert named
            function, in_signature = named[1], not code.endswith(":")
        elif re.match(r"\S", code):
            function = ""
        elif (
            code
            and function
            and function not in UNSEEN_FUNCTIONS
            and '"' not in code
            and not any(re.search(pattern, code) for pattern in UNSEEN_LINES)
        ):
            yield number, code


def mutation_of(line: str, rng: random.Random) -> tuple[str, str] | None:
    """Draw a rule that finds something in a line, and what becomes of it."""
    declaration = re.match(r"\s+(cdef |const |unsigned )?\w+ [\w*]+(\[.*\])?(,|$)", line)
    found = {} if declaration else {rule: list(mutate(line)) for rule, mutate in RULES.items()}
    rules = [rule for rule, lines in found.items() if lines]
    if not rules:
        return None
    rule = rng.choice(rules)
    return rule, rng.choice(found[rule])


def drawn(seed: int) -> Iterator[Mutant]:
    """Draw mutants without end but for that of the lines, at most one of a line."""
    rng = random.Random(seed)
    places: dict[str, list[Mutant]] = {}
    length: dict[str, int] = {}
    for file in FILES:
        lines = list(code_lines((ROOT / "pyconv" / file).read_text()))
        length[file] = len(lines)
        mutations = [(number, line, mutation_of(line, rng)) for number, line in lines]
        places[file] = [Mutant(file, number, made[0], line, made[1]) for number, line, made in mutations if made]
        rng.shuffle(places[file])
    taken: defaultdict[str, int] = defaultdict(int)
    while any(places.values()):
        file = min((f for f in FILES if places[f]), key=lambda f: (taken[f] + 0.5) / length[f])
        taken[file] += 1
        yield places[file].pop()


@cache
def description() -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the tables of setup.py, and the extension modules that it describes."""
    with (
        chdir(ROOT),
        mock.patch("setuptools.setup") as setup,
        mock.patch("Cython.Build.cythonize", lambda modules, **_: modules),
    ):
        tables: dict[str, Any] = runpy.run_path(str(ROOT / "setup.py"))
    return tables, {module.name.split(".")[1]: module for module in setup.call_args.kwargs["ext_modules"]}


class Builder:
    """Compiles the modules of a level as setup.py describes them, or with little optimisation."""

    def __init__(self, level: str, *, optimised: bool) -> None:
        self.tables, self.modules = description()
        self.optimised = optimised
        self.plain: list[str] = self.tables["PLAIN"]
        self.kernels = f"_kernels_{level}"

    def translate(self, tree: Path, module: str) -> bool:
        """Translate a module's source to C; tell whether that succeeded."""
        (source,) = self.modules[module].sources
        directives = [f"--directive={name}={value}" for name, value in self.tables["DIRECTIVES"].items()]
        return _succeeds(
            tree, sys.executable, "-m", "cython", f"--module-name=pyconv.{module}", *directives, source,
            "-o", f"{module}.c",
        )  # fmt: skip

    def compile(self, tree: Path, module: str, suffix: str = "") -> bool:
        """Compile a translated module, or its variant of that suffix, into the package; tell whether that succeeded."""
        described = self.modules[module + suffix]
        slow = () if self.optimised else (*self.tables["OPTIMISE"], *self.tables["INLINE"])
        return _succeeds(
            tree, *sysconfig.get_config_var("CC").split(), "-O1", "-w", "-shared", "-fPIC",
            f"-I{sysconfig.get_path('include')}", f"-DPyInit_{module}=PyInit_{module}{suffix}",
            *(flag for flag in described.extra_compile_args if flag not in slow),
            f"{module}.c", "-o", f"pyconv/{module}{suffix}.so", *described.extra_link_args,
        )  # fmt: skip

    def machine_code(self, tree: Path, suffix: str) -> bytes:
        """Return the instructions and the constants of a compiled module."""
        sections = ("--only-section=.text", "--only-section=.rodata")
        module = f"pyconv/{self.kernels}{suffix}.so"
        subprocess.run(["objcopy", "-O", "binary", *sections, module, "code.bin"], cwd=tree, check=True)
        return (tree / "code.bin").read_bytes()


def _succeeds(tree: Path, *command: str) -> bool:
    return subprocess.run(command, cwd=tree, capture_output=True, check=False).returncode == 0


def failure(tree: Path, file: str, limit: float) -> str:
    """Run a file of tests until one fails; tell which, or "" if none does."""
    command = [sys.executable, "-m", "pytest", "-x", "-v", "-p", "no:cacheprovider", "-o", "addopts=", file]
    process = subprocess.Popen(
        command,
        cwd=TESTS,
        env={**os.environ, "PYTHONPATH": str(tree)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        start_new_session=True,
    )
    try:
        output, _ = process.communicate(timeout=limit)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)  # with the processes that the test has started
        output, _ = process.communicate()
    if process.returncode == 0:
        return ""
    how = "" if process.returncode > 0 else f" ({signal.Signals(-process.returncode).name})"
    begun = re.findall(r"^(\S+::.+?)(?: (PASSED|SKIPPED|FAILED|ERROR|Fatal).*)?$", output, re.MULTILINE)
    stopped = [name for name, outcome in begun if outcome not in ("PASSED", "SKIPPED")]
    return (stopped[0].strip() if stopped else file) + how


class Check:
    """The unmutated build of a level and the mutants made from it."""

    def __init__(self, work: Path, builder: Builder) -> None:
        self.builder = builder
        self.work = work
        self.original = work / "original"
        self.limits = dict.fromkeys(STAGES[""], 600.0)
        shutil.copytree(ROOT / "pyconv", self.original / "pyconv", ignore=shutil.ignore_patterns("*.so", "__pycache__"))
        kernels = self.builder.kernels
        built = (
            *(
                builder.translate(self.original, name) and builder.compile(self.original, name)
                for name in builder.plain
            ),
            self.builder.translate(self.original, kernels),
            *(self.builder.compile(self.original, kernels, suffix) for suffix in STAGES),
        )
        assert all(built), "the sources as they are do not compile"
        self.code = {suffix: self.builder.machine_code(self.original, suffix) for suffix in STAGES}

    def runs(self) -> bool:
        """Tell whether this processor runs the level."""
        return _succeeds(self.original, sys.executable, "-c", "import pyconv")

    def test_the_original(self) -> None:
        """See that all tests pass, and how long they take: a mutant that takes much longer hangs."""
        for file in self.limits:
            begin = time.monotonic()
            failed = failure(self.original, file, 600)
            assert not failed, f"{failed} fails without a mutation"
            self.limits[file] = 30 + 3 * (time.monotonic() - begin)

    def build(self, mutant: Mutant, suffix: str = "") -> str:
        """Make a module of the mutant in a tree of its own: "" or why there is nothing to test."""
        if mutant.after.strip() in SAME_RESULTS:
            return f"equivalent: {SAME_RESULTS[mutant.after.strip()]}"
        tree, kernels = self.tree(mutant), self.builder.kernels
        if not tree.exists():
            shutil.copytree(self.original, tree)
            mutant.apply(tree)
            if not self.builder.translate(tree, kernels):
                return "does not compile"
        if not self.builder.compile(tree, kernels, suffix):
            return "does not compile"
        return "equivalent" if self.builder.machine_code(tree, suffix) == self.code[suffix] else ""

    def tree(self, mutant: Mutant) -> Path:
        """Where a mutant is built."""
        return self.work / f"{mutant.file}.{mutant.number}"

    def outcome(self, mutant: Mutant, built: str) -> str:
        """Test a mutant of which one module has been built: what it was killed by, "survived", or why it is none."""
        outcomes = []
        for suffix, files in STAGES.items():
            outcomes.append(self.build(mutant, suffix) if suffix else built)
            if outcomes[-1] == "does not compile":
                return outcomes[-1]
            for file in () if outcomes[-1] else files:
                failed = failure(self.tree(mutant), file, self.limits[file])
                if failed:
                    return f"killed by {failed}"
        return "survived" if "" in outcomes else outcomes[0]


def main() -> int:
    parser = argparse.ArgumentParser(description="Break the kernels on purpose and see whether the tests notice.")
    parser.add_argument("--count", type=int, default=40, help="how many mutants to test (%(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="which ones (%(default)s)")
    parser.add_argument("--only", type=int, metavar="N", help="only the one of this number")
    chosen = parser.parse_args()
    counts: defaultdict[str, int] = defaultdict(int)
    with tempfile.TemporaryDirectory() as work, ThreadPoolExecutor(max_workers=1) as pool:
        levels = list(description()[0]["LEVELS"])
        check = Check(Path(work, levels[0]), Builder(levels[0], optimised=False))
        higher = [Check(Path(work, level), Builder(level, optimised=True)) for level in levels[1:2]]
        checks = [check, *(other for other in higher if other.runs())]
        if chosen.only is None:
            for each in checks:
                each.test_the_original()
        numbered = [
            (number, mutant) for number, mutant in enumerate(drawn(chosen.seed)) if chosen.only in (None, number)
        ]
        # While one mutant is tested the next is built.
        builds = [pool.submit(check.build, mutant) for _, mutant in numbered[:2]]
        for i, (number, mutant) in enumerate(numbered):
            if counts["killed"] + counts["survived"] == chosen.count:
                break
            begin = time.monotonic()
            outcome = check.outcome(mutant, builds[i].result())
            builds += [pool.submit(check.build, following) for _, following in numbered[i + 2 : i + 3]]
            for other in checks[1:] if outcome in ("survived", "equivalent") else ():
                again = other.outcome(mutant, other.build(mutant))
                outcome = again if again != "equivalent" else outcome
            for each in checks:
                shutil.rmtree(each.tree(mutant), ignore_errors=True)
            print(f"{number:>3} {mutant}: {outcome} ({time.monotonic() - begin:.0f} s)", flush=True)
            counts[outcome.split()[0].rstrip(":")] += 1
    tested = counts["killed"] + counts["survived"]
    print(
        f"{counts['killed']} of {tested} mutants killed; "
        f"{counts['equivalent']} equivalent, {counts['does']} that do not compile"
    )
    return int(counts["killed"] < PASSING * tested)


if __name__ == "__main__":
    sys.exit(main())
