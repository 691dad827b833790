"""Experiments as a collector sends them, made of a few words."""

from collections.abc import Mapping
from typing import Any

from qlog.v1 import common_pb2 as pb

IDS = tuple(f"0199c0de-7a3{place}-7c11-9a52-3f1c8d0e4b67" for place in range(10))


def value(item: Any) -> pb.Value:
    match item:
        case None:
            return pb.Value(null_value=pb.NULL_KIND_UNSPECIFIED)
        case bool():
            return pb.Value(bool_value=item)
        case int():
            return pb.Value(int_value=item)
        case float():
            return pb.Value(double_value=item)
        case str():
            return pb.Value(string_value=item)
        case list():
            return pb.Value(list_value=pb.ListValue(values=[value(part) for part in item]))
        case _:
            return pb.Value(object_value=pb.FieldList(fields=fields(item)))


def fields(items: Mapping[str, Any]) -> list[pb.Field]:
    return [pb.Field(name=name, value=value(item)) for name, item in items.items()]


def interval(low: float, high: float) -> pb.ValueRange:
    return pb.ValueRange(min=low, max=high, range=high - low)


def tensor(name: str = "layer_0.x_proj:input", **more: Any) -> pb.LayerStats:
    stats: dict[str, Any] = {
        "before_percentile": interval(-127.35, 156.82),
        "after_percentile": interval(-120.5, 145.3),
        "percentile_alpha": 0.9995,
        "clipped_ratio": 0.0005,
        "range_reduction": 0.0646,
        "measured_clipped_ratio": 0.00041,
        "count": 1 << 20,
        "absmax": 156.82,
        "scale": 1.144,
        "bits": 8,
        "observer": "ema",
        "sqnr_db": 31.5,
    }
    return pb.LayerStats(name=name, **{**stats, **more})


def config(**more: Any) -> pb.ExperimentConfig:
    keys: dict[str, Any] = {
        "model": "mamba-2m",
        "w_bits": 8,
        "a_bits": 8,
        "group_heads": False,
        "apply_gptq": False,
        "calib_data_num": 512,
        "calib_seqlen": 512,
    }
    other = fields({"quantize": True, "observer": "ema"})
    return pb.ExperimentConfig(**{**keys, **more}, other=other)


def results(accuracy: float = 0.5205, perplexity: float = 9.621) -> pb.Results:
    task = pb.TaskResult(
        task="gutenberg_cloze",
        metrics=[pb.Metric(name="acc", value=accuracy, stderr=0.0113), pb.Metric(name="perplexity", value=perplexity)],
        n=1000,
        num_fewshot=0,
        version="1.0",
    )
    return pb.Results(
        accuracy=accuracy,
        perplexity=perplexity,
        tasks=[task],
        ppl=[pb.DatasetPerplexity(data_set="gutenberg", perplexity=12.25)],
    )


def experiment(number: int | None = 0, **more: Any) -> pb.Experiment:
    keys: dict[str, Any] = {
        "experiment_id": IDS[(number or 0) % len(IDS)],
        "timestamp": "2025-11-05 15:30:00",
        "command": "quantizer run mamba-2m --quantize",
        "config": config(),
        "layer_stats": [tensor()],
        "reorder_summary": pb.ReorderSummary(enabled=False),
        "results": results(),
        "status": pb.EXPERIMENT_STATUS_COMPLETED,
        "duration_s": 83.25,
        "schema_version": 1,
        "environment": fields({"torch": "2.13.0", "host": "gpu1"}),
        "model": fields({"family": "mamba1", "n_layer": 6}),
    }
    built = pb.Experiment(**{**keys, **more})
    if number is not None:
        built.number = number
    return built


def legacy(number: int) -> pb.Experiment:
    """A line of the earlier logger: the fixed keys only."""
    return pb.Experiment(
        number=number, timestamp="2024-05-01 09:00:00", command="python main.py", config=config(), results=results()
    )


def corrupt(number: int) -> pb.Experiment:
    return pb.Experiment(
        number=number, status=pb.EXPERIMENT_STATUS_CORRUPT, error="line 3 at byte 812: the checksum does not match"
    )


def begin_event(**more: Any) -> pb.Event:
    return pb.Event(
        begin=pb.Begin(timestamp="2025-11-05 15:30:00", command="quantizer run mamba-2m", config=config(**more))
    )


def progress_event(phase: str, done: int, total: int, unit: str = "documents") -> pb.Event:
    return pb.Event(progress=pb.Progress(phase=phase, done=done, total=total, unit=unit))


def run_events() -> list[pb.Event]:
    """A short run, from its first event to its last."""
    return [
        begin_event(),
        progress_event("calibrate", 0, 2),
        pb.Event(heartbeat=pb.Heartbeat()),
        progress_event("calibrate", 2, 2),
        pb.Event(layer_stats=tensor()),
        pb.Event(evaluation_result=pb.EvaluationResult(results=results())),
        pb.Event(finish=pb.Finish(status=pb.EXPERIMENT_STATUS_COMPLETED, duration_s=83.25)),
    ]
