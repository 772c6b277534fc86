"""Intel's MKL and its OpenMP, loaded as an MKL build of NumPy loads them: that build has no package on the index."""

from __future__ import annotations

import ctypes
from importlib.metadata import PackageNotFoundError, files

import numpy as np


def library() -> str:
    """Return the path of MKL's one library, "" where the package mkl is not installed."""
    try:
        found = [path.locate() for path in files("mkl") or [] if path.name.startswith("libmkl_rt.so")]
    except PackageNotFoundError:
        return ""
    return str(found[0]) if found else ""


if path := library():
    _mkl = ctypes.CDLL(path, ctypes.RTLD_GLOBAL)


def product() -> float:
    """Have its threads multiply two matrices of ones; return the sum."""
    n, ones = 300, np.ones((300, 300))
    result = np.empty((n, n))
    row_major, plain, one, zero = 101, 111, ctypes.c_double(1), ctypes.c_double(0)
    a, c = ones.ctypes.data_as(ctypes.c_void_p), result.ctypes.data_as(ctypes.c_void_p)
    _mkl.cblas_dgemm(row_major, plain, plain, n, n, n, one, a, n, a, n, zero, c, n)
    return float(result.sum())


def threads() -> int:
    """Return how many it uses."""
    return int(_mkl.MKL_Get_Max_Threads())
