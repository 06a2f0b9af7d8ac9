"""Benchmarks of the engine: ``python -m benchmarks``. One command each; ratios, not absolute figures."""
