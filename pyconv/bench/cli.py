"""The command ``python -m pyconv bench``: its options, its outputs, and one clear line for every mistake."""

from __future__ import annotations

import argparse
import dataclasses
import os
import re
import shlex
import shutil
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import NoReturn

from pyconv.bench import adapters, machine, plot, presets, selection, table
from pyconv.bench.compare import compare
from pyconv.bench.contender import RefusedError, is_build
from pyconv.bench.errors import BenchError
from pyconv.bench.operands import DTYPES
from pyconv.bench.record import Run
from pyconv.bench.session import Session
from pyconv.bench.special import Setup, Table, cold, denormals, import_time, memory, overhead, scaling, tiles

PROGRAM = "pyconv bench"
OK, FAILED, MISUSED, INTERRUPTED = 0, 1, 2, 130


# Option -> title of the table.
SPECIAL = {
    "scaling": "Scaling: speed-up over the fewest threads, and as % of what the multiply-add peak gains",
    "cold": "Cold: the first call in a fresh process",
    "memory": "Memory: what a call takes beyond its arrays",
    "overhead": "Overhead: the time of the smallest calls",
    "denormals": "Denormals: the same layer on subnormal numbers, and, flushed, with these as zeros",
    "import_time": "Import: time in a fresh process, and size on disk",
    "tiles": "Tiles: each one alone, strip and weights in the first level cache",
}


# Those that do not look at the layers that are asked for: what they do, and the options that mean nothing to them.
_OF_LAYERS = ("filter", "batch", "threads", "layout", "weights")
_WITHOUT_LAYERS = {
    "overhead": ("which times layers of its own", _OF_LAYERS),
    "import_time": ("which imports and computes nothing", (*_OF_LAYERS, "dtype", "isa")),
}
_DEFAULT = ["resnet50"]


class _Parser(argparse.ArgumentParser):
    """Says what is wrong in one line, without the usage."""

    def error(self, message: str) -> NoReturn:
        raise BenchError(message)


def parser() -> argparse.ArgumentParser:
    """Build the parser of the command line."""
    top = _Parser(
        prog="python -m pyconv bench",
        description="Time convolutions, beside the machine's limits and other libraries.",
        epilog="Lists are separated by commas; every layer is measured with every combination.",
        allow_abbrev=False,
    )
    add = top.add_argument
    add(
        "layers",
        nargs="*",
        metavar="LAYERS",
        default=_DEFAULT,
        help=f"presets ({', '.join(presets.NAMES)}, {presets.ALL}), descriptors of oneDNN's benchdnn, files of them, "
        "or ONNX models (default: resnet50)",
    )
    add("--list", action="store_true", help="print the presets and how many layers each has or, of LAYERS, each one")

    what = top.add_argument_group("what is measured")
    add = what.add_argument
    add("--batch", metavar="N,...", help="images (default: 1 for presets; what a descriptor says, or 2)")
    add("--threads", metavar="N,...", help="numbers of threads, or 'all' (default: 1)")
    add("--dtype", metavar="DTYPE,...", default="f32", help=f"of {', '.join(DTYPES)}; default: f32")
    add("--layout", metavar="nchw,nhwc", default="nchw", help="memory layout of the input (default: nchw)")
    add(
        "--weights",
        metavar="packed,unpacked",
        default="packed",
        help="packed by a module in eval(), or passed to conv2d (default: packed)",
    )
    add("--isa", metavar="ISA,...", help="instruction sets (default: the one in use)")
    add(
        "--evict",
        metavar="MIB,...",
        default="0",
        help="read so much other memory before each call, as what runs between two layers does (default: 0)",
    )
    add("--filter", metavar="REGEX", help="only layers whose name it matches somewhere")
    add("--rounds", metavar="N", type=_rounds, default=9, help="samples of every contender (default: 9)")
    add("--max-seconds", metavar="S", type=_seconds, help="make fewer rounds, at least 3, to end after about this time")
    add(
        "--patience",
        metavar="S",
        type=_seconds,
        default=0.0,
        help="wait while other processes use the cores (or the other hardware threads of these), and take samples "
        "again that they disturbed, for S more seconds in all (default: take samples as they come)",
    )
    add(
        "--against",
        metavar="PEER,...",
        help=f"{', '.join(adapters.NAMES)}, 'installed' for all that are there, or, with a slash, a directory with "
        "another build of pyconv",
    )

    special = top.add_argument_group("special modes, which replace the table of layers by tables of their own")
    add = special.add_argument
    add("--scaling", action="store_true", help="speed-up for 1..N threads, beside that of the peak")
    add("--cold", action="store_true", help="the first call of a process; a thousand calls of a thousand shapes")
    add("--memory", action="store_true", help="peak of memory above the arrays, beside the plan's scratch")
    add("--overhead", action="store_true", help="time of the smallest call")
    add("--denormals", action="store_true", help="time on subnormal numbers, as IEEE has them and as zeros")
    add("--import-time", action="store_true", help="of import pyconv above import numpy; size on disk")
    add("--tiles", action="store_true", help="each tile that the plans use, alone, as %% of the peak")

    out = top.add_argument_group("where it goes, beside the terminal")
    add = out.add_argument
    add("--json", metavar="FILE", help="the record of all samples, for --compare")
    add("--csv", metavar="FILE", help="a line for each row")
    add("--markdown", metavar="FILE", help="the tables")
    add("--plot", metavar="FILE", help="pictures: the roofline, and the ratios in FILE-ratios (.png, .svg, .pdf)")
    add("--compare", metavar="OLD.json", help="print how much every layer's median has changed since")
    add("--fail-if", metavar="median:P%", type=_threshold, help="exit with 1 if one has grown by more than P %%")
    return top


def _rounds(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of at least 1")
    return int(text)


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0.0
    if not 0 < seconds < float("inf"):
        raise argparse.ArgumentTypeError(f"{text!r} is not a positive number of seconds")
    return seconds


def _threshold(text: str) -> float:
    match = re.fullmatch(r"median:(\d+(?:\.\d+)?)%?", text)
    if match is None:
        raise argparse.ArgumentTypeError(f"{text!r} is not of the form median:10%")
    return float(match[1]) / 100


def main(arguments: Sequence[str]) -> int:
    """Run the command; return the exit status."""
    try:
        with _ended_as_by_ctrl_c():
            return _main(arguments)
    except BenchError as error:
        print(f"{PROGRAM}: {error}", file=sys.stderr)
        return MISUSED
    except RefusedError as error:
        print(f"{PROGRAM}: {error}", file=sys.stderr)
        return FAILED
    except KeyboardInterrupt:
        print(f"{PROGRAM}: interrupted before anything was measured", file=sys.stderr)
        return INTERRUPTED
    except BrokenPipeError:  # as in `... | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return FAILED


@contextmanager
def _ended_as_by_ctrl_c() -> Iterator[None]:
    """Let SIGTERM, a time limit's signal, keep what was measured, too."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before or signal.SIG_DFL)


def _main(arguments: Sequence[str]) -> int:
    known = parser()
    options = known.parse_args(arguments)
    if options.list:
        print_list(options.layers, options.filter)
        return OK
    check_outputs(options)
    if options.patience and options.max_seconds:
        raise BenchError(
            f"--patience {options.patience:g}: not with --max-seconds, which it would take the rounds from"
        )
    old = read_old(options)
    layers, notes = selection.layers_of(options.layers, options.filter)
    peers = selection.peers_of(options.against)
    if options.against and not peers:
        notes.append(f"--against {options.against}: none of {', '.join(adapters.NAMES)} is installed")
    evicted = selection.evicted_of(options.evict)
    modes = [mode for mode in SPECIAL if getattr(options, mode)]
    if modes:
        mode = f"--{modes[0].replace('_', '-')}"
        if any(evicted):
            raise BenchError(f"--evict {options.evict}: not with {mode}")
        if old is not None:
            raise BenchError(f"--compare {options.compare}: not with {mode}")
        for name, seconds in (("max-seconds", options.max_seconds), ("patience", options.patience)):
            if seconds:
                raise BenchError(f"--{name} {seconds:g}: not with {mode}")
        if options.csv is not None:
            raise BenchError(f"--csv {options.csv}: not with {mode}, whose tables --json and --markdown take")
        if options.plot is not None:
            raise BenchError(f"--plot {options.plot}: not with {mode}, which has tables only")
        if peers and options.tiles:
            raise BenchError(f"--against {options.against}: not with --tiles, which runs tiles of this build only")
        builds = [peer.name for peer in peers if is_build(peer.name)]
        if builds and options.import_time:
            raise BenchError(f"--against {builds[0]}: not with --import-time, which imports this build only")
        if _WITHOUT_LAYERS.keys() >= {*modes}:
            why, needless = _WITHOUT_LAYERS[modes[0]]
            words = [] if options.layers is _DEFAULT else [" ".join(options.layers)]
            given = ((name, getattr(options, name)) for name in needless)
            words += [f"--{name} {value}" for name, value in given if value != known.get_default(name)]
            if words:
                raise BenchError(f"{words[0]}: not with {mode}, {why}")
    threads = selection.threads_of("1" if options.threads is None else options.threads)
    counts = scaling.thread_counts() if options.threads is None else threads
    if options.scaling and len(counts) == 1:
        raise BenchError(f"--scaling: several numbers of threads are compared, and {counts[0]} is the only one here")
    jobs = selection.jobs_of(
        layers,
        batches=selection.batches_of(options.batch),
        threads=threads[:1] if options.scaling else threads,
        dtypes=selection.choices_of("--dtype", options.dtype, list(DTYPES)),
        layouts=selection.choices_of("--layout", options.layout, ["nchw", "nhwc"]),
        weights=selection.choices_of("--weights", options.weights, ["packed", "unpacked"]),
        isas=selection.isas_of(options.isa),
        evicted=evicted,
    )
    run = Run(
        command=f"python -m pyconv bench {shlex.join(arguments)}".strip(),
        started=machine.now(),
        machine=machine.describe(),
        versions=machine.versions([peer.name for peer in peers]),
        yardsticks=[],
        rows=[],
    )
    session = Session(jobs, peers, options.rounds, options.max_seconds, options.patience)
    if modes:
        interrupted = measure_special(run, modes, Setup(jobs, peers, options.rounds), counts)
    else:
        session.run()
        interrupted = session.interrupted
        run = dataclasses.replace(run, yardsticks=session.yardsticks, rows=session.rows, notes=session.remarks)
    for note in [*notes, *session.notes]:
        print(f"{PROGRAM}: {note}", file=sys.stderr)
    if interrupted and not run.rows and not run.special:
        raise KeyboardInterrupt
    print(table.terminal(run, shutil.get_terminal_size((160, 24)).columns), end="")
    write(run, options)
    slower = False
    if old is not None:
        text, slower = compare(old, run, options.fail_if)
        print(f"\n{text}", end="")
    if interrupted:
        return INTERRUPTED
    return FAILED if slower or session.failed else OK


def measure_special(run: Run, modes: Sequence[str], setup: Setup, counts: Sequence[int]) -> bool:
    """Fill the tables of some special modes; tell whether Ctrl-C ended it."""
    fillers: dict[str, Callable[[Table, Setup], None]] = {
        "scaling": partial(scaling.fill, counts=counts),
        "cold": cold.fill,
        "memory": memory.fill,
        "overhead": overhead.fill,
        "denormals": denormals.fill,
        "import_time": import_time.fill,
        "tiles": tiles.fill,
    }
    for mode in modes:
        filled = Table(SPECIAL[mode], [])
        try:
            fillers[mode](filled, setup)
        except KeyboardInterrupt:
            filled.notes.append("interrupted: not everything was measured")
            return True
        finally:
            if filled.rows:
                run.special[mode] = dataclasses.asdict(filled)
    return False


def print_list(words: Sequence[str], pattern: str | None) -> None:
    """List the presets or, of those that are asked for, the layers, in a form that a file of layers may have."""
    if words is _DEFAULT and pattern is None:
        for name in (*presets.NAMES, presets.ALL):
            print(f"{name:<14} {len(presets.layers(name)):>4} layers")
        return
    layers, notes = selection.layers_of(words, pattern)
    for layer in layers:
        print(layer.line)
    for note in notes:
        print(f"{PROGRAM}: {note}", file=sys.stderr)


def check_outputs(options: argparse.Namespace) -> None:
    """Refuse outputs that could not be written at the end, before anything is measured."""
    taken: dict[Path, str] = {}  # and by what
    if options.compare:
        taken[Path(options.compare).resolve()] = "is the record to compare with, which would be lost"
    for option in ("json", "csv", "markdown", "plot"):
        name = getattr(options, option)
        if name is not None:
            if not name:
                raise BenchError(f"--{option} '': the name is empty")
            path = Path(name).resolve()
            if path in taken:
                raise BenchError(f"--{option} {name}: {taken[path]}")
            taken[path] = "another output goes there"
            _check_writable(option, Path(name).absolute())
    if options.plot is not None:
        if Path(options.plot).suffix not in plot.SUFFIXES:
            raise BenchError(f"--plot {options.plot}: the name must end in one of {', '.join(plot.SUFFIXES)}")
        if not plot.available():
            raise BenchError("--plot needs matplotlib; try: pip install 'pyconv-cpu[bench]'")


def _check_writable(option: str, path: Path) -> None:
    if path.is_dir():
        raise BenchError(f"--{option} {path}: is a directory")
    if not path.parent.is_dir():
        raise BenchError(f"--{option} {path}: there is no directory {path.parent}")
    if not os.access(path if path.exists() else path.parent, os.W_OK):
        raise BenchError(f"--{option} {path}: no permission to write it")


def read_old(options: argparse.Namespace) -> Run | None:
    """Read the record to compare with."""
    if options.compare is None:
        if options.fail_if is not None:
            raise BenchError("--fail-if needs --compare OLD.json")
        return None
    try:
        old = Run.read_json(options.compare)
    except ValueError as error:
        raise BenchError(f"--compare {error}") from None
    if not old.rows:
        kinds = ", ".join(old.special) or "notes"
        raise BenchError(f"--compare {options.compare}: has no table of layers, only {kinds}")
    return old


def write(run: Run, options: argparse.Namespace) -> None:
    """Write the outputs that were asked for."""
    if options.json is not None:
        run.write_json(options.json)
    if options.csv is not None:
        run.write_csv(options.csv)
    if options.markdown is not None:
        Path(options.markdown).write_text(table.markdown(run), encoding="utf-8")
    if options.plot is not None and run.rows:
        plot.draw(run, options.plot)
