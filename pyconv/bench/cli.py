"""The command ``python -m pyconv bench``: its options, its outputs, and one clear line for every mistake."""

from __future__ import annotations

import argparse
import shlex
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

from pyconv.bench import adapters, machine, plot, presets, selection, table
from pyconv.bench.contender import RefusedError
from pyconv.bench.errors import BenchError
from pyconv.bench.record import Run
from pyconv.bench.session import Session

PROGRAM = "pyconv bench"
OK, FAILED, MISUSED, INTERRUPTED = 0, 1, 2, 130


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
        default=["resnet50"],
        help=f"presets ({', '.join(presets.NAMES)}, {presets.ALL}), descriptors of oneDNN's benchdnn, files of them, "
        "or ONNX models (default: resnet50)",
    )
    add("--list", action="store_true", help="print the presets and how many layers each has")

    what = top.add_argument_group("what is measured")
    add = what.add_argument
    add("--batch", metavar="N,...", help="images (default: 1 for presets; what a descriptor says)")
    add("--threads", metavar="N,...", default="1", help="numbers of threads, or 'all' (default: 1)")
    add("--dtype", metavar="f32,f64", default="f32", help="default: f32")
    add("--layout", metavar="nchw,nhwc", default="nchw", help="memory layout of the input (default: nchw)")
    add(
        "--weights",
        metavar="packed,unpacked",
        default="packed",
        help="packed by a module in eval(), or passed to conv2d (default: packed)",
    )
    add("--isa", metavar="ISA,...", help="instruction sets (default: the one in use)")
    add("--filter", metavar="REGEX", help="only layers whose name it matches somewhere")
    add("--rounds", metavar="N", default="9", help="samples of every contender (default: 9)")
    add("--max-seconds", metavar="S", help="make fewer rounds, at least 3, to end after about this time")
    add("--against", metavar="PEER,...", help=f"{', '.join(adapters.NAMES)}, or 'installed' for all that are there")

    out = top.add_argument_group("where it goes, beside the terminal")
    add = out.add_argument
    add("--json", metavar="FILE", help="the record of all samples, for --compare")
    add("--csv", metavar="FILE", help="a line for each row")
    add("--markdown", metavar="FILE", help="the tables")
    add("--plot", metavar="FILE", help="pictures: the roofline, and the ratios in FILE-ratios (.png, .svg, .pdf)")
    return top


def main(arguments: Sequence[str]) -> int:
    """Run the command; return the exit status."""
    try:
        return _main(arguments)
    except (BenchError, RefusedError) as error:
        print(f"{PROGRAM}: {error}", file=sys.stderr)
        return MISUSED if isinstance(error, BenchError) else FAILED
    except KeyboardInterrupt:
        return INTERRUPTED


def _main(arguments: Sequence[str]) -> int:
    options = parser().parse_args(arguments)
    if options.list:
        print_presets()
        return OK
    check_outputs(options)
    layers, notes = selection.layers_of(options.layers, options.filter)
    peers = selection.peers_of(options.against)
    jobs = selection.jobs_of(
        layers,
        batches=selection.batches_of(options.batch),
        threads=selection.threads_of(options.threads),
        dtypes=selection.choices_of("--dtype", options.dtype, ["f32", "f64"]),
        layouts=selection.choices_of("--layout", options.layout, ["nchw", "nhwc"]),
        weights=selection.choices_of("--weights", options.weights, ["packed", "unpacked"]),
        isas=selection.isas_of(options.isa),
    )
    session = Session(
        jobs, peers, int(options.rounds), None if options.max_seconds is None else float(options.max_seconds)
    )
    started = machine.now()
    session.run()
    run = Run(
        command=f"python -m pyconv bench {shlex.join(arguments)}".strip(),
        started=started,
        machine=machine.describe(),
        versions=machine.versions([package for peer in peers for package in adapters.packages(peer.name)]),
        yardsticks=session.yardsticks,
        rows=session.rows,
    )
    print(table.terminal(run, shutil.get_terminal_size((160, 24)).columns))
    for note in [*notes, *session.notes]:
        print(f"{PROGRAM}: {note}", file=sys.stderr)
    write(run, options)
    return INTERRUPTED if session.interrupted else OK


def print_presets() -> None:
    """List the presets."""
    for name in (*presets.NAMES, presets.ALL):
        layers = presets.layers(name)
        print(f"{name:<14} {len(layers):>4} layers")


def check_outputs(options: argparse.Namespace) -> None:
    """Refuse outputs that could not be written at the end, before anything is measured."""
    for option in ("json", "csv", "markdown", "plot"):
        name = getattr(options, option)
        if name is not None and not Path(name).absolute().parent.is_dir():
            raise BenchError(f"--{option} {name}: no such directory")
    if options.plot is not None:
        if Path(options.plot).suffix not in plot.SUFFIXES:
            raise BenchError(f"--plot {options.plot}: the name must end in one of {', '.join(plot.SUFFIXES)}")
        if not plot.available():
            raise BenchError("--plot needs matplotlib; try: pip install 'pyconv-cpu[bench]'")


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
