"""Filter a photograph as it comes from the decoder: uint8, height x width x RGB, no conversion, no copy.

Three 3x3 filters (edges, blur, sharpen) are applied to each colour of scikit-learn's sample photograph by one
depthwise call, once with every padding mode. The picture shows the results, and below them the upper left corner
enlarged, which is where the padding modes differ.

    pip install '.[examples]' && python examples/photo.py [OUTPUT.png]
"""

import sys

import matplotlib as mpl

mpl.use("Agg")

import matplotlib.pyplot as plt
import numpy as np
from sklearn.datasets import load_sample_image

import pyconv

FILTERS = {
    "edges": np.array([[-1, -1, -1], [-1, 8, -1], [-1, -1, -1]]),
    "blur": np.ones((9, 9)) / 81,
    "sharpen": np.array([[0, -1, 0], [-1, 5, -1], [0, -1, 0]]),
}
MODES = ("zeros", "reflect", "replicate", "circular")
CORNER = 16  # pixels of the corner that is enlarged


def filtered(photo: np.ndarray, kernel: np.ndarray, mode: str) -> np.ndarray:
    """Filter each colour of a (height, width, 3) photograph; the result has its shape and dtype."""
    weight = np.broadcast_to(kernel.astype(np.float32), (3, 1, *kernel.shape))
    image = photo.transpose(2, 0, 1)  # (3, height, width), a view
    result = pyconv.conv2d(image, weight, padding="same", groups=3, padding_mode=mode)
    return np.clip(np.rint(result), 0, 255).astype(np.uint8).transpose(1, 2, 0)


def main() -> None:
    target = sys.argv[1] if len(sys.argv) > 1 else "photo.png"
    photo = load_sample_image("china.jpg")
    figure, axes = plt.subplots(2 * len(FILTERS), len(MODES) + 1, figsize=(15, 17), height_ratios=[3, 2] * len(FILTERS))
    for row, (name, kernel) in enumerate(FILTERS.items()):
        results = {"photograph": photo}
        results |= {mode: filtered(photo, kernel, mode) for mode in MODES}
        for column, (title, picture) in enumerate(results.items()):
            whole, corner = axes[2 * row, column], axes[2 * row + 1, column]
            whole.imshow(picture)
            whole.set_title(title if column == 0 else f"{name}, {title}", fontsize=11)
            corner.imshow(picture[:CORNER, : int(1.6 * CORNER)], interpolation="nearest")
            for axis in (whole, corner):
                axis.set_xticks([])
                axis.set_yticks([])
    figure.suptitle(
        "pyconv: 3x3 edges, 9x9 blur and 3x3 sharpen on a uint8 photograph; below each, its upper left corner"
    )
    figure.tight_layout(rect=(0, 0, 1, 0.985))
    figure.savefig(target, dpi=80)
    print(f"{photo.shape} {photo.dtype} -> {target}")


if __name__ == "__main__":
    main()
