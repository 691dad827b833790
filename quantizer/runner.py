"""One experiment from its first event to its last.

    began -> [baseline evaluation] -> [calibrate, quantize] -> [evaluate] -> finished

The runner tells what happens to a callback and knows nothing of who listens: the recorder, a console, a pipe.
"""

import random
from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar, cast

import numpy as np
import torch

from quamba.corpora import calibration_documents, perplexity_text
from quamba.errors import QuambaError
from quamba.evals import evaluate_tasks, perplexity
from quamba.flow.calibrate import TokenBatch, batch_documents
from quamba.flow.convert import size_bytes
from quamba.flow.quantize import quantize
from quamba.models.loading import LoadedModel, load_model
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
) -> Outcome:
    """Run one experiment.

    Args:
        config: examined (`quantizer.surroundings.examine`).
        experiment_id: its id.
        command: what the user typed.
        environment: where it runs (`quantizer.environment.describe`).
        emit: called with every event, from this thread; Began first, Finished last, whatever happens.
        check_cancelled: called often; raises ExperimentCancelledError to stop.

    Raises:
        ExperimentFailedError: it failed.
        ExperimentCancelledError: it was stopped; so does KeyboardInterrupt, which is passed on.
    """
    run = _Run(config, emit, check_cancelled)
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
        message = f"out of memory on {config.device}: try a smaller --batch_size (it was {config.batch_size})"
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
    clock: PhaseClock = field(default_factory=PhaseClock)
    layers: list[LayerReport] = field(default_factory=list)
    recorded_tensors: int = 0
    results: ExperimentResults = field(default_factory=ExperimentResults)
    sizes: dict[str, int] = field(default_factory=dict)
    reorder: ReorderReport | None = None

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
        )

    def run(self) -> None:
        config = self.config
        _set_seeds()
        self.clock.enter("load")
        self.emit(Progressed(ProgressReport("load", 0, 1, "models")))
        # Data first: what cannot be fetched is found before the model is.
        documents = None
        if config.quantize:
            documents = calibration_documents(config.calib_path, config.calib_data_num, config.shuffle_seed)
        for name in config.ppl_paths if config.eval_ppl else ():
            if name.startswith("wikitext2"):
                perplexity_text(name)
        loaded = load_model(config.model_path, config.device)
        self.sizes = {"before": size_bytes(loaded.model), "after": size_bytes(loaded.model)}
        self.emit(FactsKnown(model=loaded.facts(), model_size_bytes=self.sizes))
        self.emit(Progressed(ProgressReport("load", 1, 1, "models")))
        baseline = None
        if config.eval_baseline:
            self.clock.enter("evaluate_fp16")
            for baseline in self._evaluations(loaded, "fp16:"):
                self.emit(Evaluated(ExperimentResults(fp16=baseline)))
        if documents is not None:
            token_ids = loaded.tokenizer.encode_batch(documents.texts)
            batches = batch_documents(token_ids, config.batch_size, config.calib_seqlen)
            self.emit(
                FactsKnown(
                    calibration={
                        "data_set": documents.source,
                        "digest": documents.digest,
                        "seed": documents.seed,
                        "documents": len(documents.texts),
                        "document_ids": _as_ranges(documents.ids),
                        "tokens": sum(int(batch.lengths.sum()) for batch in batches),
                    }
                )
            )
            self._quantize(loaded, batches)
        self.clock.enter("evaluate")
        for results in self._evaluations(loaded, ""):
            self.results = replace(results, fp16=baseline)
            self.emit(Evaluated(self.results))

    def _quantize(self, loaded: LoadedModel, batches: list[TokenBatch]) -> None:
        config = self.config
        recipe = config.recipe()
        self.clock.enter("calibrate")
        layers = config.stats_layers.of(loaded.config.n_layer)
        for report in quantize(loaded.model, recipe, batches, report_layers=layers):
            if isinstance(report, ProgressReport):
                self.clock.enter(report.phase)
                self.emit(Progressed(report))
            elif isinstance(report, ReorderReport):
                self.reorder = report
                self.emit(Reordered(report))
            else:
                self.recorded_tensors += 1
                if len(self.layers) < SUMMARY_TENSORS:
                    self.layers.append(report)
                self.emit(LayerMeasured(report))
        self.sizes["after"] = size_bytes(loaded.model)
        self.emit(FactsKnown(model_size_bytes=dict(self.sizes)))

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


def _set_seeds() -> None:
    random.seed(SEED)
    np.random.seed(SEED)
    torch.manual_seed(SEED)


def _as_ranges(ids: tuple[int, ...]) -> str | list[int]:
    """Document numbers: "0-511" where they run without a gap, else all of them."""
    if len(ids) > 1 and ids == tuple(range(ids[0], ids[0] + len(ids))):
        return f"{ids[0]}-{ids[-1]}"
    return list(ids)


__all__ = ["run_experiment"]
