"""Read layers in the notation of oneDNN's benchdnn, one or a file of them.

    g32mb1ic32ih112oc32oh56kh3sh2ph1n"mobilenet:conv2_2/dw*4"

A descriptor is a row of keys and numbers, in any order; ``_`` is ignored.

=============  ========================================================================================
``g mb``       groups (default 1), images (default 2: benchdnn's)
``ic oc``      input and output channels, of all groups together
``ih iw``      size of the input; ``oh ow`` of the output; ``kh kw`` of the kernel
``sh sw``      strides (default 1)
``dh dw``      dilations, zero-based: 0, the default, is dense
``ph pw``      padding at the top and on the left; that at the other end follows from the output's size
``n"..."``     a name, last; ``network:`` before it and ``*N``, how often the layer occurs, after it
=============  ========================================================================================

Without a value for the width, that of the height holds; without any for the height, the convolution is one of signals.
Without an output's size it follows from padding alike at both ends; without a padding, half of what is needed comes
first. A key for the depth (``id od kd``) other than 1 makes a volume, which pyconv does not convolve: a file's volumes
are counted and left out.

In a file, tokens are separated by white space, ``#`` begins a comment, and a token that starts with ``--`` is an option
of benchdnn, of no meaning here.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from pyconv.bench.errors import BenchError
from pyconv.bench.layer import Layer, padding_after

DEFAULT_MB = 2

# Possessive: a name in quotes is never taken apart in search of a comment.
_COMMENTED = re.compile(r'((?:[^#"]|"[^"]*"?)*+)(?:#.*)?')
_TOKEN = re.compile(r'(?:[^\s"]|"[^"]*"?)+')
_PART = re.compile(r'_+|(?P<key>[a-z]+)(?P<value>\d+)|n(?P<quote>"?)(?P<name>[^"]+)(?P=quote)$')
_LOOKS = re.compile(r"_*(?:g|mb|i[cdhw]|o[cdhw]|k[dhw])\d")
_MULTIPLE = re.compile(r"\*(\d+)$")
_OF_AXES = "iokspd"
_KEYS = {"g", "mb", "ic", "oc"} | {key + axis for key in _OF_AXES for axis in "dhw"}
_MOST_DIGITS = 9


class VolumeError(BenchError):
    """A convolution in three dimensions."""


class _MistakeError(Exception):
    """What is wrong, and at which offset of the descriptor."""

    def __init__(self, message: str, offset: int = 0) -> None:
        super().__init__(message)
        self.offset = offset


def looks_like_descriptor(text: str) -> bool:
    """Tell a descriptor from the name of a preset or a file."""
    return _LOOKS.match(text) is not None


def parse(text: str, network: str = "", default_mb: int = DEFAULT_MB) -> Layer:
    """Read one descriptor.

    Examples
    --------
    >>> layer = parse('mb1ic64ih56oc64oh28kh3sh2ph1n"resnet50:conv3*2"')
    >>> layer.network, layer.name, layer.multiplicity, layer.output_shape, layer.padding
    ('resnet50', 'conv3', 2, (1, 64, 28, 28), ((1, 1), (1, 1)))
    >>> print(layer.descriptor)
    mb1ic64oc64_ih56oh28kh3sh2ph1
    """
    try:
        return _parse(text, network, default_mb)
    except _MistakeError as wrong:
        raise BenchError(f"descriptor {text!r}, column {wrong.offset + 1}: {wrong}") from None


def read(path: str | Path, default_mb: int = DEFAULT_MB) -> tuple[list[Layer], list[str]]:
    """Read a file of descriptors; return its layers and what should be said of the others."""
    path = Path(path)
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except OSError as error:
        raise BenchError(f"{path}: {(error.strerror or str(error)).lower()}") from None
    except UnicodeDecodeError:
        raise BenchError(f"{path}: not a text file") from None
    network = path.stem.removeprefix("shapes_")
    layers, volumes = [], 0
    for number, line in enumerate(lines, start=1):
        for column, token in _tokens(line):
            try:
                layers.append(_parse(token, network, default_mb))
            except VolumeError:
                volumes += 1
            except _MistakeError as wrong:
                raise BenchError(f"{path}:{number}:{column + wrong.offset}: {wrong}") from None
    if not layers and not volumes:
        raise BenchError(f"{path}: no layer in it")
    return layers, [f"{path}: {volumes} convolutions in three dimensions left out"] if volumes else []


def _tokens(line: str) -> Iterator[tuple[int, str]]:
    """Yield the descriptors of a line with their columns, counted from 1."""
    for match in _TOKEN.finditer(_COMMENTED.sub(r"\1", line)):
        if not match[0].startswith("--"):
            yield match.start() + 1, match[0]


def _parse(text: str, network: str, default_mb: int) -> Layer:
    values, places, full_name = _parts(text)
    _check_channels(values, places, len(text))
    _check_volume(values)
    plane = any(key + "h" in values for key in _OF_AXES)
    ih, oh, kh, sh, dh, pt = _axis("h", values, places, len(text)) if plane else (1, 1, 1, 1, 1, 0)
    iw, ow, kw, sw, dw, pl = _axis("w", values, places, len(text))
    found, name, multiplicity = _name(full_name)
    return Layer(
        mb=values.get("mb", default_mb), g=values.get("g", 1), ic=values["ic"], ih=ih, iw=iw, oc=values["oc"],
        oh=oh, ow=ow, kh=kh, kw=kw, sh=sh, sw=sw, dh=dh, dw=dw, pt=pt, pl=pl,
        name=name, network=found or network, multiplicity=multiplicity,
    )  # fmt: skip


def _parts(text: str) -> tuple[dict[str, int], dict[str, int], str]:
    """Split into values, the offsets of their keys, and the name."""
    values: dict[str, int] = {}
    places: dict[str, int] = {}
    name, position = "", 0
    while position < len(text):
        part = _PART.match(text, position)
        if part is None:
            raise _MistakeError(f"cannot read {text[position : position + 20]!r}", position)
        if part["name"]:
            name = part["name"]
        elif key := part["key"]:
            if key not in _KEYS:
                raise _MistakeError(f"unknown key {key!r}", position)
            if key in values:
                raise _MistakeError(f"{key} a second time", position)
            if len(part["value"]) > _MOST_DIGITS:
                raise _MistakeError(f"{key}{part['value'][:20]} is too large", position)
            values[key], places[key] = int(part["value"]), position
        position = part.end()
    return values, places, name


def _check_channels(values: dict[str, int], places: dict[str, int], end: int) -> None:
    for key in ("ic", "oc"):
        if key not in values:
            raise _MistakeError(f"{key} is missing", end)
    for key in ("g", "mb", "ic", "oc"):
        if values.get(key, 1) < 1:
            raise _MistakeError(f"{key} must be at least 1", places[key])
        if key in ("ic", "oc") and values[key] % values.get("g", 1):
            raise _MistakeError(f"{key}{values[key]} is not divisible by g{values['g']}", places[key])


def _check_volume(values: dict[str, int]) -> None:
    """Allow a depth in name only: everything along it is 1, and there are other axes."""
    deep = {key: values[key + "d"] for key in _OF_AXES if key + "d" in values}
    flat = all(deep.get(key, 1) == 1 for key in "iok") and not deep.get("p", 0)
    if deep and not (flat and ("ih" in values or "iw" in values)):
        raise VolumeError("a convolution in three dimensions, which pyconv does not compute")


def _axis(axis: str, values: dict[str, int], places: dict[str, int], end: int) -> tuple[int, int, int, int, int, int]:
    """Return (input, output, kernel, stride, dilation, padding before) along an axis."""

    def value(key: str) -> int | None:
        own = values.get(key + axis)
        return values.get(key + "h") if own is None else own

    def place(*keys: str) -> int:
        return next((places[key + letter] for key in keys for letter in (axis, "h") if key + letter in places), end)

    i, o, k, s, d, p = map(value, "ioksdp")
    for key, extent in (("i", i), ("k", k)):
        if extent is None:
            raise _MistakeError(f"{key}{axis} is missing", end)
    for key, extent in (("i", i), ("o", o), ("k", k), ("s", s)):
        if extent == 0:
            raise _MistakeError(f"{key}{axis} must be at least 1", place(key))
    assert i is not None
    assert k is not None
    s, d = s or 1, 1 + (d or 0)
    span = d * (k - 1) + 1
    if o is None:
        p = p or 0
        if i + 2 * p < span:
            raise _MistakeError(f"{span} pixels of kernel do not fit {i} of input with a padding of {p}", place("k"))
        o = (i + 2 * p - span) // s + 1
    if p is None:
        p = max(0, ((o - 1) * s + span - i) // 2)
    after = padding_after(i, o, k, s, d, p)
    if p >= i + p + after or i + after < 1:
        raise _MistakeError(f"o{axis}{o} does not reach the input", place("o"))
    return i, o, k, s, d, p


def _name(text: str) -> tuple[str, str, int]:
    """Split a name into network, layer and multiplicity."""
    multiple = _MULTIPLE.search(text)
    network, _, name = _MULTIPLE.sub("", text).rpartition(":")
    return network, name, int(multiple[1]) if multiple else 1
