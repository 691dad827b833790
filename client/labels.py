"""Every word that tables say, by key, in English and (`client.labels_zh`) in Chinese."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from qlog.v1.language import LANGUAGES, language_of

LABELS: Mapping[str, str] = {
    # columns of a list
    "number": "#",
    "number_of_line": "number",
    "id": "id",
    "time": "time",
    "model": "model",
    "bits": "bits",
    "alpha": "alpha",
    "grouping": "grouping",
    "gptq": "GPTQ",
    "accuracy": "accuracy",
    "perplexity": "perplexity",
    "status": "status",
    "duration": "duration",
    # sections
    "experiment": "Experiment",
    "experiments": "Experiments",
    "configuration": "Configuration",
    "model_facts": "Model",
    "results": "Results",
    "results_compared": "Results",
    "activation_statistics": "Activation statistics",
    "reorder_effect": "Reorder effect",
    "distribution": "Distribution",
    "user_statistics": "Statistics of your own",
    "environment": "Environment",
    "calibration": "Calibration",
    "model_size": "Model size",
    "artifact": "Saved model",
    "phases": "Time by phase",
    "dropped": "Events lost",
    "other": "Further keys",
    "results_fp16": "Results of the unquantized model",
    "jobs": "Jobs",
    # facts
    "command": "command",
    "error": "error",
    "schema_version": "schema version",
    "progress": "progress",
    # tensors
    "tensor": "tensor",
    "before_clipping": "before clipping",
    "after_clipping": "after clipping",
    "range": "range",
    "range_before": "range before",
    "range_after": "range after",
    "range_reduction": "range reduction",
    "clipped": "clipped",
    "measured": "measured",
    "scale": "scale",
    "sqnr": "SQNR (dB)",
    "before_reorder": "before reordering",
    "after_reorder": "after reordering",
    "grouping_only": "grouping only",
    "groups": "groups",
    "layers_affected": "layers affected",
    "average_range_reduction": "average range reduction",
    "enabled": "enabled",
    "layer": "layer",
    "panels": "panels",
    # results
    "task": "task",
    "metric": "metric",
    "value": "value",
    "stderr": "± stderr",
    "documents": "documents",
    "shots": "shots",
    "limit": "limit",
    "version": "version",
    # comparison
    "key": "key",
    "difference": "difference",
    "points": "points",
    "exceeds": "exceeds its standard error",
    "within": "within its standard error",
    "no_differences": "no differences",
    "absent": "(none)",
    "ended": "ended",
    "unquantized": "unquantized",
    "tags": "tags",
    "note": "note",
    "archived": "archived",
    "amended": "completed later",
    # a check
    "findings": "Findings",
    "no_damage": "no damage",
    "severity": "severity",
    "kind": "kind",
    "file": "file",
    "offset": "offset",
    "message": "message",
    # an import
    "imported": "imported",
    "already_present": "already present",
    "rejected": "rejected",
    # jobs
    "job": "job",
    "experiment_of_job": "experiment",
    "state": "state",
    "queue": "queue",
    "device": "device",
    "submitted": "submitted",
}


# What the process speaks: one command, one language.
_spoken: list[Mapping[str, str]] = [LABELS]


def speak(language: str) -> None:
    """Say everything from now on in one of LANGUAGES."""
    if language == "zh":
        from client.labels_zh import LABELS_ZH

        _spoken[0] = LABELS_ZH
    else:
        _spoken[0] = LABELS


@contextmanager
def speaking(language: str) -> Iterator[None]:
    """Say what is said in a block in one of LANGUAGES."""
    before = _spoken[0]
    speak(language)
    try:
        yield
    finally:
        _spoken[0] = before


def label(key: str) -> str:
    """The word for a key.

    Raises:
        KeyError: there is none; a mistake of the program.
    """
    return _spoken[0][key]


__all__ = ["LABELS", "LANGUAGES", "label", "language_of", "speak", "speaking"]
