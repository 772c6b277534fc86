"""The order of a session: who is timed when, and what is kept when it ends early. The contenders are actors."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest

from pyconv._dispatch import kernels
from pyconv.bench import contender as contenders
from pyconv.bench import session
from pyconv.bench.contender import Contender, RefusedError, _running
from pyconv.bench.descriptor import parse
from pyconv.bench.patience import FIRST_LOOKS, MOST_REPEATS
from pyconv.bench.record import Settings
from pyconv.bench.session import Job, Peer, Session

SETTINGS = Settings(1, 1, "f32", "nchw", "packed", "x86-64-v2")
LAYERS = [parse(f'mb1ic{c}oc8ih8oh8kh3ph1n"ic{c}"') for c in (1, 2, 3)]
JOBS = [Job(layer, SETTINGS) for layer in LAYERS]
A, B = Peer("a", ("nchw",), False), Peer("b", ("nchw",), True)


@pytest.fixture
def stage(monkeypatch: pytest.MonkeyPatch) -> Callable[..., list[tuple[str, str]]]:
    """Replace the processes by actors; return what they were asked, in order."""

    def prepare(
        errors: dict[str, float] | None = None,
        interrupt_at: int | None = None,
        refuse: Callable[[str, str, int], bool] = lambda name, do, key: False,
        whole: Sequence[float] = (),
    ) -> list[tuple[str, str]]:
        log: list[tuple[str, str]] = []
        samples = iter(whole)

        class Actor:
            def __init__(self, name: str, threads: int, isa: str = "") -> None:
                self.name = name

            def greet(self) -> None:
                if refuse(self.name, "greet", 0):
                    raise RefusedError("no such library")

            def ask(self, do: str, **arguments: Any) -> dict[str, Any]:
                key = arguments.get("key", 0)
                evicted = f" after {arguments['evicted']} MiB" if arguments.get("evicted") else ""
                log.append((self.name, f"{do} {key}{evicted}"))
                if interrupt_at is not None and len([1 for _, what in log if what.startswith("time")]) > interrupt_at:
                    raise KeyboardInterrupt
                if refuse(self.name, do, key):
                    raise RefusedError("it will not")
                return {
                    "prepare": {
                        "error": (errors or {}).get(self.name, 0.5),
                        "plan": "a plan", "plan_short": "oc 8x3", "workspace": 100,
                    },
                    "time": {"seconds": 1e-3},
                    "peak": {"gflops": 100.0},
                    "whole": {"gflops": next(samples, 100.0) if do == "whole" else 0},
                    "bandwidth": {"gbytes": 10.0},
                    "release": {},
                }[do]  # fmt: skip

            def time(self, key: int, evicted: int) -> float:
                return float(self.ask("time", key=key, evicted=evicted)["seconds"])

            def __enter__(self) -> Actor:
                return self

            def __exit__(self, *_: object) -> None:
                pass

        monkeypatch.setattr(session, "Contender", Actor)
        return log

    return prepare


def test_contenders_take_turns(stage: Callable[..., Any]) -> None:
    log = stage()
    measured = Session(JOBS[:2], [A, B], 3)
    measured.run()
    timed = [(who, what.split()[1]) for who, what in log if what.startswith("time")]
    rounds = [timed[i : i + 6] for i in range(0, 18, 6)]
    turns = [["pyconv", "a", "b"], ["a", "b", "pyconv"], ["b", "pyconv", "a"]]
    assert rounds == [[(who, layer) for layer in "01" for who in turn] for turn in turns]
    peaks = [i for i, (_, what) in enumerate(log) if what.startswith("peak")]
    assert len(peaks) == 6  # one for every layer and round
    assert len(measured.yardsticks) == 1
    assert measured.yardsticks[0].bandwidth == 10


def test_the_caches_are_swept_before_every_contender(stage: Callable[..., Any]) -> None:
    log = stage()
    Session([Job(LAYERS[0], SETTINGS), Job(LAYERS[0], replace(SETTINGS, evicted=8))], [A], 1).run()
    assert [entry for entry in log if entry[1].startswith("time")] == [
        (who, what) for what in ("time 0", "time 1 after 8 MiB") for who in ("pyconv", "a")
    ]


def test_rows(stage: Callable[..., Any]) -> None:
    stage()
    measured = Session(JOBS, [A, B], 4)
    measured.run()
    assert [row.name for row in measured.rows] == ["ic1", "ic2", "ic3"]
    row = measured.rows[0]
    assert len(row.pyconv.seconds) == len(row.peers["a"].seconds) == len(row.peers["b"].seconds) == 4
    assert (row.layer, row.flops, row.bytes) == (LAYERS[0].descriptor, LAYERS[0].flops, LAYERS[0].bytes(4))
    assert (row.plan_short, row.workspace, row.error) == ("oc 8x3", 100, 0.5)
    assert row.approximate == ["b"]
    assert not row.partial
    assert not measured.failed


def test_chunks_are_as_large_as_memory_allows(stage: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(session, "_CHUNK_BYTES", 1)
    log = stage()
    Session(JOBS, [], 2).run()
    timed = [what.split()[1] for _, what in log if what.startswith("time")]
    assert timed == ["0", "0", "1", "1", "2", "2"]


def test_ctrl_c_keeps_what_was_measured(stage: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(session, "_CHUNK_BYTES", 1)
    stage(interrupt_at=6)
    measured = Session(JOBS, [], 4)
    measured.run()
    assert measured.interrupted
    assert [(row.name, len(row.pyconv.seconds), row.partial) for row in measured.rows] == [
        ("ic1", 4, False),
        ("ic2", 2, True),
    ]


def test_a_budget_that_is_spent_leaves_three_rounds(stage: Callable[..., Any]) -> None:
    stage()
    measured = Session(JOBS, [A], 9, 1e-9)
    measured.run()
    assert {len(row.pyconv.seconds) for row in measured.rows} == {3}
    assert not any(row.partial for row in measured.rows)


def test_a_budget_that_lasts_changes_nothing(stage: Callable[..., Any]) -> None:
    stage()
    measured = Session(JOBS, [A], 9, 1e9)
    measured.run()
    assert {len(row.pyconv.seconds) for row in measured.rows} == {9}


def test_samples_beside_others_are_taken_again(stage: Callable[..., Any]) -> None:
    first = [100.0] * FIRST_LOOKS
    # The peak, as it comes. Pyconv's turn: beside others before, so that it waits, and after. Then a's: after it, once.
    log = stage(whole=[*first, 99, 99, 89, 91, 85, 95, 90, 90, 80, 90, 90])
    measured = Session(JOBS[:1], [A], 1, patience=1e9)
    measured.run()
    asked = [f"{who} {what.split()[0]}" for who, what in log]
    assert asked.index("pyconv peak") == asked.index("pyconv whole") + len(first) + 1
    asked = asked[asked.index("pyconv peak") + 2 :]
    whole, ours, theirs = "pyconv whole", "pyconv time", "a time"
    expected = [whole, whole, ours, whole, whole, ours, whole, whole, theirs, whole, whole, theirs, whole]
    assert asked[: len(expected)] == expected
    assert [asked.count(who) for who in (ours, theirs)] == [2, 2]
    row = measured.rows[0]
    assert len(row.pyconv.seconds) == len(row.peers["a"].seconds) == 1
    (remark,) = measured.remarks
    assert remark == "others used the cores: 2 samples taken again, 0 s waited"
    assert not measured.failed


def test_cores_are_whole_without_a_clock_that_was_raised_for_a_moment(stage: Callable[..., Any]) -> None:
    stage(whole=[*[100.0] * (FIRST_LOOKS - 9), *[150.0] * 9, *[95.0] * 6])
    measured = Session(JOBS[:1], [A], 1, patience=1e-9)
    measured.run()
    assert measured.remarks == ["others used the cores: 0 samples taken again, 0 s waited"]


def test_cores_that_were_never_whole_at_first_are_known_later(stage: Callable[..., Any]) -> None:
    stage(whole=[*[50.0] * FIRST_LOOKS, *[100.0] * 20, *[50.0] * 99])
    measured = Session(JOBS[:1], [A], 8, patience=1e-9)
    measured.run()
    (remark,) = measured.remarks
    assert "then patience was at its end" in remark


def test_patience_ends(stage: Callable[..., Any]) -> None:
    stage(whole=[*[100.0] * FIRST_LOOKS, 100, *[50.0] * 100])
    measured = Session(JOBS[:1], [A], 3, patience=1e-9)
    measured.run()
    assert len(measured.rows[0].pyconv.seconds) == 3
    assert len(measured.yardsticks[0].peak) == 3
    (remark,) = measured.remarks
    assert remark.startswith("others used the cores: 1 sample taken again, 0 s waited; then patience was at its end")


def test_patience_that_ends_while_nobody_can_begin_is_told(stage: Callable[..., Any]) -> None:
    stage(whole=[*[100.0] * FIRST_LOOKS, *[50.0] * 9])
    measured = Session(JOBS[:1], [], 1, patience=1e-9)
    measured.run()
    (remark,) = measured.remarks
    assert remark.startswith("others used the cores: 0 samples taken again, 0 s waited; then patience was at its end")


def test_a_sample_that_is_always_disturbed_is_taken_as_it_is(stage: Callable[..., Any]) -> None:
    log = stage(whole=[*[100.0] * (FIRST_LOOKS + 2), *[100, 50] * MOST_REPEATS])
    Session(JOBS[:1], [], 1, patience=1e9).run()
    assert sum(what.startswith("time") for _, what in log) == MOST_REPEATS + 1


def test_a_peer_is_not_blamed_for_the_end_of_pyconv(stage: Callable[..., Any]) -> None:
    asked = []

    def refuse(name: str, do: str, key: int) -> bool:
        asked.append(do)
        return asked.count("time") > 1 and do == "whole"

    stage(refuse=refuse)
    measured = Session(JOBS[:1], [A], 3, patience=1e9)
    measured.run()
    assert measured.failed
    assert measured.rows[0].skipped == {}


def test_long_calls_wait_for_nobody(stage: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(session, "_LONG_FLOPS", JOBS[0].flops - 1)
    log = stage(whole=[100.0] * FIRST_LOOKS)
    Session(JOBS[:1], [A], 3, patience=1e9).run()
    timed = [what.split()[0] for _, what in log if what.split()[0] in ("time", "whole")]
    assert timed[FIRST_LOOKS:] == ["whole", "whole", "time", "time"] * 3, "the peak's looks only"


def test_a_peer_that_cannot_is_left_out(stage: Callable[..., Any]) -> None:
    stage(refuse=lambda name, do, key: name == "a" and do == "prepare" and key == 1)
    measured = Session(JOBS, [A, B], 2)
    measured.run()
    assert [sorted(row.peers) for row in measured.rows] == [["a", "b"], ["b"], ["a", "b"]]
    assert measured.rows[1].skipped == {"a": "it will not"}


def test_a_peer_that_dies_keeps_nobody_waiting(stage: Callable[..., Any]) -> None:
    log = stage(refuse=lambda name, do, key: name == "a" and do in ("time", "release"))
    measured = Session(JOBS[:1], [A, B], 3)
    measured.run()
    assert measured.rows[0].skipped == {"a": "it will not"}
    assert list(measured.rows[0].peers) == ["b"]
    assert sum(what.startswith("time") for who, what in log if who == "a") == 1
    assert not measured.failed


def test_a_peer_that_does_not_start(stage: Callable[..., Any]) -> None:
    stage(refuse=lambda name, do, key: name == "a" and do == "greet")
    measured = Session(JOBS[:1], [A, B], 3)
    measured.run()
    assert measured.notes == ["a: no such library"]
    assert measured.rows[0].skipped == {"a": "did not start"}


def test_a_wrong_result_does_not_compete(stage: Callable[..., Any]) -> None:
    stage(errors={"a": 3.0, "b": float("nan")})
    measured = Session(JOBS[:1], [A, B], 3)
    measured.run()
    assert measured.rows[0].peers == {}
    assert measured.rows[0].skipped == {
        "a": "wrong result: 3 times the bound of rounding",
        "b": "wrong result: nan times a thousandth",
    }
    assert not measured.failed


def test_a_wrong_result_of_pyconv_fails_the_run(stage: Callable[..., Any]) -> None:
    stage(errors={"pyconv": 3.0})
    measured = Session(JOBS[:1], [A], 3)
    measured.run()
    assert measured.failed
    assert "wrong result: 3 times" in measured.notes[0]


def test_a_layer_that_pyconv_refuses_is_not_the_end(stage: Callable[..., Any]) -> None:
    stage(refuse=lambda name, do, key: name == "pyconv" and do == "prepare" and key == 1)
    measured = Session(JOBS, [A], 3)
    measured.run()
    assert measured.failed
    assert [row.name for row in measured.rows] == ["ic1", "ic3"]


def test_layouts(stage: Callable[..., Any]) -> None:
    stage()
    measured = Session(JOBS[:1], [Peer("a", ("nhwc",), False), B], 3)
    measured.run()
    assert measured.rows[0].skipped == {"a": "not for nchw"}
    assert list(measured.rows[0].peers) == ["b"]


def test_a_process_that_cannot_start_says_why() -> None:
    with Contender("no such peer", 1) as contender, pytest.raises(RefusedError, match="no such peer"):
        contender.greet()


def test_a_process_that_dies_is_noticed() -> None:
    with Contender("pyconv", 1, "x86-64-v2") as contender:
        contender.greet()
        contender._process.kill()
        with pytest.raises(RefusedError, match="killed by signal 9"):
            contender.ask("peak", dtype="f32")


@pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="the system does not tell which threads run")
def test_a_contenders_threads_sleep_before_the_next_ones_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OMP_WAIT_POLICY", raising=False)  # what tests have it be is not what users do
    layer = asdict(parse("mb1ic16ih56oc64oh56kh3ph1"))
    with Contender("pyconv", 2, kernels().tiles.isa) as contender:
        contender.ask("prepare", key=0, layer=layer, dtype="f32", layout="nchw", weights="packed")
        for _ in range(3):
            assert contender.time(0) > 0
            assert _running(contender._process.pid) is False


def test_where_the_system_does_not_tell_a_contender_has_some_milliseconds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(contenders, "_TASKS", "/nowhere/{}")
    waits: list[float] = []
    with Contender("pyconv", 1, kernels().tiles.isa) as contender:
        contender.greet()
        monkeypatch.setattr(time, "sleep", waits.append)
        contender.ask("peak", dtype="f32")
    assert waits == [contenders._SPIN]
