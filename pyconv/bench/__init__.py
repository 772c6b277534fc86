"""The benchmark tool, ``python -m pyconv bench``: pyconv beside the machine and beside its peers.

    cli         options, outputs, errors
    session     rounds, contenders in turn; special modes each have a file of their own
    contender   the parent's side of a worker
    worker      a process that runs one contender

On the way down they pass a `layer.Layer`, one convolution; what comes back up is a `record.Run`. Nothing outside this
package imports it, and ``import pyconv`` does not bring it in.

The lists of layers and the adapters of the peers live in ``benchmarks/``, where people look for them. An installed
package has them as ``pyconv.bench.layers`` and ``pyconv.bench.peers``; in a source tree they are found here, too.
"""

from __future__ import annotations

from pathlib import Path

_BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"

if not (Path(__file__).parent / "peers").is_dir() and (_BENCHMARKS / "peers").is_dir():
    __path__.append(str(_BENCHMARKS))
