"""Calls that crashed, hung or misled other libraries: a table, and the process to try them in.

A row is a defect that was reported for another library. Its entries are expressions, which are
evaluated in the namespace of this module:

    refused     raise ConvError or ConvTypeError, with a message that says what it is about
    exhausted   raise one of these or MemoryError
    true        evaluate to something true

The first two take less than a second and 10 MB. After each entry, an ordinary call gives the same
bits as before all of them.

``python _error_rows.py A`` tries the rows whose names begin with A, and writes a line of JSON for
each entry. Whoever called it (test_errors.py) sees a crash as the exit status.
"""

from __future__ import annotations

import json
import mmap
import resource
import sys
import time
from dataclasses import dataclass
from itertools import combinations, product
from pathlib import Path
from typing import Any

import numpy as np

import pyconv
from pyconv import ConvError, _reference, conv1d, conv2d
from pyconv._problem import conv_problem


@dataclass(frozen=True)
class Row:
    """What one defect demands of us."""

    source: str
    about: str = ""  # what the messages of refusals contain, as a regular expression
    refused: tuple[str, ...] = ()
    exhausted: tuple[str, ...] = ()
    true: tuple[str, ...] = ()


def settings(name: str, *values: str) -> tuple[str, ...]:
    """Entries that pass each of the values for a setting, to the function and the constructor."""
    calls = ("conv2d(x, w, {})", "Conv2d(4, 4, 3, {})", "conv1d(x1, w1, {})")
    return tuple(call.format(f"{name}={value}") for value in values for call in calls)


ROWS = {
    # --- arguments --------------------------------------------------------------------------------
    "A1": Row(
        "groups=0: division by zero. pytorch#91558, #71080, #85111",
        about="groups",
        refused=(*settings("groups", "0"), "conv2d(x, w, groups=0, padding='same')"),
    ),
    "A2": Row(
        "groups=-2**63: the quotient by -1 overflows. pytorch#49523",
        about="groups",
        refused=settings("groups", "-1", "-2**63", "2**63", "2**64"),
    ),
    "A3": Row(
        "stride=0: passes the constructor, dumps core in the call. pytorch#27598, #169255, #73193",
        about="stride|groups",
        refused=(
            *settings("stride", "0", "(0,)", "[0]"),
            "Conv2d(4, 4, 3, stride=(1, 0))",
            "conv2d(x, w, stride=0, dilation=0, groups=0)",
        ),
    ),
    "A4": Row(
        "negative settings",
        about="stride|padding|dilation",
        refused=(
            *settings("stride", "-1"),
            *settings("padding", "-1", "((0, -1),)"),
            *settings("dilation", "-1", "0"),
            "conv2d(x, w, padding=((0, 0), (-1, 3)), padding_mode='reflect')",
        ),
    ),
    "A5": Row(
        "padding=[]: crash. pytorch#121188",
        about="stride|padding|dilation|groups",
        refused=(
            *settings("padding", "[]", "(1, 1, 1)", "((1, 1), 1)", "(((1, 1),),)", "'abc'"),
            *settings("padding", "b'same'", "1.5", "(1, 1.0)", "True", "(True,)", "None", "{1}"),
            *settings("stride", "[]", "(1, 1, 1)", "((1,),)", "1.5", "True", "'1'", "None"),
            *settings("dilation", "[]", "(1, 1, 1)", "((1,),)", "1.5", "True", "'1'", "None"),
            *settings("groups", "(1,)", "[]", "1.0", "True", "'1'", "None"),
            "conv2d(x, w, padding='same', stride=2)",
            "Conv2d(4, 4, 3, padding=(1,))",
        ),
        true=(
            "conv2d(x, w, padding=np.int8(1)).shape == (1, 4, 8, 8)",
            "conv2d(x, w, padding=[np.uint64(1), 0]).shape == (1, 4, 8, 6)",
        ),
    ),
    "A6": Row(
        "padding=9223372036854775803: invalid pointer. pytorch#161877",
        about="padding",
        refused=(
            "conv2d(x, w, padding=9223372036854775803)",
            "conv1d(x1, w1, padding=9223372036854775803)",
            "Conv2d(4, 4, 3, padding=9223372036854775803)(x)",
        ),
        exhausted=("conv2d(x, w, padding=(2**31, 0))", "conv2d(x, w, padding=(0, 2**40))"),
    ),
    "A7": Row(
        "padding='same', dilation=2**31: crash. pytorch#143480",
        about="padded input of shape",
        refused=("conv2d(x, w, padding='same', dilation=2**31)",),
        true=(
            "(conv1d(x1, w1, padding='same', dilation=2**31) == conv1d(x1, w1[..., 1:2])).all()",
        ),
    ),
    "A8": Row(
        "a huge kernel and dilation wrap to a plausible size. pytorch#188959, #189697",
        about="Kernel size|more than",
        refused=(
            "conv2d(x, wide(2**31), dilation=2**32)",
            "conv2d(x, wide(2**40), padding=(0, 2**38))",
            "conv2d(x, w, dilation=2**62, padding=2**61)",
            "conv2d(x, w, dilation=2**63)",
            "Conv2d(4, 4, 2**63 - 2, dilation=2**63 - 1, padding=2**61)",
        ),
        exhausted=("conv2d(x, wide(2**40), padding=(0, 2**39))",),
        true=(
            "(conv1d(x1, w1, padding=2**32, stride=2**32)[..., 1] == conv1d(x1, w1)[..., 0]).all()",
        ),
    ),
    "A9": Row(
        "a weight of the wrong rank, or no array at all. pytorch#3039, #1356",
        about="dimension|input of size|must be an array|not implemented|should be the same",
        refused=(
            *(f"conv2d(x, {w})" for w in ("w[0, 0]", "w[0, 0, 0]", "w[0, 0, 0, 0]", "w[None]")),
            *(f"conv2d({x}, w)" for x in ("x[0, 0]", "x[None]", "np.array(1.0, 'f')")),
            *(f"conv2d({x}, w)" for x in ("None", "'abc'", "1.0", "[]", "{}", "conv2d")),
            *(f"conv2d(x, {w})" for w in ("None", "'abc'", "1.0", "[]", "{}", "conv2d")),
            "conv2d(x, w, 'abc')",
            "conv2d(x, w, 1.0)",
            "conv2d(x, w, [])",
            "Conv2d(4, 4, 3)(None)",
            "Conv2d(4, 4, 3)(x[0, 0])",
        ),
        true=("(conv2d(x[0], w) == conv2d(x, w)[0]).all()",),
    ),
    "A10": Row(
        "groups, channels and weight contradict each other. pytorch#182653",
        about="channels|bias of size|weight of size",
        refused=(
            "conv2d(ones(2, 8, 16, 7), ones(6, 1, 7, 1), groups=8)",
            "conv2d(ones(2, 8, 16, 7), ones(8, 2, 7, 1), groups=8)",
            "conv2d(ones(2, 7, 16, 7), ones(8, 1, 7, 1), groups=8)",
            "conv2d(x, w, ones(5))",
            "conv2d(x, w, ones(4, 1))",
        ),
    ),
    "A11": Row(
        "a buffer smaller than its declared size. CVE-2021-29540",
        about="must have the shape|channels",
        refused=(
            "assign(Conv2d(4, 4, 3), weight=ones(4, 4, 5, 5))",
            "assign(Conv2d(4, 4, 3).eval(), weight=ones(4, 4, 1, 1))",
            "assign(Conv2d(4, 4, 3).eval(), bias=ones(3))",
            "assign(Conv2d(4, 4, 3).eval(), groups=2)(x)",
        ),
    ),
    "A12": Row(
        "the kernel is larger than the input, but -1 / 2 + 1 is 1",
        about="Kernel size can't be greater",
        refused=(
            "conv2d(ones(1, 1, 2, 2), ones(1, 1, 3, 3), stride=2)",
            "conv2d(ones(1, 1, 9, 2), ones(1, 1, 3, 3), stride=2)",
            "conv2d(ones(1, 1, 4, 4), ones(1, 1, 3, 3), stride=2, dilation=2)",
            "conv1d(ones(1, 1, 2), ones(1, 1, 3), stride=1000)",
        ),
        true=("conv2d(ones(1, 1, 3, 3), ones(1, 1, 3, 3), stride=2) == 9",),
    ),
    "A13": Row(
        "off by one at the end of a documented range. scipy#822",
        about="groups|Kernel size|[Pp]adding|num_threads",
        refused=(
            "conv2d(x, w, groups=5)",
            "conv2d(x, w, dilation=4)",
            "conv2d(x, w, padding=8, padding_mode='reflect')",
            "conv2d(x, w, padding=9, padding_mode='circular')",
            "conv2d(x, w, num_threads=0)",
        ),
        true=(
            "agrees(x, w[:, :1], groups=4)",
            "agrees(x, w, dilation=3)",
            "agrees(x, w, padding=7, padding_mode='reflect')",
            "agrees(x, w, padding=8, padding_mode='circular')",
            "agrees(x, w, padding=0, padding_mode='reflect')",
            "(conv2d(x, w, num_threads=1) == conv2d(x, w, num_threads=2**70)).all()",
        ),
    ),
    # --- nothing ----------------------------------------------------------------------------------
    "Z1": Row(
        "an empty operand: division by zero. CVE-2021-29522, -29524 to -29527, -29538, -41209",
        true=tuple(f"nothing_or_error{extents}" for extents in product((0, 2), repeat=7)),
    ),
    "Z2": Row(
        "an empty batch",
        true=(
            "conv2d(x[:0], w).shape == (0, 4, 6, 6)",
            "conv2d(x[:0], w, stride=2, padding=((1, 0), (2, 0))).shape == (0, 4, 4, 4)",
            "conv1d(x1[:0], w1).shape == (0, 4, 6)",
            "Conv2d(4, 6, 3).eval()(x[:0]).shape == (0, 6, 6, 6)",
            "conv2d(x[:0], w, out=np.empty((0, 4, 6, 6), 'f')).shape == (0, 4, 6, 6)",
        ),
    ),
    "Z3": Row(
        "no channels: torch returns none, whatever the weight says",
        about="Only zero batch|must be a positive",
        refused=("conv2d(x[:, :0], w[:, :0])", "Conv2d(0, 33, 3)", "Conv2d(4, 0, 3)"),
    ),
    "Z4": Row(
        "an empty map. numpy#7625",
        about="Only zero batch|[Pp]adding|padded input",
        refused=(
            "conv2d(x[:, :, :0], w)",
            "conv2d(x[..., :0], w, padding=3)",
            "conv2d(x[:0, ..., :0], w, padding=3)",
            "conv1d(x1[..., :0], w1, padding=3)",
            *(
                f"conv2d(x[..., :0], w, padding=3, padding_mode='{mode}')"
                for mode in ("reflect", "replicate", "circular")
            ),
        ),
    ),
    "Z5": Row(
        "an empty kernel. pytorch#142209",
        about="kernel size should be|at least 1 at|-dimensional",
        refused=(
            "conv2d(x, w[:0])",
            "conv2d(x, w[:, :, :0])",
            "conv2d(x, w[..., :0])",
            "conv2d(x, w[..., :0], padding='same')",
            "conv2d(x, ones(10, 2, 8, 1, 0, 7, 8))",
            "Conv2d(4, 4, 0)",
            "Conv2d(4, 4, (3, 0))",
        ),
    ),
    # --- sizes ------------------------------------------------------------------------------------
    "S1": Row(
        "64 channels, 5x5 taps, 1167x1167: the columns of im2col exceed 2**31. pytorch#9404",
        true=("sums(64, 1, (1167, 1167), (5, 5), dilation=2)",),
    ),
    "S2": Row(
        "32 channels, 21x11 taps, 81x980, batch 10: likewise. oneDNN#122",
        true=("sums(32, 10, (81, 980), (21, 11), stride=(2, 1), padding=(10, 5))",),
    ),
    "S3": Row(
        "an operand of more than 2**31 bytes. scipy#10761",
        true=("far_apart(2**31 + 8, 'uint8')", "far_apart(2**30, 'float32')"),
    ),
    "S4": Row(
        "an operand of more than 2**32 elements. pytorch#185663",
        true=("far_apart(2**32 + 8, 'uint8')", "far_apart(2**32 + 8, 'float32')"),
    ),
    "S6": Row(
        "scratch is too small when the stride exceeds the kernel. oneDNN#5494",
        true=tuple(
            f"agrees(x, w[..., :{k}, :{k}], stride={stride}, padding={padding})"
            for k in (1, 2, 3)
            for stride in (k + 1, 2 * k, 9, (1, 9))
            for padding in (0, 1)
        ),
    ),
    "S7": Row(
        "a petabyte from a few bytes",
        exhausted=(
            "conv2d(ones(1, 1, 1, 1), ones(1, 1, 1, 1), padding=2**20)",
            "conv2d(ones(1, 1, 1, 1), ones(1, 1, 1, 1), padding=2**29)",
            "conv2d(x, wide(1), padding=(0, 2**45))",
            "Conv2d(2**20, 2**20, 3)",
        ),
    ),
}  # fmt: skip

# Every number at the ends of every range: each by itself, and each two of the settings together.
BOUNDARIES = (-(2**63), -1, 0, 1, 2, 2**31 - 1, 2**31, 2**32, 2**63 - 1, 2**63, 2**64)
SETTINGS = ("stride", "padding", "dilation", "groups")
ALONE = (
    *(f"conv2d(x, w, {name}={{}})" for name in (*SETTINGS, "num_threads")),
    *(f"conv1d(x1, w1, {name}={{}})" for name in (*SETTINGS, "num_threads")),
    *(f"conv2d(x, w, {name}=(1, {{}}))" for name in SETTINGS[:3]),
    "conv2d(x, w, padding=((0, 0), (1, {})))",
    *(f"Conv2d(4, 4, 3, {name}={{}})(x)" for name in SETTINGS),
    "Conv2d({}, 4, 3)(x)",
    "Conv2d(4, {}, 3)(x)",
    "Conv2d(4, 4, {})(x)",
    "Conv1d(4, 1, {}, padding='same')(x1)",
)
TOGETHER = tuple(
    f"{call}, {one}={{}}, {other}={{}})"
    for call in ("conv2d(x, w", "conv1d(x1, w1")
    for one, other in combinations(SETTINGS, 2)
)


def boundary_entries() -> list[str]:
    """Name them: every value alone, and of the pairs every seventh."""
    alone = [call.format(value) for call in ALONE for value in BOUNDARIES]
    pairs = list(product(BOUNDARIES, repeat=2))
    return alone + [call.format(*pair) for call in TOGETHER for pair in pairs[::7]]


# --- the namespace --------------------------------------------------------------------------------


def ones(*shape: int) -> np.ndarray:
    return np.ones(shape, np.float32)


def wide(width: int) -> np.ndarray:
    """Make a weight of that width, whose taps are all the same one."""
    return np.broadcast_to(np.float32(1), (4, 4, 1, width))


def numbers(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).integers(-8, 9, shape).astype(np.float32)


def assign(layer: Any, **attributes: Any) -> Any:
    for name, value in attributes.items():
        setattr(layer, name, value)
    return layer


def agrees(a: np.ndarray, b: np.ndarray, **settings: Any) -> bool:
    """Whether the result is that of the reference, on small integers."""
    arguments = {"stride": 1, "padding": 0, "dilation": 1, "groups": 1, "padding_mode": "zeros"}
    problem = conv_problem(2, a.shape, b.shape, None, a.dtype, b.dtype, None, *(arguments | settings).values())
    return np.array_equal(conv2d(a, b, **settings), _reference.conv(problem, a, b))


def nothing_or_error(n: int, c: int, h: int, w: int, k: int, r: int, s: int) -> bool:
    """Whether an empty batch gives an empty result, and anything else that is empty an error."""
    call = ones(n, c, h, w), ones(k, c, r, s), ones(k)
    if c and h and w and k and r and s:
        return conv2d(*call).shape == (n, k, h - r + 1, w - s + 1)
    try:
        conv2d(*call, padding=2)
    except ConvError:
        return True
    return False


def sums(channels: int, batch: int, extents: tuple[int, int], kernel: tuple[int, int], **settings: Any) -> bool:
    """Whether equal channels give as much as one of them under the sum of the weights.

    The channels and images share one map by strides of 0, so the operands are large for the kernel
    and small for the memory.
    """
    plane, weight = numbers(1, 1, *extents), numbers(1, channels, *kernel)
    large = conv2d(np.broadcast_to(plane, (batch, channels, *extents)), weight, **settings)
    small = conv2d(plane, weight.sum(axis=1, keepdims=True), **settings)
    return bool((large == small).all())


def far_apart(extent: int, dtype: str) -> bool:
    """Whether three windows are found, at the beginning, in the middle and at the end of a signal.

    The signal is memory that was asked for but, but for these windows, never written: it costs
    addresses only.
    """
    flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | getattr(mmap, "MAP_NORESERVE", 0x4000)
    memory = mmap.mmap(-1, extent * np.dtype(dtype).itemsize, flags=flags)
    signal = np.frombuffer(memory, dtype)
    stride = (extent - 3) // 2
    windows = np.arange(9).reshape(3, 3)
    for at, window in enumerate(windows):
        signal[at * stride :][:3] = window
    weight = numbers(2, 1, 3)
    found = conv1d(signal[np.newaxis], weight, stride=stride)
    return np.array_equal(found, weight[:, 0] @ windows.T)


# --- the process ----------------------------------------------------------------------------------


def limit_addresses(nbytes: int) -> None:
    """Leave this process that many, so that what asks for more is refused on any machine."""
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    limit = pages * resource.getpagesize() + nbytes
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))


def attempt(entry: str) -> dict[str, Any]:
    """Evaluate one expression; say what came of it, and what it cost."""
    memory, start = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.perf_counter()
    try:
        outcome, message = "result", repr(bool(np.all(eval(entry, NAMESPACE))))
    except Exception as error:
        outcome, message = type(error).__name__, str(error)
    return {
        "entry": entry,
        "outcome": outcome,
        "message": message,
        "seconds": time.perf_counter() - start,
        "kilobytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - memory,
    }


def main(group: str) -> None:
    ordinary = conv2d(x, w, padding=1).tobytes()
    limit_addresses(2**36 if group == "S" else 2**30)
    entries = [
        (name, kind, entry)
        for name, row in ROWS.items()
        for kind in ("refused", "exhausted", "true")
        for entry in getattr(row, kind)
        if name.startswith(group)
    ]
    if group == "boundaries":
        entries = [(group, "any", entry) for entry in boundary_entries()]
    for name, kind, entry in entries:
        result = attempt(entry)
        result["unharmed"] = conv2d(x, w, padding=1).tobytes() == ordinary
        print(json.dumps({"row": name, "kind": kind, **result}), flush=True)


x, w = numbers(1, 4, 8, 8), numbers(4, 4, 3, 3)
x1, w1 = x[:, :, 0], w[:, :, 0]
NAMESPACE = {**vars(pyconv), **globals()}

if __name__ == "__main__":
    main(sys.argv[1])
