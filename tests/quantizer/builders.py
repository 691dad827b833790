"""Events and reports to test with."""

from quamba.reports import LayerReport, ProgressReport, ValueRange
from quantizer.events import Began, ExperimentResults, Finished, LayerMeasured, Progressed, Status
from quantizer.ids import new_experiment_id


def began(experiment_id: str | None = None) -> Began:
    return Began(
        experiment_id or new_experiment_id(),
        "2026-01-02 03:04:05",
        1_767_323_045.25,
        "quantizer run some-model --quantize",
        {"model": "some-model", "w_bits": 8, "a_bits": 8, "percentile_alpha": None, "quantize": True},
        {"host": "somewhere", "torch": None},
    )


def layer_report(index: int = 0, op: str = "x_proj:input") -> LayerReport:
    before = ValueRange(-2.0 - index, 3.0)
    return LayerReport(
        name=f"layer_{index}.{op}",
        before=before,
        after=before.inside(1.5),
        percentile_alpha=0.9995,
        clipped_ratio=0.0005,
        measured_clipped_ratio=0.0004,
        count=1000,
        absmax=3.0,
        scale=1.5 / 127,
        bits=8,
        observer="ema",
        mean=0.1,
        std=0.7,
        median=0.0,
        p99=1.4,
        sqnr_db=33.0,
        saturated_ratio=0.0004,
        statistics={"kurtosis": 3.0},
    )


def measured(index: int = 0) -> LayerMeasured:
    return LayerMeasured(layer_report(index))


def progressed(done: int = 1, total: int = 2, phase: str = "calibrate") -> Progressed:
    return Progressed(ProgressReport(phase, done, total, "documents"))


def finished(status: Status = Status.COMPLETED) -> Finished:
    return Finished(status, "", 1.5, (("load", 0.5), ("calibrate", 1.0)))


RESULTS = ExperimentResults(accuracy=0.5, perplexity=9.5)
