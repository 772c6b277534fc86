"""The peers that pyconv can be compared with; each has an adapter in ``benchmarks/peers``."""

from __future__ import annotations

import importlib
import importlib.util
from types import ModuleType

# Name on the command line -> file, in the order of the tables.
_FILES = {
    "torch": "torch_nchw",
    "torch-cl": "torch_channels_last",
    "onnxruntime": "onnxruntime",
    "openvino": "openvino",
    "ncnn": "ncnn",
    "opencv": "opencv",
    "scipy": "scipy",
    "jax": "jax",
}
NAMES = tuple(_FILES)


def adapter(name: str) -> ModuleType:
    """Import the adapter of a peer, which does not import the peer."""
    return importlib.import_module(f"pyconv.bench.peers.{_FILES[name]}")


def packages(name: str) -> list[str]:
    """Return the packages that a peer needs, as the package index calls them."""
    return list(adapter(name).PACKAGES.values())


def missing(name: str) -> list[str]:
    """Return those of its packages that are not installed."""
    needed: dict[str, str] = adapter(name).PACKAGES
    return [package for module, package in needed.items() if importlib.util.find_spec(module) is None]
