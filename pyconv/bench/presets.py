"""The lists of layers that come with pyconv: descriptor files, each with its source at the head."""

from __future__ import annotations

from pathlib import Path

import pyconv.bench
from pyconv.bench.descriptor import read
from pyconv.bench.layer import Layer

ALL = "all"

# In the order in which people look for them: networks first.
NAMES = (
    "resnet50", "vgg16", "mobilenet_v2", "unet", "googlenet",
    "filters", "conv1d", "tiny", "first", "groups", "depthwise",
)  # fmt: skip


def layers(name: str) -> list[Layer]:
    """Return the layers of a preset, for one image.

    Examples
    --------
    >>> sum(layer.multiplicity for layer in layers("resnet50"))
    53
    """
    if name == ALL:
        return [layer for each in NAMES for layer in layers(each)]
    found, _ = read(_directory() / f"{name}.txt", default_mb=1)
    return found


def _directory() -> Path:
    for parent in pyconv.bench.__path__:
        if (directory := Path(parent) / "layers").is_dir():
            return directory
    raise FileNotFoundError("the lists of layers are not installed")
