"""The parent's side of a worker: start it, ask it, end it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import TracebackType
from typing import Any, Self

from pyconv._system import read_text
from pyconv.bench.processors import cpus

# As many threads as asked for, whatever the library reads.
_THREAD_VARIABLES = (
    "OMP_NUM_THREADS",
    "MKL_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "NUMEXPR_NUM_THREADS",
)
# Threads that wait for more work keep their processors busy, for milliseconds after a call (measured: GNU's OpenMP 11,
# onnxruntime 60). Where the system does not tell which do, so many seconds have to be enough; and none waits for longer
# than a library that never rests.
_SPIN, _NEVER = 0.005, 0.3
_TASKS = "/proc/{}/task"


class RefusedError(Exception):
    """A contender does not do what it was asked to: why, in a few words."""


def is_build(name: str) -> bool:
    """Tell a directory that holds another build of pyconv from the name of a library."""
    return "/" in name


class Contender:
    """A process that runs one contender with a number of threads, on as many processors.

    A `name` with a slash is a directory with another build of pyconv, of which its own worker is run.
    """

    def __init__(self, name: str, threads: int, isa: str = "", *, keep_memory: bool = True) -> None:
        self.name = name
        self.threads = threads
        runs = "pyconv" if is_build(name) else name
        config = {"name": runs, "threads": threads, "isa": isa, "keep_memory": keep_memory}
        self._errors = tempfile.TemporaryFile("w+")  # noqa: SIM115  closed with the process
        with _confined(threads):
            self._process = subprocess.Popen(
                [sys.executable, "-P", "-m", "pyconv.bench.worker", json.dumps(config)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=self._errors,
                text=True,
                env=_environment(threads, [os.path.abspath(name)] if is_build(name) else []),
                # Ctrl-C at the terminal is for the parent alone.
                process_group=0,
            )
        self._greeted = False

    def greet(self) -> None:
        """Wait until the process has started; not doing so at once lets several start at a time."""
        if not self._greeted:
            self._greeted = True
            self._receive()

    def ask(self, do: str, **arguments: Any) -> dict[str, Any]:
        """Send a request, and wait for the answer and until none of its threads is left running.

        Raises
        ------
        RefusedError
            It cannot be done, or the process has died.
        """
        self.greet()
        assert self._process.stdin is not None
        with suppress(BrokenPipeError):
            self._process.stdin.write(json.dumps({"do": do, **arguments}) + "\n")
            self._process.stdin.flush()
        try:
            return self._receive()
        finally:
            self._rest()

    def time(self, key: int, evicted: int = 0) -> float:
        """Time a sample of a prepared layer."""
        # Builds from before there was an eviction know no such argument.
        return float(self.ask("time", key=key, **({"evicted": evicted} if evicted else {}))["seconds"])

    def close(self) -> None:
        """End the process, whatever it is doing."""
        self._process.kill()
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout, self._errors):
            with suppress(OSError):
                if pipe is not None:
                    pipe.close()

    def _receive(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise RefusedError(self._last_words())
        answer: dict[str, Any] = json.loads(line)
        if not answer.pop("ok"):
            raise RefusedError(answer["why"])
        return answer

    def _rest(self) -> None:
        """Wait until its threads sleep: on the same processors it is another contender's turn."""
        latest = time.monotonic() + _NEVER
        while (running := _running(self._process.pid)) and time.monotonic() < latest:
            time.sleep(0.001)
        if running is None:
            time.sleep(_SPIN)

    def _last_words(self) -> str:
        """Say how the process ended."""
        status = self._process.wait()
        self._errors.seek(0)
        lines = self._errors.read().strip().splitlines()
        how = f"was killed by signal {-status}" if status < 0 else f"ended with status {status}"
        return f"its process {how}" + (f": {lines[-1][:200]}" if lines else "")

    def __enter__(self) -> Self:
        """Return itself."""
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        """End the process."""
        self.close()


def _running(pid: int) -> bool | None:
    """Tell whether a thread of a process runs, or would if it had a processor; None if the system does not tell."""
    tasks = _TASKS.format(pid)
    try:
        # The state follows the name, which is in parentheses and may hold some.
        return any(read_text(f"{tasks}/{task}/stat").rpartition(") ")[2].startswith("R") for task in os.listdir(tasks))
    except OSError:
        return None


@contextmanager
def _confined(threads: int) -> Iterator[None]:
    """Start a process on as many processors as it has threads, which no library can then exceed or mistake."""
    if not hasattr(os, "sched_setaffinity"):
        yield
        return
    allowed = os.sched_getaffinity(0)
    os.sched_setaffinity(0, cpus()[:threads])
    try:
        yield
    finally:
        os.sched_setaffinity(0, allowed)


def _environment(threads: int, first: list[str]) -> dict[str, str]:
    """Describe the environment of a worker: this one's, modules found in some directories, then where they are here."""
    path = os.pathsep.join(filter(None, [*first, *sys.path]))
    return {**os.environ, "PYTHONPATH": path, **dict.fromkeys(_THREAD_VARIABLES, str(threads))}
