"""Dense layers against the machine and against torch, on one thread.

In one run: the machine's multiply-add peak and memory bandwidth; every tile that the plans use, alone; every distinct
layer of ResNet-50 and VGG-19 at batch 1, an ``eval()`` module called on an NCHW array, in turn with torch's (contiguous
input, one thread, ``inference_mode``) where torch is installed. Rows where pyconv loses are marked.

    python benchmarks/dense.py                        everything, as the README's table
    python benchmarks/dense.py --networks resnet50 --rounds 5 --no-torch
    python benchmarks/dense.py --isa x86-64-v3        another instruction set against its own peak
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator

import numpy as np

import pyconv
from measure import Samples, bandwidth_gbytes, geometric_mean, keep_freed_memory, one_round, peak_gflops, seconds
from networks import NETWORKS, Layer
from pyconv._dispatch import forced, kernels
from pyconv._execute import CACHES
from pyconv._plan import Plan, ceil_div, even_tails

Call = Callable[[], object]
Tile = tuple[str, int, int, int]  # role, NV, M, kernel width


def torch_call(layer: Layer, images: np.ndarray) -> Call | None:
    """Build the same layer in torch, for the same array; None where torch is not installed."""
    try:
        import torch
    except ImportError:
        return None
    torch.set_num_threads(1)
    module = torch.nn.Conv2d(layer.in_channels, layer.out_channels, layer.kernel, layer.stride, layer.padding).eval()
    tensor = torch.from_numpy(images)

    def call() -> object:
        with torch.inference_mode():
            return module(tensor)

    return call


def tiles_of(plan: Plan) -> Iterator[Tile]:
    """Yield every tile that a plan runs."""
    p = plan.problem
    vectors, scalars = p.oc // p.g, plan.ow_blk
    if plan.role == "ow":
        vectors, scalars = scalars, vectors
    for nv, _ in even_tails(ceil_div(vectors, plan.lanes), plan.NV):
        most = plan.M[nv - 1] if plan.role == "oc" else plan.M[plan.NV - 1]
        for m, _ in even_tails(scalars, most):
            yield plan.role, nv, m, p.kw


def tile_gflops(tile: Tile) -> float:
    """Time one tile alone, with strip and weights in half of the first level cache."""
    role, nv, m, kw = tile
    vector = kernels().tiles.vector_bytes
    # The operand that comes in vectors outweighs the other one.
    channel = kw * nv * vector * (kw if role == "oc" else 2)
    n_ic = max(8, CACHES.l1 // 2 // channel)
    work = 2 * n_ic * kw * kw * m * nv * vector // 4
    repeats = max(1, 100_000_000 // work)
    run = kernels().module.tile_multiply_adds
    return work * repeats / seconds(lambda: run("float32", role, nv, m, n_ic, kw, kw, repeats)) / 1e9


def tile_percentages(tiles: list[Tile], rounds: int) -> dict[Tile, float]:
    """Percent of the peak of each tile, best decile of rounds, of the peak as of the tile."""
    rates: dict[Tile, list[float]] = {tile: [] for tile in tiles}
    peaks = []
    for _ in range(rounds):
        for tile in tiles:
            peaks.append(peak_gflops())
            rates[tile].append(tile_gflops(tile))
    peak = float(np.percentile(peaks, 90))
    return {tile: 100 * float(np.percentile(rate, 90)) / peak for tile, rate in rates.items()}


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--networks", default="resnet50,vgg19", help="comma-separated, of " + ", ".join(NETWORKS))
    parser.add_argument("--rounds", type=int, default=21, help="timed rounds (default 21)")
    parser.add_argument("--isa", choices=pyconv.available_isas(), default=pyconv.isa())
    parser.add_argument("--no-torch", action="store_true", help="without torch, though it is installed")
    parser.add_argument("--no-tiles", action="store_true", help="without the table of single tiles")
    options = parser.parse_args()
    unknown = [name for name in options.networks.split(",") if name not in NETWORKS]
    if unknown:
        parser.error(f"unknown network {unknown[0]!r}; known: {', '.join(NETWORKS)}")
    if options.rounds < 1:
        parser.error(f"--rounds {options.rounds}: at least 1")
    return options


def main() -> None:
    options = parse()
    keep_freed_memory()
    pyconv.set_num_threads(1)
    with forced(options.isa):
        run(options)


def run(options: argparse.Namespace) -> None:
    rng = np.random.default_rng(0)
    rows: list[tuple[str, Layer, Plan, dict[str, Call], Samples]] = []
    for network in options.networks.split(","):
        for layer in NETWORKS[network]:
            images = rng.standard_normal((1, layer.in_channels, layer.size, layer.size), np.float32)
            module = pyconv.Conv2d(
                layer.in_channels,
                layer.out_channels,
                layer.kernel,
                layer.stride,
                layer.padding,
                rng=rng,
            ).eval()
            calls: dict[str, Call] = {"pyconv": lambda module=module, images=images: module(images)}
            peer = None if options.no_torch else torch_call(layer, images)
            if peer:
                calls["torch"] = peer
            rows.append((network, layer, module.plan(images.shape), calls, Samples()))

    pyconv.show_config()
    print(f"peak             {max(peak_gflops() for _ in range(20)):.0f} GFLOP/s of float32 multiply-adds on one core")
    print(f"bandwidth        {bandwidth_gbytes():.1f} GB/s read and written by one core's copy")

    if not options.no_tiles:
        tiles = sorted({tile for *_, plan, _, _ in rows for tile in tiles_of(plan)})
        print("\n| tile | % of peak |\n|---|---|")
        for (role, nv, m, kw), percent in tile_percentages(tiles, options.rounds).items():
            print(f"| {role}-vector {m}x{nv}, kernel width {kw} | {percent:.0f} |")

    for _ in range(options.rounds):
        for *_, calls, samples in rows:
            one_round(calls, samples)
    report(rows)


def report(rows: list[tuple[str, Layer, Plan, dict[str, Call], Samples]]) -> None:
    print("\n| network | layer | shape | tile | ms | GFLOP/s | best | % of peak | torch ms | ratio |")
    print("|---|---|---|---|---|---|---|---|---|---|")
    percents, ratios = [], []
    # Of the whole run: right after a long layer the peak loop itself is slow for some milliseconds.
    peak = float(np.percentile([peak for *_, samples in rows for peak in samples.peaks], 90))
    for network, layer, plan, calls, samples in rows:
        median = samples.median("pyconv")
        percents.append(100 * samples.gflops("pyconv", layer.flops) / peak)
        best = layer.flops / min(samples.times["pyconv"]) / 1e9
        row = (
            f"| {network} | {layer.name} | {layer} | {plan.role} {plan.M[plan.NV - 1]}x{plan.NV} "
            f"| {median * 1e3:.2f} | "
            f"{layer.flops / median / 1e9:.0f} | {best:.0f} | {percents[-1]:.0f} |"
        )
        if "torch" in calls:
            ratios.append(samples.median("torch") / median)
            row += f" {samples.median('torch') * 1e3:.2f} | {ratios[-1]:.2f}{' (loses)' if ratios[-1] < 1 else ''} |"
        else:
            row += " - | - |"
        print(row)
    print(f"\nof the peak: geometric mean {geometric_mean(percents):.0f} %, least {min(percents):.0f} %")
    if ratios:
        print(f"against torch: geometric mean {geometric_mean(ratios):.2f}x, least {min(ratios):.2f}x")


if __name__ == "__main__":
    main()
