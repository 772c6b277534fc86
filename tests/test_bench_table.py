"""Tables fit where they go, mark what was lost, and say each thing once."""

from __future__ import annotations

from dataclasses import replace

import pytest

from _runs import ISA, a_run
from pyconv.bench import table
from pyconv.bench.record import Run, Settings, Timing

SETTINGS = Settings(1, 1, "f32", "nchw", "packed", ISA)
SPECIAL = {
    "overhead": {
        "title": "Time of the smallest call",
        "columns": ["call", "us", "x"],
        "rows": [["conv2d", 3.2104, 1], ["eval() module", 11.0, "-"]],
        "notes": ["one pixel, one channel"],
    }
}


def small_run(**changes: object) -> Run:
    run = a_run(networks=("resnet50",), approximate=("ncnn",))
    return replace(run, rows=[replace(row, **changes) for row in run.rows[:3]])  # type: ignore[arg-type]


@pytest.mark.parametrize("width", [72, 80, 100, 132, 200])
def test_a_terminal_is_never_too_narrow(width: int) -> None:
    text = table.terminal(a_run((SETTINGS, replace(SETTINGS, threads=2)), approximate=("ncnn",)), width)
    assert max(map(len, text.splitlines())) <= width


def test_a_narrow_terminal_keeps_what_matters_most() -> None:
    header = next(line for line in table.terminal(a_run(), 72).splitlines() if line.startswith("layer"))
    assert {"ms", "ratio"} <= set(header.split())
    assert "error" not in header
    assert "error" in table.terminal(a_run(), 300)


def test_columns_are_aligned() -> None:
    lines = table.terminal(small_run(), 120).splitlines()
    start = next(i for i, line in enumerate(lines) if line.startswith("layer"))
    end = lines[start].index("ms") + 2
    assert all(line[end - 1].isdigit() and line[end] == " " for line in lines[start + 2 : start + 5])


def test_every_lost_row_is_marked_and_counted() -> None:
    run = a_run()
    lost = sum(row.lost for row in run.rows)
    throughout = run.summary(run.rows).lost_throughout
    assert 0 < lost < len(run.rows)
    for text in (table.terminal(run, 80), table.markdown(run)):
        assert text.count("loses") == 1
        assert "rounds lost" in text
        assert f"pyconv loses {lost} of {len(run.rows)} rows to the fastest peer, {throughout} of them in every" in text
        for row in run.rows:
            assert not row.lost or " {} of {}".format(*row.lost_rounds) in text


def test_an_approximate_peer_is_marked_and_explained() -> None:
    text = table.terminal(small_run(), 200)
    assert " ~ncnn " in text
    assert "~: computes another" in text
    assert "~" not in table.terminal(a_run(networks=("vgg16",)), 200)


def test_a_row_cut_short_is_marked() -> None:
    assert table.terminal(small_run(partial=True), 80).count("cut short") == 4
    assert "cut short" not in table.terminal(small_run(), 80)


@pytest.mark.parametrize(
    ("times", "told"), [((1.0, 1.2, 1.2), "2 threads took longer than fewer in 2 of 3 rows"), ((1.0, 1.05, 1.2), "")]
)
def test_threads_that_make_it_slower_are_told(times: tuple[float, ...], told: str) -> None:
    """Where they do so in most rows, by more than noise."""
    one = small_run(settings=SETTINGS)
    rows = [replace(row, pyconv=Timing([1.0])) for row in one.rows]
    more = replace(SETTINGS, threads=2)
    rows += [replace(row, settings=more, pyconv=Timing([time])) for row, time in zip(one.rows, times, strict=True)]
    notes = table.notes(replace(one, rows=rows))
    assert any(note.startswith(told) and "OMP_WAIT_POLICY" in note for note in notes) == bool(told)


def test_without_peers_there_is_nothing_about_peers() -> None:
    text = table.terminal(a_run(peers=()), 200)
    assert "ratio" not in text
    assert "loses" not in text


def test_the_headline_names_machine_peak_and_bandwidth() -> None:
    head = table.terminal(a_run(), 100).partition("\n\n")[0]
    for part in ("Xeon", "2 cores", "torch 2.13.0", "2026-03-14 15:09", "batch 1, 1 thread, f32", "copy 14.1 GB/s"):
        assert part in head


def test_only_what_tells_groups_apart_is_said_again() -> None:
    text = table.terminal(a_run((SETTINGS, replace(SETTINGS, batch=8)), ("vgg16",)), 100)
    assert "\nvgg16, batch 1\n" in text
    assert "\nvgg16, batch 8\n" in text
    assert text.count("nchw") == 1


def test_peers_that_left_rows_out_are_given_their_reason() -> None:
    assert "openvino: 1 row left out: no such padding" in table.terminal(a_run(networks=("resnet50",)), 80)


def test_all_groups_together() -> None:
    assert "\nall " in table.terminal(a_run(), 80)
    assert "\nall " not in table.terminal(small_run(), 80)


def test_markdown_tables_are_rectangular() -> None:
    text = table.markdown(replace(a_run(approximate=("ncnn",)), special=SPECIAL))
    for block in text.split("\n\n"):
        if block.startswith("|"):
            assert len({line.count("|") for line in block.splitlines()}) == 1


def test_a_bar_in_a_name_does_not_end_a_markdown_cell() -> None:
    assert "| a\\|b |" in table.markdown(small_run(name="a|b"))


def test_special_tables() -> None:
    run = replace(small_run(), rows=[], special=SPECIAL)
    for text in (table.special(run), table.terminal(run, 80), table.markdown(run)):
        for part in ("Time of the smallest call", "3.21", "11.0", "one pixel, one channel"):
            assert part in text
    assert "eval() module  11.0  -" in table.special(run)


def test_nothing_measured_is_a_dash() -> None:
    run = replace(small_run(pyconv=Timing([]), peers={}), yardsticks=[])
    row = next(line for line in table.terminal(run, 200).splitlines() if line.startswith("conv1"))
    assert " nan" not in row
    assert " - " in row


def test_shapes() -> None:
    assert table.shape("mb8ic64oc64_ih56oh56kh3ph1") == "3x3 64->64 @56"
    assert table.shape("no descriptor") == "no descriptor"


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.01234, "0.0123"), (1.0, "1.00"), (12.34, "12.3"), (1234.5, "1234"), (0, "0"), (1e-9, "0.000000")],
)
def test_three_digits(value: float, text: str) -> None:
    assert table.digits(value) == text
