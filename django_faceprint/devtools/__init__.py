"""Made-up records and the sandbox's plans, for demos and benchmarks."""
