"""The dense convolutions of two published networks, each distinct layer once.

ResNet-50 v1.5: He et al., "Deep Residual Learning for Image Recognition" (2015), table 1, with the stride of a stage on
its first 3x3 convolution instead of its first 1x1. VGG-19: Simonyan and Zisserman, "Very Deep Convolutional Networks
for Large-Scale Image Recognition" (2014), table 1, configuration E. Both on images of 224x224 pixels.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Layer:
    """A square convolution: ``size`` is the input's height and width."""

    name: str
    in_channels: int
    out_channels: int
    kernel: int
    stride: int
    padding: int
    size: int

    @property
    def out_size(self) -> int:
        return (self.size + 2 * self.padding - self.kernel) // self.stride + 1

    @property
    def flops(self) -> int:
        """Two for each multiply-add of one image, padding included."""
        return 2 * self.out_channels * self.out_size**2 * self.in_channels * self.kernel**2

    def __str__(self) -> str:
        stride = f" s{self.stride}" if self.stride > 1 else ""
        return f"{self.kernel}x{self.kernel}{stride} {self.in_channels}->{self.out_channels} @{self.out_size}"


def _resnet50() -> list[Layer]:
    layers = [Layer("conv1", 3, 64, 7, 2, 3, 224)]
    channels, size = 64, 56
    for stage, width in enumerate((64, 128, 256, 512), start=2):
        stride = 1 if stage == 2 else 2
        out, out_size = 4 * width, size // stride
        layers += [
            Layer(f"conv{stage}_1 shortcut", channels, out, 1, stride, 0, size),
            Layer(f"conv{stage}_1 reduce", channels, width, 1, 1, 0, size),
            Layer(f"conv{stage}_1 3x3", width, width, 3, stride, 1, size),
            Layer(f"conv{stage}_x expand", width, out, 1, 1, 0, out_size),
            Layer(f"conv{stage}_x reduce", out, width, 1, 1, 0, out_size),
            Layer(f"conv{stage}_x 3x3", width, width, 3, 1, 1, out_size),
        ]
        channels, size = out, out_size
    return _distinct(layers)


def _vgg19() -> list[Layer]:
    layers = []
    channels, size = 3, 224
    for block, width in enumerate((64, 128, 256, 512, 512), start=1):
        for number in (1, 2):
            layers.append(Layer(f"conv{block}_{number}", channels, width, 3, 1, 1, size))
            channels = width
        size //= 2
    return _distinct(layers)


def _distinct(layers: list[Layer]) -> list[Layer]:
    """Drop layers that repeat the shape of an earlier one."""
    seen: dict[tuple[int, ...], Layer] = {}
    for layer in layers:
        shape = (layer.in_channels, layer.out_channels, layer.kernel, layer.stride, layer.size)
        seen.setdefault(shape, layer)
    return list(seen.values())


NETWORKS = {"resnet50": _resnet50(), "vgg19": _vgg19()}
