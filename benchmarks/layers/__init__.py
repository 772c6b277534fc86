"""Lists of layers: descriptor files that `pyconv.bench.presets` reads."""
