"""The names of a store's files in its log directory; `collector.store` says what each is."""

LOG_NAME = "percentile_experiments.jsonl"
INFLIGHT_NAME = "percentile_experiments.inflight.sqlite"
INDEX_NAME = "percentile_experiments.index.sqlite"
META_NAME = "percentile_experiments.meta.jsonl"
LOCK_NAME = "percentile_experiments.lock"

__all__ = ["INDEX_NAME", "INFLIGHT_NAME", "LOCK_NAME", "LOG_NAME", "META_NAME"]
