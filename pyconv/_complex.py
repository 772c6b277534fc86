"""Complex convolution as a real one, whose channels are real and imaginary parts.

    re(out) = sum of  re(w) * re(x) - im(w) * im(x)          w = | re(w)  -im(w) |
    im(out) = sum of  im(w) * re(x) + re(w) * im(x)              | im(w)   re(w) |

Each channel becomes two neighbours, its real and its imaginary part, and each weight a block of 2 x 2: four real
multiplications, none of them saved by a trick, so that the parts are as exact as real results are and the order of each
sum is as fixed: c ascending, for each c the taps of the real part, then those of the imaginary part. The image of
integers has no imaginary part: there a weight is a block of 2 x 1.

Only weights are rewritten. Images and results are read and written as they are: the compiled code knows that the two
channels of a pair lie side by side (_strip.pxd: channel_at).
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from pyconv._dtypes import is_complex

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from pyconv._problem import ConvProblem


def real_problem(problem: ConvProblem) -> ConvProblem:
    """Return the problem in real numbers; a real one as it is."""
    if not is_complex(problem.dst_dtype):
        return problem
    if not is_complex(problem.src_dtype):
        return replace(problem, oc=2 * problem.oc, dst_dtype=problem.dtype)
    return replace(problem, ic=2 * problem.ic, oc=2 * problem.oc, src_dtype=problem.dtype, dst_dtype=problem.dtype)


def real_weight(weight: NDArray[Any], *, pairs: bool) -> NDArray[Any]:
    """Return real weights for complex ones (oc, ic // g, ...): two rows each, two columns if images have pairs."""
    oc, ic, *kernel = weight.shape
    blocks: NDArray[Any] = np.empty((oc, 2, ic, 1 + pairs, *kernel), weight.real.dtype)
    blocks[:, 0, :, 0] = weight.real
    blocks[:, 1, :, 0] = weight.imag
    if pairs:
        # The negative by way of the conjugate. NumPy (2.4): `-weight.imag` is a SystemError where memory lacks, and
        # np.negative with out= takes wrong elements where both arrays are strided.
        blocks[:, 0, :, 1] = weight.conj().imag
        blocks[:, 1, :, 1] = weight.real
    return blocks.reshape(2 * oc, -1, *kernel)


def real_bias(bias: NDArray[Any]) -> NDArray[Any]:
    """Return the parts of a complex bias, in turn."""
    return np.stack([bias.real, bias.imag], -1).reshape(-1)
