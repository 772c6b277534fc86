"""From the words of the command line to what is measured: layers, peers, jobs."""

from __future__ import annotations

import importlib.util
import os
import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pyconv
from pyconv._dispatch import LEVELS
from pyconv._words import counted
from pyconv.bench import adapters, onnx_model, presets
from pyconv.bench.contender import is_build
from pyconv.bench.descriptor import looks_like_descriptor, parse, read
from pyconv.bench.errors import BenchError, unknown
from pyconv.bench.layer import Layer
from pyconv.bench.operands import DTYPES
from pyconv.bench.processors import check_unbound, cpus
from pyconv.bench.record import Settings
from pyconv.bench.session import Job, Peer

# MiB; no processor's caches hold more.
_MOST_EVICTED = 4096


def layers_of(words: Sequence[str], pattern: str | None) -> tuple[list[Layer], list[str]]:
    """Find the layers that are asked for, and what should be said of those left out."""
    layers: list[Layer] = []
    notes: list[str] = []
    for word in words:
        found, remarks = _layers_of(word)
        layers += found
        notes += remarks
    if pattern is not None:
        try:
            wanted = re.compile(pattern)
        except re.error as error:
            raise BenchError(f"--filter {pattern!r}: {error}") from None
        kept = [layer for layer in layers if wanted.search(layer.name)]
        if not kept:
            raise BenchError(f"--filter {pattern!r} leaves none of {len(layers)} layers")
        layers = kept
    return list(dict.fromkeys(layers)), notes


def _layers_of(word: str) -> tuple[list[Layer], list[str]]:
    if word in (*presets.NAMES, presets.ALL):
        return presets.layers(word), []
    if word.endswith(".onnx"):
        return onnx_model.read(word)
    if looks_like_descriptor(word):
        return [parse(word)], []
    if (word and Path(word).exists()) or "/" in word or "." in word:
        return read(word)
    besides = "; descriptors (mb1ic64ih56oc64kh3ph1), files of them, ONNX models"
    raise unknown("layers", word, [*presets.NAMES, presets.ALL], besides)


def threads_of(text: str) -> list[int]:
    """Read ``--threads``: numbers, and ``all`` for the processors that this process may use."""
    check_unbound()
    most = len(cpus())
    words = _words("--threads", text)
    counts = [most if word == "all" else _positive("--threads", word, ", or 'all',") for word in words]
    for count in counts:
        if count > most:
            raise BenchError(f"--threads {count}: this process may use {counted(most, 'processor')}")
    return list(dict.fromkeys(counts))


def batches_of(text: str | None) -> list[int] | None:
    """Read ``--batch``; None leaves every layer its own."""
    if text is None:
        return None
    return [_positive("--batch", word) for word in _words("--batch", text)]


def evicted_of(text: str) -> list[int]:
    """Read ``--evict``: MiB, 0 among them."""
    words = _words("--evict", text)
    for word in words:
        if not word.isdecimal() or int(word) > _MOST_EVICTED:
            raise BenchError(f"--evict {word!r}: MiB from 0 to {_MOST_EVICTED} are expected, separated by commas")
    return list(dict.fromkeys(map(int, words)))


def choices_of(option: str, text: str, allowed: Sequence[str]) -> list[str]:
    """Read a list of words, each one of a few."""
    words = _words(option, text)
    for word in words:
        if word not in allowed:
            raise unknown(option, word, allowed)
    return words


def isas_of(text: str | None) -> list[str]:
    """Read ``--isa``; by default the one in use."""
    if text is None:
        return [pyconv.isa()]
    for word in _words("--isa", text):
        if word in LEVELS and word not in pyconv.available_isas():
            raise BenchError(f"--isa {word}: not on this processor, which has {', '.join(pyconv.available_isas())}")
    return choices_of("--isa", text, pyconv.available_isas())


def peers_of(text: str | None) -> list[Peer]:
    """Read ``--against``: names, of which every one must be installed, ``installed``, or directories of builds.

    Asked for by name, a peer runs on NCHW arrays even if it has another layout of its own.
    """
    if text is None:
        return []
    words = _words("--against", text)
    named = [word for word in words if word != "installed"]
    for name in named:
        if is_build(name):
            if not Path(name).is_dir():
                raise BenchError(f"--against {name}: no such directory")
            if not Path(name, "pyconv", "bench", "worker.py").is_file():
                raise BenchError(f"--against {name}: holds no package pyconv")
        elif name not in adapters.NAMES and Path(name, "pyconv").is_dir():
            raise BenchError(f"--against {name}: a directory is written with a slash, {name}/")
        elif name not in adapters.NAMES:
            raise unknown("peer", name, [*adapters.NAMES, "installed"], "; directories, with a slash")
        elif missing := adapters.missing(name):
            raise BenchError(f"--against {name}: not installed; try: pip install {' '.join(missing)}")
    if "installed" in words:
        named += [name for name in adapters.NAMES if name not in named and not adapters.missing(name)]
    peers = []
    for name in dict.fromkeys(named):
        if is_build(name):
            peers.append(Peer(name, ("nchw", "nhwc"), approximate=False))
            continue
        adapter = adapters.adapter(name)
        layouts = {*adapter.LAYOUTS, *(["nchw"] if name in words else [])}
        peers.append(Peer(name, tuple(sorted(layouts)), approximate=bool(adapter.APPROXIMATE)))
    return peers


def jobs_of(
    layers: Sequence[Layer],
    *,
    batches: list[int] | None,
    threads: Sequence[int],
    dtypes: Sequence[str],
    layouts: Sequence[str],
    weights: Sequence[str],
    isas: Sequence[str],
    evicted: Sequence[int],
) -> list[Job]:
    """Combine every layer with all settings, those of a setting together."""
    for dtype in dtypes:
        if DTYPES[dtype].is_integer and "packed" in weights:
            raise BenchError(f"--dtype {dtype}: no layer keeps integers packed; add --weights unpacked")
        if DTYPES[dtype].name == "bfloat16" and importlib.util.find_spec("ml_dtypes") is None:
            raise BenchError(f"--dtype {dtype}: not without ml_dtypes; try: pip install ml_dtypes")
    jobs = [
        Job(replace(layer, mb=mb), Settings(mb, n, dtype, layout, packing, isa, mib))
        for isa in isas
        for n in threads
        for dtype in dtypes
        for layout in layouts
        for packing in weights
        for mib in evicted
        for number in range(len(batches or [0]))
        for layer in layers
        for mb in [batches[number] if batches else layer.mb]
    ]
    for job in jobs:
        _check_size(job)
    return jobs


def _check_size(job: Job) -> None:
    """Refuse a layer whose arrays, twice, would not fit this machine's memory: the system might end the process."""
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    needed = job.bytes
    if 2 * needed > memory:
        raise BenchError(
            f"{job.layer.descriptor}: arrays of {needed / 1e9:.3g} GB are too large for the {memory / 1e9:.3g} GB here"
        )


def _words(option: str, text: str) -> list[str]:
    words = [word.strip() for word in text.split(",")]
    if not all(words):
        raise BenchError(f"{option} {text!r}: {'an item between commas' if any(words) else 'the list'} is empty")
    return words


def _positive(option: str, word: str, allowed: str = "") -> int:
    if not word.isdecimal() or int(word) < 1:
        raise BenchError(f"{option} {word!r}: numbers of at least 1{allowed} are expected, separated by commas")
    return int(word)
