"""Filter a photograph as it comes from the decoder: uint8, height x width x RGB, no conversion, no copy.

Three filters (edges, blur, sharpen) are applied to each colour of scikit-learn's sample photograph, one depthwise call
for each padding mode. Beside the whole result its marked corner is enlarged: that is where the padding modes differ.

    pip install '.[examples]' && python examples/photo.py [OUTPUT.png]
"""

import sys

import matplotlib as mpl

mpl.use("Agg")

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.patches import Rectangle
from sklearn.datasets import load_sample_image

import pyconv

# Name, kernel, and what is added so that the result can be seen: edges are positive and negative.
FILTERS = (
    ("edges", np.array([[-1, -1, -1], [-1, 8, -1], [-1, -1, -1]]), 128),
    ("blur", np.ones((9, 9)) / 81, 0),
    ("sharpen", np.array([[0, -1, 0], [-1, 5, -1], [0, -1, 0]]), 0),
)
MODES = ("zeros", "reflect", "replicate", "circular")
CORNER_SIZE = (24, 36)  # rows and columns at the lower left: trees
CORNER = (slice(-CORNER_SIZE[0], None), slice(CORNER_SIZE[1]))


def filtered(photo: np.ndarray, kernel: np.ndarray, offset: int, mode: str) -> np.ndarray:
    """Filter each colour of a (height, width, 3) photograph; the result has its shape and dtype."""
    weight = np.broadcast_to(kernel.astype(np.float32), (3, 1, *kernel.shape))
    image = photo.transpose(2, 0, 1)  # (3, height, width), a view
    result = pyconv.conv2d(image, weight, padding="same", groups=3, padding_mode=mode)
    return np.clip(np.rint(result + offset), 0, 255).astype(np.uint8).transpose(1, 2, 0)


def show(axis: plt.Axes, picture: np.ndarray, title: str) -> None:
    axis.imshow(picture, interpolation="nearest")
    axis.set_title(title, fontsize=11)
    axis.set_xticks([])
    axis.set_yticks([])


def main() -> None:
    target = sys.argv[1] if len(sys.argv) > 1 else "photo.png"
    photo = load_sample_image("china.jpg")
    rows, columns = CORNER_SIZE
    figure, axes = plt.subplots(len(FILTERS) + 1, len(MODES) + 1, figsize=(16, 9.4), layout="constrained")
    show(axes[0, 0], photo, "the photograph")
    show(axes[0, 1], photo[CORNER], "its corner")
    for axis in axes[0, 2:]:
        axis.axis("off")
    for line, (name, kernel, offset) in zip(axes[1:], FILTERS, strict=True):
        results = {mode: filtered(photo, kernel, offset, mode) for mode in MODES}
        show(line[0], results["zeros"], f"{name}, {kernel.shape[0]}x{kernel.shape[1]}")
        for axis, (mode, result) in zip(line[1:], results.items(), strict=True):
            show(axis, result[CORNER], f"{name}: {mode}")
    for axis in axes[:, 0]:
        axis.add_patch(Rectangle((0, len(photo) - rows), columns, rows, fill=False, edgecolor="red", linewidth=1.5))
    figure.suptitle("pyconv on a uint8 photograph: three filters, four padding modes (the marked corner, enlarged)")
    figure.savefig(target, dpi=80)
    print(f"{photo.shape} {photo.dtype} -> {target}")


if __name__ == "__main__":
    main()
