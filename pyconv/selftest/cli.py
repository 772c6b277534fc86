"""``python -m pyconv selftest``: what runs here, a line for each check, and a verdict."""

from __future__ import annotations

import time

from pyconv._config import show_config
from pyconv.selftest.checks import Check, checks

_WIDTH = 44
_TOLD = 3  # failures of a check that are printed


def main(seed: int = 0) -> int:
    """Run all checks; return the exit status."""
    show_config()
    print()
    start = time.perf_counter()
    wanted = list(checks(seed))
    failed = [passes(check) for check in wanted].count(False)
    took = time.perf_counter() - start
    skipped = sum(bool(check.skipped) for check in wanted)
    ran = len(wanted) - skipped
    verdict = f"{failed} of {ran} checks FAILED" if failed else f"{ran} checks passed"
    print(f"\n{verdict}, {f'{skipped} skipped, ' if skipped else ''}{took:.1f} s")
    return 1 if failed else 0


def passes(check: Check) -> bool:
    """Run a check and print its line; return whether nothing is wrong, as of one that is skipped."""
    print(f"{check.name:<{_WIDTH}}", end="", flush=True)  # first: should the process end, this says where
    if check.skipped:
        print(f" {'-':>5}  skipped: {check.skipped}")
        return True
    start = time.perf_counter()
    try:
        verdicts = list(check.verdicts())
    except Exception as error:  # an instruction set that cannot be loaded, say
        verdicts = [f"{type(error).__name__}: {error}"]
    wrong = [verdict for verdict in verdicts if verdict]
    outcome = "FAILED" if wrong or not verdicts else "ok"
    print(f" {len(verdicts):>5}  {outcome:<6} {time.perf_counter() - start:5.1f} s")
    for verdict in wrong[:_TOLD]:
        print(f"    {verdict}")
    if len(wrong) > _TOLD:
        print(f"    and {len(wrong) - _TOLD} more")
    return outcome == "ok"
