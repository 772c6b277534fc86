"""The published figures are those of the committed runs, and no row that loses hides in them."""

from __future__ import annotations

import importlib.util
import re
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import pytest

from _runs import ISA, a_run
from pyconv.bench.record import Settings, Timing

SETTINGS = Settings(1, 1, "f32", "nchw", "packed", ISA)
SOURCE = Path(__file__).parent.parent / "benchmarks" / "publish.py"


def load() -> ModuleType:
    spec = importlib.util.spec_from_file_location("publish", SOURCE)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


publish = load()
PAGES = ("README.md", "docs/performance.md")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Make a project with one run, and a README that has not been written yet."""
    (tmp_path / "benchmarks/results/one").mkdir(parents=True)
    a_run(networks=("vgg16",)).write_json(tmp_path / "benchmarks/results/one/run.json")
    (tmp_path / "docs").mkdir()
    for name in PAGES:
        (tmp_path / name).write_text(f"before\n{publish.BEGIN}\nold\n{publish.END}\nafter\n")
    return tmp_path


def test_only_what_stands_between_the_marks_is_written(root: Path) -> None:
    pytest.importorskip("matplotlib")
    assert publish.main(["--check"], root) == 1
    assert publish.main([], root) == 0
    for name in PAGES:
        text = (root / name).read_text()
        assert text.startswith(f"before\n{publish.BEGIN}\n")
        assert text.endswith(f"\n{publish.END}\nafter\n")
        assert "old" not in text
    assert {path.name for path in (root / "benchmarks/results/one").glob("*.png")} == {"roofline.png", "ratios.png"}
    assert publish.main(["--check"], root) == 0
    for name in PAGES:
        written = (root / name).read_text()
        (root / name).write_text(written.replace("vgg16", "vgg19"))
        assert publish.main(["--check"], root) == 1
        (root / name).write_text(written)
        assert publish.main(["--check"], root) == 0
    a_run(networks=("resnet50",)).write_json(root / "benchmarks/results/one/another.json")
    assert publish.main(["--check"], root) == 1


@pytest.mark.parametrize("broken", [*PAGES, "benchmarks/results/one/run.json"])
def test_a_wrong_file_is_one_line(root: Path, broken: str, capsys: pytest.CaptureFixture[str]) -> None:
    (root / broken).write_text("nothing")
    assert publish.main([], root) == 2
    assert capsys.readouterr().err.count("\n") == 1
    (root / PAGES[0]).unlink()
    assert publish.main(["--check"], root) == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_without_runs_there_is_nothing_to_write(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (root / "benchmarks/results/one/run.json").unlink()
    assert publish.main([], root) == 2
    assert "holds no run" in capsys.readouterr().err


def test_each_group_has_a_line_and_what_all_share_is_said_once() -> None:
    text = publish.detailed([a_run((SETTINGS, replace(SETTINGS, threads=2)), approximate=("ncnn",))], "one")
    assert "| network | threads | layers |" in text
    assert "| vgg16 | 2 | 13 |" in text
    assert text.count("packed weights") == 1
    assert "~ncnn" in text


def test_the_readme_has_a_line_for_each_group_the_usual_ones_first() -> None:
    eight = a_run((replace(SETTINGS, batch=8), replace(SETTINGS, threads=2, layout="nhwc")), networks=("vgg16",))
    text = publish.brief([eight, a_run(networks=("vgg16", "resnet50"))], "one")
    labels = [line.split("|")[1].strip() for line in text.splitlines() if line.startswith("| ")]
    assert labels == ["network", "vgg16", "resnet50", "vgg16, batch 8", "vgg16, 2 threads, nhwc"]
    text = publish.brief([a_run((SETTINGS, replace(SETTINGS, isa="x86-64-v2")), networks=("vgg16",))], "one")
    assert "| vgg16 |" in text
    assert "| vgg16, x86-64-v2 |" in text
    assert "ncnn" not in text


def test_networks_of_a_run_are_summed_up_together_and_the_dense_layers_by_themselves() -> None:
    settings = (SETTINGS, replace(SETTINGS, threads=2))
    text = publish.detailed([a_run(settings, networks=("vgg16", "resnet50"))], "one")
    for threads in (1, 2):
        assert f"| {publish.TOGETHER} | {threads} | 38 |" in text  # 13 and 25
        assert f"| {publish.DENSE} | {threads} | 36 |" in text  # but for the first layer of each, of 3 channels
    assert "Dense: 32 channels or more" in " ".join(text.split())
    alone = publish.detailed([a_run(settings, networks=("vgg16",))], "one")
    assert publish.TOGETHER not in alone
    assert "Dense:" not in alone


@pytest.mark.parametrize("part", ["brief", "detailed"])
def test_lines_fit_a_page(part: str) -> None:
    run = a_run((SETTINGS, replace(SETTINGS, threads=2), replace(SETTINGS, batch=8)))
    text = getattr(publish, part)([run], "one")
    assert all(len(line) <= 120 for line in text.splitlines() if not line.startswith(("|", "!", "python")))


def test_the_worst_rows_are_listed_and_the_others_counted() -> None:
    run = a_run()
    rows = [
        replace(row, peers={"torch": Timing([row.pyconv.median * (0.5 + i / 100)])}) for i, row in enumerate(run.rows)
    ]
    run = replace(run, rows=rows)
    text = publish.detailed([run], "one")
    ratios = [float(line.split("|")[-2]) for line in text.splitlines() if "| torch |" in line and "fastest" not in line]
    assert ratios == sorted(ratios)
    assert len(ratios) == 15
    assert ratios[0] == 0.5
    throughout = run.summary(rows).lost_throughout
    head = f"A peer is faster on 50 of 59 rows, on {throughout} of them in every round; the worst:"
    assert head in text
    assert "| 1 of 1 | 0.50 |" in text
    assert "and 35 more, from 0.65 up" in text
    told = " ".join(publish.brief([run], "one").split())
    assert re.search(head + r" 0\.50 \w+ \w+ \(torch\); 0\.51 ", told)
    assert told.count("(torch)") == 8


def test_no_row_lost() -> None:
    run = a_run(networks=("vgg16",))
    won = [replace(row, peers={"torch": Timing([9.0])}) for row in run.rows]
    for part in (publish.brief, publish.detailed):
        assert "the fastest on all 13 rows." in part([replace(run, rows=won)], "one")


def test_each_machine_has_a_part_and_pictures_of_its_own(root: Path) -> None:
    pytest.importorskip("matplotlib")
    run = a_run(networks=("resnet50",))
    (root / "benchmarks/results/two").mkdir()
    replace(run, machine=run.machine | {"processor": "Another"}).write_json(root / "benchmarks/results/two/run.json")
    assert publish.main([], root) == 0
    for name, folder in zip(PAGES, ("benchmarks", "../benchmarks"), strict=True):
        text = (root / name).read_text()
        assert text.count("## ") == 2
        assert text.index("| vgg16 | 13 |") < text.index(" on Another") < text.index("| resnet50 | 25 |")
        assert f"({folder}/results/two/ratios.png)" in text
    assert (root / "benchmarks/results/two/ratios.png").exists()


def test_runs_are_taken_together() -> None:
    one, two = a_run(networks=("vgg16",)), a_run(networks=("resnet50",), peers=("torch",))
    both = publish.merged([one, two])
    assert len(both.rows) == len(one.rows) + len(two.rows)
    (yardstick,) = both.yardsticks
    assert len(yardstick.peak) == len(one.yardsticks[0].peak) + len(two.yardsticks[0].peak)
    text = publish.detailed([one, two], "one")
    assert "| resnet50 | 25 |" in text
    assert "| vgg16 | 13 |" in text
