"""A comparison fails for the layers that became slower, and for no others."""

from __future__ import annotations

from dataclasses import replace

import pytest

from _runs import ISA, a_run
from pyconv.bench.compare import compare
from pyconv.bench.record import Run, Settings, Timing

SETTINGS = Settings(1, 1, "f32", "nchw", "packed", ISA)
RUN = a_run((SETTINGS, replace(SETTINGS, threads=2)), networks=("vgg16",))


def slowed(run: Run, number: int, factor: float) -> Run:
    rows = list(run.rows)
    rows[number] = replace(rows[number], pyconv=Timing([factor * t for t in rows[number].pyconv.seconds]))
    return replace(run, rows=rows)


def test_a_run_does_not_differ_from_itself() -> None:
    text, failed = compare(RUN, RUN, 0.0)
    assert not failed
    assert "warning" not in text
    assert "geometric mean of new / old: 1.000" in text


@pytest.mark.parametrize(("factor", "fails"), [(1.2, True), (1.09, False), (0.5, False)])
def test_a_layer_fails_beyond_the_threshold(factor: float, fails: bool) -> None:
    text, failed = compare(RUN, slowed(RUN, 3, factor), 0.1)
    assert failed is fails
    assert f"{int(fails)} of {len(RUN.rows)} rows are slower by more than 10 %" in text
    assert text.count(" slower\n") == fails


def test_without_a_threshold_nothing_fails() -> None:
    text, failed = compare(RUN, slowed(RUN, 3, 9.0), None)
    assert not failed
    assert "9.00" in text


def test_the_greatest_slow_down_stands_first_and_the_greatest_speed_up_last() -> None:
    text, _ = compare(RUN, slowed(slowed(RUN, 2, 0.5), 5, 2.0), None)
    lines = [line for line in text.splitlines() if line.startswith("vgg16")]
    assert RUN.rows[5].name in lines[0]
    assert RUN.rows[2].name in lines[-1]
    assert len(lines) == len(RUN.rows)


def test_rows_of_other_settings_are_not_compared() -> None:
    one_thread = replace(RUN, rows=[row for row in RUN.rows if row.settings.threads == 1])
    text, failed = compare(slowed(RUN, len(RUN.rows) - 1, 0.1), one_thread, 0.1)
    assert not failed
    assert f"only in the old run: {len(RUN.rows) - len(one_thread.rows)} rows" in text
    assert "warning: only the old run has batch 1, 2 threads" in text


def test_nothing_in_common() -> None:
    text, failed = compare(RUN, a_run(networks=("mobilenet_v2",)), None)
    assert not failed
    assert "no layer of one run is in the other" in text
    text, failed = compare(RUN, a_run(networks=("mobilenet_v2",)), 0.1)
    assert failed
    assert "nothing was compared" in text


@pytest.mark.parametrize(
    ("changes", "warning"),
    [
        ({"machine": {**RUN.machine, "processor": "another"}}, "warning: processor was Intel(R) Xeon(R)"),
        ({"versions": {**RUN.versions, "torch": "3.0"}}, "warning: torch was 2.13.0, is 3.0"),
        ({"versions": {**RUN.versions, "jax": "0.9"}}, "warning: jax was not recorded, is 0.9"),
        (
            {"yardsticks": [replace(y, peak=[2 * p for p in y.peak]) for y in RUN.yardsticks]},
            "warning: the multiply-add",
        ),
    ],
)
def test_what_else_changed_is_said_first(changes: dict[str, object], warning: str) -> None:
    text, failed = compare(RUN, replace(RUN, **changes), 0.1)  # type: ignore[arg-type]
    assert text.startswith(warning)
    assert not failed


def test_another_version_of_pyconv_is_no_warning() -> None:
    assert "warning" not in compare(RUN, replace(RUN, versions={**RUN.versions, "pyconv": "9"}), None)[0]


def test_a_row_without_times_is_not_compared() -> None:
    untimed = replace(RUN, rows=[replace(RUN.rows[0], pyconv=Timing([])), *RUN.rows[1:]], yardsticks=[])
    text, failed = compare(RUN, untimed, 0.1)
    assert not failed
    assert "nan" not in text


def test_a_shape_that_occurs_twice_is_compared_in_order() -> None:
    assert len({row.key for row in RUN.rows}) < len(RUN.rows)
    number = next(i for i, row in enumerate(RUN.rows) if row.name == "conv3_3")
    text, _ = compare(RUN, slowed(RUN, number, 3.0), 0.5)
    (line,) = (line for line in text.splitlines() if line.endswith(" slower"))
    assert "conv3_3" in line
    assert "3.00" in line
