"""One experiment from its first event to its last.

    began -> [baseline evaluation] -> [calibrate, quantize] -> [evaluate] -> finished

The runner tells what happens to a callback and knows nothing of who listens: the recorder, a console, a pipe.
"""

import random
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeVar, cast

import numpy as np
import torch

from quamba.errors import QuambaError
from quamba.evals import evaluate_tasks, perplexity
from quamba.flow.artifacts import Artifact
from quamba.flow.quantize import convert
from quamba.models.loading import LoadedModel, load_model
from quamba.models.precision import in_dtype
from quamba.models.saving import size_bytes
from quamba.reports import LayerReport, PerplexityReport, ProgressReport, ReorderReport, TaskReport
from quantizer.clock import PhaseClock
from quantizer.config import SEED, RunConfig
from quantizer.errors import ExperimentCancelledError, ExperimentFailedError
from quantizer.events import (
    Began,
    Evaluated,
    ExperimentEvent,
    ExperimentResults,
    FactsKnown,
    Finished,
    LayerMeasured,
    Progressed,
    Reordered,
    Status,
)
from quantizer.outcome import SUMMARY_TENSORS, Outcome
from quantizer.results import results_of
from quantizer.workbench import Workbench

Emit = Callable[[ExperimentEvent], None]
R = TypeVar("R", TaskReport, PerplexityReport)


def run_experiment(
    config: RunConfig,
    *,
    experiment_id: str,
    command: str,
    environment: Mapping[str, Any],
    emit: Emit,
    check_cancelled: Callable[[], None] = lambda: None,
    bench: Workbench | None = None,
) -> Outcome:
    """Run one experiment.

    Args:
        config: examined (`quantizer.surroundings.examine`).
        experiment_id: its id.
        command: what the user typed.
        environment: where it runs (`quantizer.environment.describe`).
        emit: called with every event, from this thread; Began first, Finished last, whatever happens.
        check_cancelled: called often; raises ExperimentCancelledError to stop.
        bench: what it shares with other experiments of a sweep; None: it is alone.

    Raises:
        ExperimentFailedError: it failed.
        ExperimentCancelledError: it was stopped; so does KeyboardInterrupt, which is passed on.
    """
    run = _Run(config, emit, check_cancelled, bench or Workbench([config]), _versions(environment))
    emit(Began.now(experiment_id, command, config.record(), environment))
    try:
        run.run()
    except ExperimentCancelledError as error:
        run.finish(Status.CANCELLED, str(error))
        raise
    except KeyboardInterrupt:
        run.finish(Status.CANCELLED, "stopped by the user")
        raise
    except QuambaError as error:
        run.finish(Status.FAILED, str(error))
        raise ExperimentFailedError(str(error)) from error
    except (MemoryError, torch.OutOfMemoryError) as error:
        size = config.batch_size or "the default"
        message = f"out of memory on {config.device}: try a smaller --batch_size (it was {size})"
        run.finish(Status.FAILED, message)
        raise ExperimentFailedError(message) from error
    except Exception as error:
        reason = " ".join(str(error).split())[:500]
        message = f"internal error: {type(error).__name__}: {reason} (QLOG_DEBUG=1 shows where)"
        run.finish(Status.FAILED, message)
        raise ExperimentFailedError(message) from error
    return run.finish(Status.COMPLETED, "")


@dataclass
class _Run:
    config: RunConfig
    listener: Emit
    check_cancelled: Callable[[], None]
    bench: Workbench
    versions: Mapping[str, Any]
    clock: PhaseClock = field(default_factory=PhaseClock)
    layers: list[LayerReport] = field(default_factory=list)
    recorded_tensors: int = 0
    results: ExperimentResults = field(default_factory=ExperimentResults)
    sizes: dict[str, int] = field(default_factory=dict)
    reorder: ReorderReport | None = None
    artifact: Mapping[str, Any] = field(default_factory=dict)

    def emit(self, event: ExperimentEvent) -> None:
        self.check_cancelled()
        self.listener(event)

    def finish(self, status: Status, error: str) -> Outcome:
        """The last event; it is told even when the experiment is cancelled."""
        duration_s = self.clock.total_s()
        self.listener(Finished(status, error, duration_s, self.clock.phases(), self.reorder))
        return Outcome(
            self.config,
            tuple(self.layers),
            self.recorded_tensors,
            self.results,
            dict(self.sizes),
            duration_s,
            self.reorder,
            self.artifact,
        )

    def run(self) -> None:
        config = self.config
        _fix_arithmetic()
        self.clock.enter("load")
        self.emit(Progressed(ProgressReport("load", 0, 1, "models")))
        bench = self.bench
        bench.find_data()
        loaded = bench.loaded
        self.sizes = {"before": bench.size_before, "after": bench.size_before}
        self.emit(FactsKnown(model=bench.model_facts, model_size_bytes=dict(self.sizes)))
        self.emit(Progressed(ProgressReport("load", 1, 1, "models")))
        if config.eval_baseline:
            self._measure_baseline(loaded)
        loaded = self._quantize(loaded) if config.quantize else in_dtype(loaded, config.dtype)
        bench.end_experiment()
        self.clock.enter("evaluate")
        for results in self._evaluations(loaded, ""):
            self.results = replace(results, fp16=bench.baseline)
            self.emit(Evaluated(self.results))

    def _measure_baseline(self, loaded: LoadedModel) -> None:
        if self.bench.baseline is None:
            self.clock.enter("evaluate_fp16")
            for baseline in self._evaluations(in_dtype(loaded, self.config.dtype), "fp16:"):
                self.emit(Evaluated(ExperimentResults(fp16=baseline)))
                self.bench.baseline = baseline
        else:
            self.emit(Evaluated(ExperimentResults(fp16=self.bench.baseline)))

    def _quantize(self, base: LoadedModel) -> LoadedModel:
        """The model that is to be evaluated: made now, or kept by an earlier run of the same recipe."""
        config, bench = self.config, self.bench
        recipe, data = config.recipe(), bench.calibration_facts
        layers = config.stats_layers.of(base.config.n_layer)
        self.emit(FactsKnown(calibration=data))
        artifact = None
        if config.artifacts:
            artifact = Artifact.of(
                Path(config.artifacts), base, recipe, {**data, "sequence_length": config.calib_seqlen}
            )
            kept = artifact.reports(layers)
            if kept is not None:
                return self._reuse(artifact, kept)
        self.clock.enter("calibrate")
        for progress in bench.calibrate():
            self.emit(Progressed(progress))
        loaded, calibration = bench.take()
        if recipe.percentile_alpha == "auto":
            chosen = calibration.clippings(recipe).items()
            alphas = {name: way.percentile_alpha for name, way in chosen if name.startswith("layer_")}
            self.emit(FactsKnown(calibration={**data, "percentile_alphas": alphas}))
        self.clock.enter("quantize")
        reports = []
        for report in convert(loaded.model, recipe, calibration):
            if isinstance(report, ProgressReport):
                self.emit(Progressed(report))
            else:
                reports.append(report)
                self._tell(report)
        self.sizes["after"] = size_bytes(loaded.model)
        self.emit(FactsKnown(model_size_bytes=dict(self.sizes)))
        if artifact is not None:
            self.clock.enter("save")
            self.emit(Progressed(ProgressReport("save", 0, 1, "models")))
            digest = artifact.save(loaded.model, base, recipe, calibration, data, reports, self.versions)
            self._tell_artifact(artifact.path, digest, reused=False)
        return loaded

    def _reuse(self, artifact: Artifact, reports: Sequence[LayerReport | ReorderReport]) -> LoadedModel:
        loaded = load_model(str(artifact.path), self.config.device)
        for report in reports:
            self._tell(report)
        self.sizes["after"] = size_bytes(loaded.model)
        self.emit(FactsKnown(model_size_bytes=dict(self.sizes)))
        self._tell_artifact(artifact.path, loaded.digest, reused=True)
        return loaded

    def _tell(self, report: LayerReport | ReorderReport) -> None:
        if isinstance(report, ReorderReport):
            self.reorder = report
            self.emit(Reordered(report))
            return
        self.recorded_tensors += 1
        if len(self.layers) < SUMMARY_TENSORS:
            self.layers.append(report)
        self.emit(LayerMeasured(report))

    def _tell_artifact(self, path: Path, digest: str, *, reused: bool) -> None:
        self.artifact = {"path": str(path.absolute()), "digest": digest, "reused": reused}
        self.emit(FactsKnown(artifact=self.artifact))

    def _evaluations(self, loaded: LoadedModel, prefix: str) -> Iterator[ExperimentResults]:
        """Evaluate as asked; yields all results so far after each new one."""
        config = self.config
        tasks: list[TaskReport] = []
        ppl: list[PerplexityReport] = []
        for shots in config.shots:
            reports = evaluate_tasks(
                loaded, config.tasks, num_fewshot=shots, limit=config.limit, batch_size=config.batch_size
            )
            for report in self._progressing(reports, prefix):
                earlier = [task.num_fewshot for task in tasks if task.task.partition("@")[0] == report.task]
                if report.num_fewshot in earlier:
                    continue  # It fixes its examples itself: asked again, it is the same.
                # The same task with other examples needs a name of its own.
                name = f"{report.task}@{report.num_fewshot}shot" if earlier else report.task
                tasks.append(replace(report, task=name))
                yield results_of(tasks, ppl)
        data_sets = zip(config.ppl_datasets, config.ppl_paths, strict=True) if config.eval_ppl else ()
        for name, path in data_sets:
            measured = perplexity(loaded, path, batch_size=config.batch_size, max_windows=config.max_windows)
            for measurement in self._progressing(measured, prefix, f"perplexity:{name}"):
                ppl.append(replace(measurement, data_set=name))
                yield results_of(tasks, ppl)

    def _progressing(self, reports: Iterator[ProgressReport | R], prefix: str, phase: str = "") -> Iterator[R]:
        # Closed at once when the experiment is stopped: an evaluation may work in a thread of its own.
        with closing(cast("Generator[ProgressReport | R, None, None]", reports)):
            for report in reports:
                if isinstance(report, ProgressReport):
                    self.emit(Progressed(replace(report, phase=prefix + (phase or report.phase))))
                else:
                    yield report


def _versions(environment: Mapping[str, Any]) -> dict[str, Any]:
    """Of the program, for a saved model."""
    return {name: environment[name] for name in ("qlog_ssm", "git_sha", "git_dirty", "python") if name in environment}


def _fix_arithmetic() -> None:
    # Whatever the environment says: a GPU gives the numbers of a CPU.
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    random.seed(SEED)
    np.random.seed(SEED)
    torch.manual_seed(SEED)


__all__ = ["run_experiment"]
