"""The headline figures of an experiment: an accuracy and a perplexity, found independently of each other."""

from collections.abc import Sequence

from quamba.reports import MetricReport, PerplexityReport, TaskReport
from quantizer.events import ExperimentResults

# By preference. All are fractions of 1.
ACCURACY_METRICS = ("acc", "acc_norm", "exact_match", "em")
PERPLEXITY_METRICS = ("perplexity", "word_perplexity")


def results_of(
    tasks: Sequence[TaskReport],
    ppl: Sequence[PerplexityReport],
    fp16: ExperimentResults | None = None,
) -> ExperimentResults:
    """All results, with their headline figures.

    The accuracy is the first task's that has one. The perplexity is the first task's that has one, else the first data
    set's.
    """
    perplexity = _first(tasks, PERPLEXITY_METRICS)
    if perplexity is None and ppl:
        perplexity = ppl[0].perplexity
    return ExperimentResults(_first(tasks, ACCURACY_METRICS), perplexity, tuple(tasks), tuple(ppl), fp16)


def _first(tasks: Sequence[TaskReport], names: Sequence[str]) -> float | None:
    for task in tasks:
        for name in names:
            for metric in task.metrics:
                if _plain(metric) == name:
                    return metric.value
    return None


def _plain(metric: MetricReport) -> str:
    """The metric's name without lm-eval's filter: "exact_match,strict-match" is an exact_match."""
    return metric.name.partition(",")[0]


__all__ = ["results_of"]
