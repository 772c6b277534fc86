"""One convolution of a network: its shape as numbers, as text, and as the arguments of `conv2d`.

The letters are those of `pyconv._problem`, with torch's dilation (1 = dense). Padding at the bottom and on the right
follows from the size of the output, as in oneDNN's descriptors, so it is a property: equal to that at the top and on
the left wherever this gives the same output, as torch would write it; else as little as reaches the last output. It may
be negative: then that many rows or columns of the input are never looked at, and are cut off (`used_shape`).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any


def padding_after(i: int, o: int, k: int, s: int, d: int, before: int) -> int:
    """Return the padding at the far end of an axis: from i pixels, k taps, d apart, make o outputs, s apart."""
    span = d * (k - 1) + 1
    needed = (o - 1) * s + span - i - before
    for candidate in (before, max(needed, 0)):
        room = i + before + candidate - span
        if room >= 0 and room // s + 1 == o:
            return candidate
    return needed


_HARMLESS = str.maketrans({'"': "'", ":": "_", "*": "_"})  # in the name of a descriptor


@dataclass(frozen=True, slots=True)
class Layer:
    """A convolution without bias and padding modes; ``multiplicity`` is how often it occurs in its network."""

    mb: int
    g: int
    ic: int
    ih: int
    iw: int
    oc: int
    oh: int
    ow: int
    kh: int
    kw: int
    sh: int
    sw: int
    dh: int
    dw: int
    pt: int
    pl: int
    name: str = ""
    network: str = ""
    multiplicity: int = 1

    @property
    def pb(self) -> int:
        """Padding at the bottom; negative where rows of the input are left over."""
        return padding_after(self.ih, self.oh, self.kh, self.sh, self.dh, self.pt)

    @property
    def pr(self) -> int:
        """Padding on the right; negative where columns of the input are left over."""
        return padding_after(self.iw, self.ow, self.kw, self.sw, self.dw, self.pl)

    @property
    def padding(self) -> tuple[tuple[int, int], tuple[int, int]]:
        """((top, bottom), (left, right)), none of them negative."""
        return (self.pt, max(self.pb, 0)), (self.pl, max(self.pr, 0))

    @property
    def symmetric(self) -> bool:
        """Whether opposite sides are padded alike."""
        return all(before == after for before, after in self.padding)

    @property
    def is_1d(self) -> bool:
        """Whether it is a convolution of signals: every height is 1."""
        return (self.ih, self.oh, self.kh, self.pt) == (1, 1, 1, 0)

    @property
    def is_depthwise(self) -> bool:
        """Whether each channel is filtered by itself, into one channel."""
        return self.g == self.ic == self.oc

    @property
    def is_same(self) -> bool:
        """Whether it is a filter in the sense of image processing: dense taps, every pixel replaced by a new one."""
        unit = (self.sh, self.sw, self.dh, self.dw) == (1, 1, 1, 1)
        return self.is_depthwise and unit and (self.ih, self.iw) == (self.oh, self.ow)

    @property
    def input_shape(self) -> tuple[int, int, int, int]:
        """Shape of the part of the input that counts."""
        return self.mb, self.ic, self.ih + min(self.pb, 0), self.iw + min(self.pr, 0)

    @property
    def weight_shape(self) -> tuple[int, int, int, int]:
        """Shape of the weights."""
        return self.oc, self.ic // self.g, self.kh, self.kw

    @property
    def output_shape(self) -> tuple[int, int, int, int]:
        """Shape of the output."""
        return self.mb, self.oc, self.oh, self.ow

    @property
    def terms(self) -> int:
        """Products in the sum that an output is."""
        return self.ic // self.g * self.kh * self.kw

    @property
    def flops(self) -> int:
        """Useful operations: two for each multiply-add, padding included."""
        return 2 * math.prod(self.output_shape) * self.terms

    def bytes(self, itemsize: int) -> int:
        """Bytes of input, weights and output."""
        return itemsize * sum(map(math.prod, (self.input_shape, self.weight_shape, self.output_shape)))

    def settings(self) -> dict[str, Any]:
        """Keyword arguments of `conv1d` or `conv2d`, whichever `is_1d` says, as a program would write them."""
        first = 1 if self.is_1d else 0
        return {
            "stride": (self.sh, self.sw)[first:],
            "padding": ((self.pt, self.pl) if self.symmetric else self.padding)[first:],
            "dilation": (self.dh, self.dw)[first:],
            "groups": self.g,
        }

    @property
    def descriptor(self) -> str:
        """The shape in oneDNN's notation, without the name; `pyconv.bench.descriptor` reads it back.

        A value for the width is left out where it is that of the height, and so is what is the default there.
        """
        groups = f"g{self.g}" if self.g > 1 else ""
        axes = [
            ("w", (self.iw, self.ow, self.kw), (self.sw, self.dw - 1, self.pl)),
            ("h", (self.ih, self.oh, self.kh), (self.sh, self.dh - 1, self.pt)),
        ]
        (_, wide, wide_settings), (_, high, high_settings) = axes
        if self.is_1d and (self.sh, self.dh) == (1, 1):
            text = _axis("w", wide, wide_settings)
        else:
            text = _axis("h", high, high_settings)
            if (wide, wide_settings) != (high, high_settings):
                text += _axis("w", wide, wide_settings, explicit=True)
        return f"{groups}mb{self.mb}ic{self.ic}oc{self.oc}_{text}"

    @property
    def line(self) -> str:
        """The shape, and the name as oneDNN's files have it: network, layer and, of several alike, how many.

        In the names that ONNX models give, what means something there becomes something else.
        """
        times = f"*{self.multiplicity}" if self.multiplicity > 1 else ""
        network, name = (words.translate(_HARMLESS) for words in (self.network, self.name))
        name = f"{network}:{name}{times}" if network else f"{name}{times}"
        return f'{self.descriptor}n"{name}"' if name else self.descriptor

    @property
    def shape_text(self) -> str:
        """The shape for people: ``3x3 s2 64->128 @28``, with the output's size last."""
        parts = [f"{self.kw}" if self.is_1d else f"{self.kh}x{self.kw}"]
        strides, dilations = ((self.sh, self.sw), (self.dh, self.dw))
        for letter, pair in (("s", strides), ("d", dilations)):
            if pair != (1, 1):
                same = self.is_1d or pair[0] == pair[1]
                parts.append(f"{letter}{pair[1]}" if same else f"{letter}{pair[0]}x{pair[1]}")
        if self.g > 1:
            parts.append("dw" if self.g == self.ic else f"g{self.g}")
        parts.append(f"{self.ic}->{self.oc}")
        parts.append(f"@{self.ow}" if self.is_1d or self.oh == self.ow else f"@{self.oh}x{self.ow}")
        if self.mb > 1:
            parts.append(f"n{self.mb}")
        return " ".join(parts)


def _axis(letter: str, sizes: tuple[int, int, int], settings: tuple[int, int, int], explicit: bool = False) -> str:
    """Write one axis; ``explicit`` writes its settings even where they are the defaults."""
    text = "".join(f"{key}{letter}{size}" for key, size in zip("iok", sizes, strict=True))
    default = (1, 0, None)  # without a padding, oneDNN would compute one
    for key, value, usual in zip("sdp", settings, default, strict=True):
        if explicit or value != usual:
            text += f"{key}{letter}{value}"
    return text
