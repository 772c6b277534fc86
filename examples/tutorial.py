"""The worked example of torch's Conv2d tutorial, on NumPy arrays.

40 images of 40 channels and 32x32 pixels go through ``Conv2d(40, 100, 3, stride=2, padding=3)``: the output is
(40, 100, 18, 18). The result is compared with a plain NumPy convolution in float64, whose distance must stay within
the error bound that any order of float32 arithmetic obeys.
"""

import time

import numpy as np

import pyconv
from pyconv import _reference

ROUNDS = 20


def main() -> None:
    rng = np.random.default_rng(0)
    images = rng.standard_normal((40, 40, 32, 32), dtype=np.float32)
    layer = pyconv.Conv2d(40, 100, 3, stride=2, padding=3, rng=rng).eval()
    plan = layer.plan(images.shape)
    print(f"layer      {layer}")
    print(f"plan       {plan}")

    output = layer(images)
    assert output.shape == (40, 100, 18, 18), output.shape
    print(f"output     {output.shape}, {output.dtype}")

    seconds = []
    for _ in range(ROUNDS):
        start = time.perf_counter()
        layer(images)
        seconds.append(time.perf_counter() - start)
    best = min(seconds)
    print(f"time       {best * 1e3:.2f} ms (best of {ROUNDS}), {plan.flops / best / 1e9:.0f} GFLOP/s")

    exact = _reference.conv(plan.problem, images, layer.weight, layer.bias)
    bound = _reference.error_bound(plan.problem, images, layer.weight, layer.bias)
    deviation = np.abs(output - exact)
    worst = np.unravel_index(np.argmax(deviation / bound), deviation.shape)
    print(
        f"deviation  {deviation.max():.1e} at most from float64; the closest to its error bound: "
        f"{deviation[worst]:.1e} of {bound[worst]:.1e}"
    )
    if not (deviation <= bound).all():
        raise SystemExit("the result is outside its error bound")


if __name__ == "__main__":
    main()
