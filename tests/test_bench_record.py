"""A record survives its files, refuses others, and derives its figures by the definitions it states."""

from __future__ import annotations

import csv
import json
import math
from dataclasses import replace
from pathlib import Path

import pytest

from _runs import BANDWIDTH, ISA, a_run
from pyconv.bench.record import Row, Run, Settings, Timing, Yardstick, geometric_mean

SETTINGS = Settings(1, 1, "f32", "nchw", "packed", ISA)
ROW = Row(
    layer="ic8ih4oc8oh4kh1", network="n", name="a", multiplicity=3, settings=SETTINGS, flops=2_000_000, bytes=100_000,
    plan="p", plan_short="oc 8x3", workspace=0, error=0.1, pyconv=Timing([2e-5, 1e-5, 3e-5]),
    peers={"slow": Timing([4e-5]), "fast": Timing([1e-5, 9e-5, 3e-5]), "winograd": Timing([1e-6])},
    approximate=["winograd"],
)  # fmt: skip
YARDSTICK = Yardstick(ISA, "f32", 1, [200.0] * 10, 5.0)


def test_json_round_trip(tmp_path: Path) -> None:
    run = replace(
        a_run(approximate=("ncnn",)), special={"cold": {"title": "t", "columns": [], "rows": [], "notes": []}}
    )
    run.write_json(tmp_path / "run.json")
    assert Run.read_json(tmp_path / "run.json") == run


def test_json_has_a_line_for_each_row(tmp_path: Path) -> None:
    run = a_run()
    run.write_json(tmp_path / "run.json")
    lines = (tmp_path / "run.json").read_text().splitlines()
    assert sum('"plan_short"' in line for line in lines) == len(run.rows)


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("", "not JSON"),
        ("[]", "no format"),
        ('{"format": "other"}', "no format"),
        ('{"format": "pyconv bench 1", "rows": []}', "missing or unknown fields: command"),
    ],
)
def test_a_wrong_file_is_one_clear_error(tmp_path: Path, text: str, complaint: str) -> None:
    path = tmp_path / "wrong.json"
    path.write_text(text)
    with pytest.raises(ValueError, match=complaint) as caught:
        Run.read_json(path)
    assert str(caught.value).startswith(str(path))


def test_a_missing_file_is_one_clear_error(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="No such file"):
        Run.read_json(tmp_path / "none.json")


@pytest.mark.parametrize("broken", [{"seconds": ["fast"]}, {"seconds": 1.0}, {}, None])
def test_an_error_says_where_in_the_file(tmp_path: Path, broken: object) -> None:
    path = tmp_path / "run.json"
    a_run().write_json(path)
    data = json.loads(path.read_text())
    data["rows"][7]["peers"]["torch"] = broken
    path.write_text(json.dumps(data))
    with pytest.raises(ValueError, match=r"run\.rows\[7\]\.peers\.torch"):
        Run.read_json(path)


def test_csv_has_a_line_for_each_row_and_a_number_for_each_figure(tmp_path: Path) -> None:
    run = Run("c", "2026", {}, {}, [YARDSTICK], [ROW])
    run.write_csv(tmp_path / "run.csv")
    with (tmp_path / "run.csv").open(newline="") as file:
        (line,) = csv.DictReader(file)
    assert float(line["ms"]) == pytest.approx(0.02)
    assert float(line["slow_ratio"]) == pytest.approx(2)
    assert (line["fastest_peer"], line["network"], line["multiplicity"]) == ("fast", "n", "3")


def test_csv_leaves_out_what_was_not_measured(tmp_path: Path) -> None:
    Run("c", "2026", {}, {}, [], [ROW, replace(ROW, peers={})]).write_csv(tmp_path / "run.csv")
    with (tmp_path / "run.csv").open(newline="") as file:
        _, line = csv.DictReader(file)
    assert (line["fast_ms"], line["fastest_ratio"], line["percent_of_peak"]) == ("", "", "")


def test_timings() -> None:
    timing = Timing([float(n) for n in range(1, 12)])
    assert (timing.median, timing.best, timing.best_decile, timing.p90) == (6, 1, 2, 10)
    assert math.isnan(Timing([]).median)


def test_the_peak_is_the_best_decile_of_its_samples() -> None:
    assert replace(YARDSTICK, peak=[float(n) for n in range(11)]).peak_best_decile == 9


@pytest.mark.parametrize("second", [0.0, -1.0, math.nan, math.inf])
def test_a_record_of_impossible_times_is_none(second: float, tmp_path: Path) -> None:
    record = tmp_path / "run.json"
    Run("c", "2026", {}, {}, [YARDSTICK], [replace(ROW, pyconv=Timing([1e-5, second]))]).write_json(record)
    with pytest.raises(ValueError, match="positive numbers"):
        Run.read_json(record)


def test_figures_of_a_row() -> None:
    assert ROW.gflops == pytest.approx(100)
    best = 2_000_000 / 1.2e-5 / 1e9
    assert ROW.percent_of_peak(YARDSTICK) == pytest.approx(100 * best / 200)
    assert ROW.roof(YARDSTICK) == pytest.approx(20 * 5.0)
    assert ROW.percent_of_roof(YARDSTICK) == pytest.approx(100 * best / 100)
    assert ROW.roof(replace(YARDSTICK, bandwidth=50.0)) == 200
    assert YARDSTICK.ridge == pytest.approx(40)


def test_without_bandwidth_the_peak_is_the_roof() -> None:
    assert ROW.roof(replace(YARDSTICK, bandwidth=0.0)) == 200


def test_an_approximate_peer_is_never_the_fastest() -> None:
    assert ROW.ratio("winograd") == pytest.approx(0.05)
    assert ROW.fastest_peer() == "fast"
    assert ROW.fastest_ratio == pytest.approx(1.5)
    assert not ROW.lost
    assert replace(ROW, pyconv=Timing([4e-5])).lost


def test_without_peers_nothing_is_lost() -> None:
    alone = replace(ROW, peers={"winograd": Timing([1e-6]), "untimed": Timing([])})
    assert alone.fastest_peer() is None
    assert math.isnan(alone.fastest_ratio)
    assert not alone.lost
    assert alone.lost_rounds == (0, 0)


def test_a_row_may_be_lost_in_some_rounds_only() -> None:
    fast = {"fast": Timing([2e-5, 2e-5, 2e-5]), "winograd": Timing([1e-6] * 3)}
    sometimes = replace(ROW, pyconv=Timing([3e-5, 1e-5, 3e-5]), peers=fast)
    always, never = replace(sometimes, pyconv=Timing([3e-5] * 3)), replace(sometimes, pyconv=Timing([1e-5] * 3))
    assert [row.lost_rounds for row in (sometimes, always, never)] == [(2, 3), (3, 3), (0, 3)]
    summary = Run("c", "2026", {}, {}, [YARDSTICK], []).summary([sometimes, always, never])
    assert (summary.lost, summary.lost_throughout) == (2, 1)


def test_summary() -> None:
    slower = replace(ROW, name="b", pyconv=Timing([8e-5]), multiplicity=1, peers={"slow": Timing([4e-5])}, partial=True)
    summary = Run("c", "2026", {}, {}, [YARDSTICK], [ROW, slower]).summary([ROW, slower])
    assert (summary.rows, summary.partial, summary.lost) == (2, 1, 1)
    assert summary.milliseconds == pytest.approx(3 * 0.02 + 0.08)
    assert summary.ratios["slow"] == pytest.approx((1.0, 0.5))
    assert summary.ratios["fast"] == pytest.approx((1.5, 1.5))
    assert summary.fastest == pytest.approx((geometric_mean([1.5, 0.5]), 0.5))


def test_groups_keep_networks_and_settings_apart() -> None:
    run = a_run((SETTINGS, replace(SETTINGS, threads=2)))
    assert [(network, settings.threads) for network, settings in run.groups()] == [
        (network, threads) for threads in (1, 2) for network in ("resnet50", "mobilenet_v2", "vgg16")
    ]


def test_the_yardstick_is_that_of_the_settings() -> None:
    run = a_run((SETTINGS, replace(SETTINGS, threads=2)))
    assert run.yardstick(replace(SETTINGS, threads=2)).bandwidth > run.yardstick(SETTINGS).bandwidth == BANDWIDTH
    assert math.isnan(run.yardstick(replace(SETTINGS, threads=3)).peak_best_decile)


def test_peers_are_listed_with_approximate_ones_last() -> None:
    assert Run("c", "2026", {}, {}, [], [ROW]).peers() == ["slow", "fast", "winograd"]
    first = replace(ROW, peers={"winograd": Timing([1.0]), "exact": Timing([1.0])})
    assert Run("c", "2026", {}, {}, [], [first]).peers() == ["exact", "winograd"]
