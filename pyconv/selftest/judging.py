"""How cases are judged: one after the other here, several at once by threads, or in a forked child.

A case is a question with its name, and its answer is what is wrong, or "". An exception is wrong. So is the end of the
child, whatever ends it: a fault there is a line of the report and not the end of the report.
"""

from __future__ import annotations

import faulthandler
import json
import os
import signal
import threading
import warnings
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

CALLERS = 4  # threads that call at once
_PATIENCE = 60.0  # seconds until a child that does not answer is ended


class Case(NamedTuple):
    """A question: what it is about, and a function that returns what is wrong."""

    about: str
    judge: Callable[[], str]


Cases = Iterable[Case]
Verdicts = Iterator[str]  # for each case: "", or what it is about and what is wrong


def _judge(case: Case) -> str:
    try:
        wrong = case.judge()
    except Exception as error:
        wrong = f"{type(error).__name__}: {error}"
    return wrong and f"{case.about}: {wrong}"


def here(cases: Cases) -> Verdicts:
    """Judge one case after the other."""
    return map(_judge, cases)


def in_threads(cases: Cases) -> Verdicts:
    """Judge several cases at once, by threads of one process."""
    with ThreadPoolExecutor(CALLERS) as pool:
        yield from pool.map(_judge, cases)


def in_child(cases: Cases) -> Verdicts:
    """Judge the cases in a forked child. If it ends early, the case that it was at is wrong, and the last."""
    reading, writing = os.pipe()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # Python's, of forks beside threads: they are the point
        child = os.fork()
    if child == 0:
        os.close(reading)
        _answer(cases, writing)
    os.close(writing)
    watchdog = threading.Timer(_PATIENCE, os.kill, (child, signal.SIGKILL))
    watchdog.start()
    about, verdict = "the child", None
    with os.fdopen(reading) as answers:
        for line in answers:
            about, verdict = json.loads(line)
            if verdict is not None:
                yield verdict
    watchdog.cancel()
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    if status < 0:
        yield f"{about}: ended by {signal.Signals(-status).name}"
    elif status:
        yield f"{about}: ended with status {status}"


def _answer(cases: Cases, pipe: int) -> None:
    """Be the child: before each case say which, after it the verdict."""
    status = 1
    try:
        faulthandler.disable()  # the parent tells
        with os.fdopen(pipe, "w") as answers:
            for case in cases:
                print(json.dumps((case.about, None)), file=answers, flush=True)
                print(json.dumps((case.about, _judge(case))), file=answers, flush=True)
        status = 0
    finally:
        os._exit(status)
