"""The collector: owns the one append-only store of experiments and serves it. Runs without torch."""
