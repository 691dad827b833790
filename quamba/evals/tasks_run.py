"""Tasks evaluated in the background, their progress as an iterator."""

import contextlib
import queue
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext

import torch

from quamba.errors import TaskError
from quamba.evals.interface import Evaluable
from quamba.evals.relay import Call, Relay
from quamba.evals.task_files import check_tasks
from quamba.reports import ProgressReport, TaskReport

MAX_LENGTH = 2048
PROGRESS_SECONDS = 0.5
ABANDON_SECONDS = 0.05


class _Abandoned(Exception):  # noqa: N818
    """Nobody wants the results any more."""


def evaluate_tasks(
    loaded: Evaluable,
    tasks: Sequence[str],
    *,
    num_fewshot: int = 0,
    limit: int | None = None,
    batch_size: int | None = None,
    max_length: int = MAX_LENGTH,
) -> Iterator[ProgressReport | TaskReport]:
    """Evaluate lm-eval tasks, one after the other.

    Args:
        loaded: the model.
        tasks: names of shipped tasks, or of lm-eval's tasks, groups and tags; each once.
        num_fewshot: examples before each request, but for tasks that fix them at none.
        limit: only the first documents of each task.
        batch_size: inputs in one forward pass; results do not depend on it. None: what suits the device
            (`quamba.evals.batching`).
        max_length: tokens that the model reads at most.

    Yields:
        Progress of the running task, and its report (of a group or a tag: the reports of its tasks too) when it ends.

    Raises:
        TaskError: a task is unknown or cannot be run.
    """
    if (
        (batch_size is not None and batch_size < 1)
        or max_length < 2
        or num_fewshot < 0
        or (limit is not None and limit < 1)
    ):
        raise TaskError(
            f"batch_size {batch_size}, max_length {max_length}, num_fewshot {num_fewshot} and limit {limit} "
            "must be at least 1, 2, 0 and 1"
        )
    check_tasks(tasks)
    for name in dict.fromkeys(tasks):
        yield from _evaluate_task(loaded, name, num_fewshot, limit, batch_size, max_length)


def _evaluate_task(
    loaded: Evaluable, name: str, num_fewshot: int, limit: int | None, batch_size: int | None, max_length: int
) -> Iterator[ProgressReport | TaskReport]:
    """lm-eval calls the model back, so it runs in a thread; what it tells, and what it wants computed, comes through a
    queue."""
    phase = f"evaluate:{name}"
    yield ProgressReport(phase, 0, 0, "requests")
    told: queue.SimpleQueue[ProgressReport | Call | list[TaskReport] | BaseException] = queue.SimpleQueue()
    abandoned = threading.Event()
    last_told = time.monotonic()

    def on_progress(done: int, total: int) -> None:
        nonlocal last_told
        if abandoned.is_set():
            raise _Abandoned
        if done == total or time.monotonic() - last_told >= PROGRESS_SECONDS:
            last_told = time.monotonic()
            told.put(ProgressReport(phase, done, total, "requests"))

    def work() -> None:
        try:
            from quamba.evals.lm_eval_adapter import run_task

            with _on_device(loaded.device):
                told.put(
                    run_task(
                        loaded,
                        name,
                        num_fewshot=num_fewshot,
                        limit=limit,
                        batch_size=batch_size,
                        max_length=max_length,
                        on_progress=on_progress,
                        compute=Relay(told.put),
                    )
                )
        except BaseException as error:  # noqa: BLE001  # raised again where the iterator is read
            told.put(error)

    worker = threading.Thread(target=work, name=phase, daemon=True)
    worker.start()
    try:
        while isinstance(news := told.get(), ProgressReport | Call):
            if isinstance(news, Call):
                news.run()
            else:
                yield news
    finally:
        abandoned.set()
        while worker.is_alive():
            with contextlib.suppress(queue.Empty):
                left = told.get(timeout=ABANDON_SECONDS)
                if isinstance(left, Call):
                    left.result.set_exception(_Abandoned())
        worker.join()
    if isinstance(news, BaseException):
        raise news
    yield from news


def _on_device(device: torch.device) -> AbstractContextManager[object]:
    """Make `device` the thread's current one: threads start with the first GPU."""
    return torch.cuda.device(device) if device.type == "cuda" else nullcontext()


__all__ = ["MAX_LENGTH", "evaluate_tasks"]
