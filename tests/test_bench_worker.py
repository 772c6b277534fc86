"""How a contender times a call."""

from __future__ import annotations

import pytest

from pyconv.bench import processors, worker


@pytest.mark.parametrize(
    ("once", "calls", "samples"),
    [(1e-6, 501, 9), (1e-4, 6, 7), (0.3e-3, 1, 9), (1.1e-3, 1, 3), (1.7e-3, 1, 1), (0.02, 1, 1)],
    ids=lambda value: f"{value:g}",
)
def test_samples_that_fit_some_milliseconds(
    once: float, calls: int, samples: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(worker, "seconds", lambda call, calls=1: once)
    prepared = worker.Prepared.of(lambda: None, threads=1)
    assert (prepared.calls, prepared.samples) == (calls, samples)


def test_a_disturbed_sample_decides_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    taken = iter([1e-3, 9e-3, 2e-3, 8e-3, 1e-3])
    monkeypatch.setattr(worker, "seconds", lambda call, calls: next(taken) * calls)
    assert worker.Prepared(lambda: None, calls=1, samples=5, warm_up=-1.0).sample() == 2e-3


def test_other_memory_is_read_before_each_call(monkeypatch: pytest.MonkeyPatch) -> None:
    done: list[object] = []
    monkeypatch.setattr(processors, "evict", lambda size, threads: done.append((size, threads)))
    contender = object.__new__(worker.Worker)  # whose own beginning is for a process of its own
    contender._threads = 2
    contender._prepared = {0: worker.Prepared(lambda: done.append("call"), calls=2, samples=1, warm_up=-1.0)}
    assert 0 <= contender.time(0, evicted=3)["seconds"] < 1
    assert done == [(3 << 20, 2), "call", (3 << 20, 2), "call"]
