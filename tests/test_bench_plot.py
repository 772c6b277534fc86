"""Pictures are written whatever the run holds; what they say comes from the record."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest

from _runs import ISA, a_run
from pyconv.bench import plot, presets
from pyconv.bench.record import Run, Settings, Timing

pytest.importorskip("matplotlib")

SETTINGS = Settings(1, 1, "f32", "nchw", "packed", ISA)
FEW = a_run(networks=("vgg16",))


@pytest.fixture
def as_text(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(plot._STYLE, "svg.fonttype", "none")


@pytest.mark.parametrize("suffix", plot.SUFFIXES)
def test_two_pictures_of_every_kind(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"run.x{suffix}"
    assert plot.draw(FEW, path) == [path, tmp_path / f"run.x-ratios{suffix}"]
    start = {".png": b"\x89PNG", ".svg": b"<?xml", ".pdf": b"%PDF"}[suffix]
    assert all(written.read_bytes().startswith(start) for written in tmp_path.iterdir())
    assert len(list(tmp_path.iterdir())) == 2


def test_without_peers_there_are_no_ratios(tmp_path: Path) -> None:
    assert plot.draw(a_run(networks=("vgg16",), peers=()), tmp_path / "a.png") == [tmp_path / "a.png"]
    assert plot.draw(replace(FEW, rows=[]), tmp_path / "b.png") == []


@pytest.mark.parametrize(
    "run",
    [
        replace(FEW, rows=FEW.rows[:1]),
        replace(FEW, yardsticks=[]),
        replace(FEW, yardsticks=[replace(FEW.yardsticks[0], bandwidth=0.0)]),
        replace(FEW, rows=[replace(row, peers={"torch": Timing([])}) for row in FEW.rows]),
        replace(FEW, rows=[replace(FEW.rows[0], pyconv=Timing([])), *FEW.rows[1:]]),
        replace(FEW, rows=[replace(row, peers={"torch": Timing([900.0])}, name="") for row in FEW.rows]),
        a_run(tuple(replace(SETTINGS, threads=n) for n in (1, 2, 4)), ("vgg16",)),
        a_run((SETTINGS, replace(SETTINGS, dtype="f64")), peers=(), approximate=("ncnn",)),
    ],
    ids=["one layer", "no peak", "no bandwidth", "untimed peer", "untimed layer", "far off", "three panels", "many"],
)
def test_any_run_can_be_drawn(tmp_path: Path, run: Run) -> None:
    assert len(plot.draw(run, tmp_path / "run.svg")) == 2


def test_words_are_not_cut_off(tmp_path: Path) -> None:
    """Pictures are as wide as their captions, and no wider without one that is."""

    def widths(run: Run) -> list[float]:
        paths = plot.draw(run, tmp_path / "run.svg")
        found = [re.search(r'width="([\d.]+)pt"', path.read_text()) for path in paths]
        return [float(width[1]) for width in found if width]

    usual = widths(FEW)
    wide = widths(replace(FEW, versions={"torch": "2." + "0" * 300}))
    assert all(width > 72 * 300 * 0.06 for width in wide)
    assert len(wide) == len(usual) == 2
    assert all(width <= 72 * 12 for width in usual)


@pytest.mark.usefixtures("as_text")
def test_the_roofline_says_what_was_measured_where(tmp_path: Path) -> None:
    plot.draw(FEW, tmp_path / "run.svg")
    text = (tmp_path / "run.svg").read_text()
    mean, _ = FEW.summary(FEW.rows).percent_of_roof
    for part in (f"13 layers: {mean:.0f} % of the roof", "Xeon", "1 thread, f32", "2026-03-14", "vgg16", "14.1 GB/s"):
        assert part in text


@pytest.mark.usefixtures("as_text")
def test_the_ratios_name_every_layer_and_peer(tmp_path: Path) -> None:
    run = a_run(networks=("vgg16",), approximate=("ncnn",))
    plot.draw(run, tmp_path / "run.svg")
    text = (tmp_path / "run-ratios.svg").read_text()
    summary = run.summary(run.rows)
    assert all(f">{row.name}<" in text for row in run.rows)
    assert f"{summary.fastest[0]:.2f}x the fastest peer" in text
    for peer in run.peers():
        assert f">{peer}<" in text
        mean, least = summary.ratios[peer]
        assert f"{mean:.2f}x, least {least:.2f}x" in text
    assert "(approximate)" in text


@pytest.mark.usefixtures("as_text")
def test_losing_dots_have_their_colour(tmp_path: Path) -> None:
    won = replace(FEW, rows=[replace(row, peers={"torch": Timing([9.0])}) for row in FEW.rows])
    lost = replace(FEW, rows=[replace(row, peers={"torch": Timing([1e-9])}) for row in FEW.rows])
    for run, there, absent in ((won, plot._BLUE, plot._VERMILLION), (lost, plot._VERMILLION, plot._BLUE)):
        plot.draw(run, tmp_path / "run.svg")
        text = (tmp_path / "run-ratios.svg").read_text().upper()
        assert there in text
        assert absent not in text


def test_networks_keep_their_colours() -> None:
    assert plot.colours_of(["unet", "mine"])["unet"] == plot.colours_of(presets.NAMES)["unet"]
    for networks in ([*presets.NAMES], ["mine", "unet", "", *(str(i) for i in range(8))]):
        assert len(set(plot.colours_of(networks).values())) == len(networks), "no two alike while there are enough"
    assert len(plot.colours_of([str(i) for i in range(40)])) == 40


def test_many_layers_become_a_line_for_each_group() -> None:
    few, many = a_run(), a_run((SETTINGS, replace(SETTINGS, threads=2)))
    assert [len(line.rows) for line in plot.lines_of(few)] == [1] * len(few.rows)
    assert [len(line.rows) for line in plot.lines_of(many)] == [len(rows) for rows in many.groups().values()]


@pytest.mark.usefixtures("as_text")
def test_settings_that_most_rows_share_are_said_once(tmp_path: Path) -> None:
    two, swept = replace(SETTINGS, threads=2), replace(SETTINGS, evicted=8)
    few = a_run((two,), ("vgg16",)).rows[:4]
    labels = {"vgg16", "vgg16, 2 threads"}
    for other, said in ((few, labels), (a_run((two,), ("vgg16",)).rows, {"vgg16, 1 thread", "vgg16, 2 threads"})):
        run = replace(FEW, rows=[*FEW.rows, *other])
        assert {line.head for line in plot.lines_of(run) if line.head} == said
        plot.draw(run, tmp_path / "run.svg")
        usual = "1 thread, unless a line says otherwise" in (tmp_path / "run-ratios.svg").read_text()
        assert usual == (said == labels)
    all_swept = a_run((swept,), ("vgg16",)).rows
    for rows in ([*FEW.rows[:4], *all_swept], [*FEW.rows, *all_swept[:4]]):
        assert not plot.usual_settings(replace(FEW, rows=rows)), "no word says: nothing is evicted"
        assert {line.head for line in plot.lines_of(replace(FEW, rows=rows)) if line.head} == {
            "vgg16",
            "vgg16, 8 MiB evicted",
        }


def test_layers_are_sorted_within_their_network() -> None:
    run = a_run()
    for network in ("resnet50", "mobilenet_v2", "vgg16"):
        ratios = [line.rows[0].fastest_ratio for line in plot.lines_of(run) if line.rows[0].network == network]
        assert ratios == sorted(ratios, reverse=True)


def test_ratios_far_off_do_not_squeeze_the_others() -> None:
    assert plot._limits([0.9, 1.5, 3.0]) == (0.5, 4)
    assert plot._limits([1e-6, 1e6, float("nan")]) == (0.125, 16)
