"""Beside other libraries with threads of their own, in one process: whoever is imported first, all give their results.

Each brings its OpenMP, or another pool; two of them in a process have been known to hang, or to change how many threads
the other uses.
"""

from __future__ import annotations

from importlib.util import find_spec

import pytest

import _mkl
from _processes import python

# Module -> an expression that has its threads work, and one that tells how many it uses.
NEIGHBOURS = {
    "torch": ("torch.ones(300, 300).matmul(torch.ones(300, 300)).sum().item()", "torch.get_num_threads()"),
    "cv2": ("cv2.GaussianBlur(np.ones((500, 500), np.float32), (9, 9), 0).sum()", "cv2.getNumThreads()"),
    "sklearn.cluster": ("sklearn.cluster.KMeans(2, n_init=1, random_state=0).fit(points).labels_.sum()", "0"),
    "_mkl": ("_mkl.product()", "_mkl.threads()"),
    "scipy.linalg": ("scipy.linalg.solve(np.eye(300), np.ones(300)).sum()", "0"),
}
_ORDER = """
{imports}
x, weight = np.ones((2, 16, 60, 60), np.float32), np.ones((16, 16, 3, 3), np.float32)
points = np.repeat([[0.0, 0.0], [9.0, 9.0]], 2000, axis=0)

def ours():
    return pyconv.conv2d(x, weight, num_threads=2).sum(dtype=float)

def theirs():
    return [{uses}], [{counts}]

expected, before = ours(), theirs()
for _ in range(5):
    assert ours() == expected == 2 * 16 * 58 * 58 * 144
    assert theirs() == before
print("done")
"""


def installed(name: str) -> bool:
    """Whether a neighbour is here."""
    return bool(_mkl.library() if name == "_mkl" else find_spec(name.partition(".")[0]))


def orders() -> list[tuple[str, ...]]:
    """Each neighbour before and after, and all of them around."""
    pairs = [order for name in NEIGHBOURS for order in ((name, "pyconv"), ("pyconv", name))]
    everybody = ("pyconv", *NEIGHBOURS)
    return pairs + [everybody[i:] + everybody[:i] for i in range(len(everybody))]


@pytest.mark.parametrize("order", orders(), ids=" ".join)
def test_results_in_every_order(order: tuple[str, ...]) -> None:
    here = [name for name in order if name == "pyconv" or installed(name)]
    if len(here) == 1:
        pytest.skip("no neighbour is installed")
    others = [name for name in here if name != "pyconv"]
    script = _ORDER.format(
        imports="\n".join(f"import {name}" for name in (*here, "numpy as np")),
        uses=", ".join(NEIGHBOURS[name][0] for name in others),
        counts=", ".join(NEIGHBOURS[name][1] for name in others),
    )
    ran = python("-c", script)
    assert ran.stdout == "done\n", ran.stderr or f"ended with {ran.returncode}"
