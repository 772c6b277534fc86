"""Python in a process of its own, which sees the modules that the tests see.

Not in the source tree's directory: there `import pyconv` would find the sources, built or not, before the installed
package.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parent


def environment(**variables: str) -> dict[str, str]:
    """Make an environment in which a process finds what this one finds."""
    return {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path)), **variables}


def python(*command: object, cwd: Path = HERE, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run an interpreter to its end; return its output and status."""
    return subprocess.run(
        [sys.executable, *map(str, command)],
        env=environment(**variables),
        cwd=cwd,
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
