"""What the machine itself does: nothing but the machine may slow it down."""

from __future__ import annotations

import numpy as np

from pyconv.bench.yardsticks import copied_arrays


def test_the_target_of_the_copy_does_not_repeat_the_addresses_of_its_source() -> None:
    """Within a page: loads would wait for stores to other pages, as they do where a heap makes both arrays."""
    source, target = copied_arrays()
    apart = target.ctypes.data - source.ctypes.data
    assert 512 <= apart % 4096 <= 4096 - 512
    assert apart % 64 == 0
    assert source.shape == target.shape
    assert not np.shares_memory(source, target)
