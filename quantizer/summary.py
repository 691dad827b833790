"""The text that ends an experiment: what was asked, what clipping did, what was measured, where it is recorded."""

import math
from collections.abc import Iterable, Iterator, Mapping

from qlog.v1.language import pad, width

from quamba.reports import ReorderReport, TaskReport
from quantizer.config import RunConfig
from quantizer.events import ExperimentResults
from quantizer.outcome import Outcome
from quantizer.recorder import Delivery
from quantizer.summary_words import WORDS

_RULE = "-" * 78
_NAME_COLUMNS = 16
# The columns of a table of tensors: heading, least width.
_NUMBERS = (("range_before", 12), ("range_after", 12), ("reduction", 9), ("clipped", 9))


def summary(outcome: Outcome, delivery: Delivery, language: str = "en") -> str:
    """Several lines of text without a newline at the end; `language`: "en" or "zh"."""
    words = WORDS[language]
    sections = (
        _configuration(outcome.config, words),
        _activations(outcome, words),
        [_line(words["reordering"], _reordering(outcome.reorder, words))],
        _sizes(outcome, words),
        _artifact(outcome, words),
        _results(outcome.results, words),
        [_line(words["duration"], _duration(outcome.duration_s, words)), recorded(delivery, language)],
    )
    lines = [line for section in sections if section for line in (*section, "")]
    return "\n".join([_RULE, *lines[:-1], _RULE])


def recorded(delivery: Delivery, language: str = "en") -> str:
    """Where the record is, in one line."""
    words = WORDS[language]
    if delivery.delivered:
        kind = "recorded_text" if delivery.number is None else "recorded_numbered"
    else:
        kind = "recorded_lost" if delivery.lost else "recorded_later"
    text = words[kind].format(
        number=delivery.number, id=delivery.experiment_id, collector=delivery.collector, spool=delivery.spool
    )
    return _line(words["recorded"], text)


def _line(name: str, text: str) -> str:
    return f"{pad(name, _NAME_COLUMNS)} {text}"


def _heading(text: str) -> list[str]:
    return [text] if text else []


def _configuration(config: RunConfig, words: Mapping[str, str]) -> list[str]:
    return [*_heading(words["configuration"]), *(_line(words[name], text) for name, text in _choices(config, words))]


def _choices(config: RunConfig, words: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    yield "model", config.model
    if not config.quantized:
        yield "quantization", words["none"]
        return
    saved = words["stored"] if config.stored else ""
    alpha = words["default"] if config.percentile_alpha is None else str(config.percentile_alpha)
    yield "quantization", f"W{config.w_bits}A{'X' if config.hybrid else config.a_bits}{saved}"
    yield "alpha", f"{alpha} ({config.recipe().observer_kind})"
    yield "rotation", config.rotation
    yield "grouping", words["on" if config.group_heads else "off"]
    yield "gptq", words["on" if config.apply_gptq else "off"]
    bits = words["bits"].format(bits=config.w_bits)
    ends = (bits if chosen else words["float"] for chosen in (config.quantize_embedding, config.quantize_lm_head))
    yield "embedding_head", ", ".join(ends)
    if not config.stored:
        yield (
            "calibration",
            words["calibration_text"].format(
                data=config.calib_data, num=config.calib_data_num, seqlen=config.calib_seqlen
            ),
        )


def _activations(outcome: Outcome, words: Mapping[str, str]) -> list[str]:
    if not outcome.layers:
        return []
    rows = [
        (report.name, (report.before.range, report.after.range, report.range_reduction, report.measured_clipped_ratio))
        for report in outcome.layers
    ]
    before, after, reduction, clipped = (
        _mean(column) for column in zip(*(numbers for _, numbers in rows), strict=True)
    )
    rows.append((words["average"], (before, after, reduction, clipped)))
    names = max(width(words["activations"]), *(width(name) for name, _ in rows))
    sizes = [max(least, width(words[heading])) for heading, least in _NUMBERS]
    headings = [words[heading] for heading, _ in _NUMBERS]
    lines = [_row(words["activations"], names, headings, sizes)]
    for name, (before, after, reduction, clipped) in rows:
        cells = (f"{before:.4f}", f"{after:.4f}", f"{reduction:.2%}", f"{clipped:.4%}")
        lines.append(_row(name, names, cells, sizes))
    if outcome.recorded_tensors > len(outcome.layers):
        lines.append(words["of_recorded"].format(shown=len(outcome.layers), recorded=outcome.recorded_tensors))
    return lines


def _row(name: str, columns: int, cells: Iterable[str], sizes: Iterable[int]) -> str:
    return "  ".join(
        (pad(name, columns), *(pad(cell, size, right=True) for cell, size in zip(cells, sizes, strict=True)))
    )


def _mean(values: Iterable[float]) -> float:
    listed = list(values)
    return math.fsum(listed) / len(listed)


def _reordering(report: ReorderReport | None, words: Mapping[str, str]) -> str:
    if report is None:
        return words["reordering_off"]
    return words["reordering_text"].format(
        layers=report.total_layers,
        average=f"{report.avg_range_reduction:.2f} %",
        alone=f"{report.avg_range_reduction_grouping_only:.2f} %",
    )


def _sizes(outcome: Outcome, words: Mapping[str, str]) -> list[str]:
    before, after = outcome.model_size_bytes.get("before"), outcome.model_size_bytes.get("after")
    if not before or not after or before == after:
        return []
    text = words["model_size_text"].format(before=before / 1e6, after=after / 1e6, times=before / after)
    return [_line(words["model_size"], text)]


def _artifact(outcome: Outcome, words: Mapping[str, str]) -> list[str]:
    if not outcome.artifact:
        return []
    kind = "artifact_reused" if outcome.artifact["reused"] else "artifact_saved"
    return [_line(words["artifact"], words[kind].format(path=outcome.artifact["path"]))]


def _results(results: ExperimentResults, words: Mapping[str, str]) -> list[str]:
    lines = [_line(name, text) for name, text in _headline(results, words)]
    if lines or results.tasks or results.ppl:
        lines = [*_heading(words["results"]), *lines]
    lines += [f"  {task.task}: {_metrics(task, words)}" for task in results.tasks]
    for report in results.ppl:
        text = words["data_set"].format(perplexity=report.perplexity, windows=report.windows)
        lines.append(f"  {report.data_set}: {text}")
    if results.fp16 is not None:
        lines += [_line(words["unquantized"].format(name=name), text) for name, text in _headline(results.fp16, words)]
    return lines


def _headline(results: ExperimentResults, words: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    if results.accuracy is not None:
        yield words["accuracy"], f"{results.accuracy:.4f} ({results.accuracy:.2%})"
    if results.perplexity is not None:
        yield words["perplexity"], f"{results.perplexity:.4f}"


def _metrics(task: TaskReport, words: Mapping[str, str]) -> str:
    parts = []
    for metric in task.metrics:
        error = "" if math.isnan(metric.stderr) else f" ± {metric.stderr:.4f}"
        parts.append(f"{metric.name} {metric.value:.4f}{error}")
    return words["task"].format(metrics=", ".join(parts), n=task.n, shots=task.num_fewshot)


def _duration(seconds: float, words: Mapping[str, str]) -> str:
    minutes, rest = divmod(seconds, 60)
    hours, minutes = divmod(int(minutes), 60)
    kind = "hours" if hours else "minutes" if minutes else "seconds"
    return words[kind].format(hours=hours, minutes=minutes, rest=rest)


__all__ = ["recorded", "summary"]
