"""lm-eval's side: the model as its `TemplateLM`, and one task run by its evaluator. The only importer of lm_eval."""

import logging
import math
import random
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import cache, partial
from typing import Any

import datasets
import lm_eval.api.metrics
import lm_eval.api.task
import numpy as np
import torch
from lm_eval.api.instance import Instance
from lm_eval.api.model import TemplateLM
from lm_eval.evaluator import evaluate
from lm_eval.tasks import TaskManager
from lm_eval.utils import get_rolling_token_windows, make_disjoint_window

from quamba.errors import QuambaError, TaskError
from quamba.evals.generation import generate, parse_options
from quamba.evals.interface import Evaluable
from quamba.evals.relay import Compute, here
from quamba.evals.scoring import TokenRequest, score_requests
from quamba.evals.task_files import LOCAL_TASKS, TaskFile, find_task
from quamba.reports import MetricReport, TaskReport

BOOTSTRAP_DRAWS = 1000
# lm-eval's own defaults.
RANDOM_SEED, OTHER_SEED = 0, 1234

# Called with requests done and requests in all, of one kind of request of one task.
Progress = Callable[[int, int], None]


class EvaluatedLM(TemplateLM):  # type: ignore[misc]  # lm_eval ships no types
    """A loaded model as lm-eval drives it.

    Args:
        loaded: the model.
        batch_size: inputs in one forward pass; None: what suits the device (`quamba.evals.batching`).
        max_length: tokens that the model reads at most; longer contexts lose their beginning.
        on_progress: called as requests are done.
        compute: runs what the model computes.
    """

    def __init__(
        self,
        loaded: Evaluable,
        *,
        batch_size: int | None,
        max_length: int,
        on_progress: Progress,
        compute: Compute = here,
    ) -> None:
        super().__init__()
        self._loaded = loaded
        self._batch_size = batch_size
        self._max_length = max_length
        self._on_progress = on_progress
        self._compute = compute

    @property
    def eot_token_id(self) -> int:
        """The end of a text; the prefix of a text without context."""
        return self._loaded.tokenizer.eos_token_id

    @property
    def max_length(self) -> int:
        """Tokens that the model reads at most."""
        return self._max_length

    @property
    def tokenizer_name(self) -> str:
        """The tokenizer's name and digest, for lm-eval's caches of requests."""
        return f"{self._loaded.tokenizer.name}-{self._loaded.tokenizer.digest}".replace("/", "__").replace(":", "-")

    def tok_encode(self, string: str, add_special_tokens: bool | None = None, **_: Any) -> list[int]:  # noqa: ARG002
        """Ids of a text; nothing is ever added."""
        return self._loaded.tokenizer.encode(string)

    def loglikelihood(self, requests: Sequence[Instance], disable_tqdm: bool = False) -> list[tuple[float, bool]]:
        """Log probability of each (context, continuation)'s continuation, and whether it is the greedy one.

        As `TemplateLM` does it, with all texts tokenised at once.
        """
        pairs = [request.args for request in requests]
        encoded = self._encode_pairs([(str(context), str(continuation)) for context, continuation in pairs])
        return self._loglikelihood_tokens(
            [(pair, *tokens) for pair, tokens in zip(pairs, encoded, strict=True)], disable_tqdm=disable_tqdm
        )

    def _encode_pairs(self, pairs: Sequence[tuple[str, str]]) -> list[tuple[list[int], list[int]]]:
        """Ids of contexts and of continuations; spaces at a context's end go to its continuation."""
        moved = [(c.rstrip(), c[len(c.rstrip()) :] + continuation) for c, continuation in pairs]
        # Answers to one question share their context: each text is tokenised once.
        texts = list(dict.fromkeys(text for c, continuation in moved for text in (c, c + continuation, continuation)))
        ids = dict(zip(texts, self._loaded.tokenizer.encode_batch(texts), strict=True))
        encoded = []
        for context, continuation in moved:
            context_ids = ids[context]
            # Where the end of the context and the continuation make one token nothing would be left to score.
            continuation_ids = ids[context + continuation][len(context_ids) :] or ids[continuation]
            if not context_ids:
                prefixed = continuation_ids[:1] == [self.prefix_token_id]
                context_ids = [self.prefix_token_id]
                continuation_ids = continuation_ids[1:] if prefixed else continuation_ids
            encoded.append((context_ids, continuation_ids))
        return encoded

    def _loglikelihood_tokens(
        self, requests: Sequence[tuple[Any, list[int], list[int]]], disable_tqdm: bool = False, **_: Any
    ) -> list[tuple[float, bool]]:
        """Score tokenised requests; the model reads at most `max_length` tokens before each."""
        del disable_tqdm  # progress is told by `on_progress`
        token_requests = [_token_request(context, target, self._max_length) for _, context, target in requests]
        counted = self._counted(len(requests))
        return score_requests(
            self._loaded, token_requests, batch_size=self._batch_size, on_scored=counted, compute=self._compute
        )

    def loglikelihood_rolling(self, requests: Sequence[Instance], disable_tqdm: bool = False) -> list[float]:
        """Log probability of whole texts, in windows of `max_length` that score each token once."""
        ids = self._loaded.tokenizer.encode_batch([str(request.args[0]) for request in requests])
        windows = [
            (number, *make_disjoint_window(pair))
            for number, tokens in enumerate(ids)
            for pair in get_rolling_token_windows(tokens, self.prefix_token_id, self._max_length, context_len=1)
        ]
        totals = [0.0] * len(requests)
        for (number, _, _), (log_prob, _) in zip(
            windows, self._loglikelihood_tokens(windows, disable_tqdm=disable_tqdm), strict=True
        ):
            totals[number] += log_prob
        return totals

    def generate_until(self, requests: Sequence[Instance], disable_tqdm: bool = False) -> list[str]:
        """Continue each context as its options say."""
        del disable_tqdm
        contexts = self._loaded.tokenizer.encode_batch([str(request.args[0]) for request in requests])
        options = [parse_options(request.args[1]) for request in requests]
        counted = self._counted(len(requests))
        results = [""] * len(requests)
        for wanted in dict.fromkeys(options):
            room = self._max_length - wanted.max_new_tokens
            if room < 1:
                raise TaskError(
                    f"{wanted.max_new_tokens} tokens to generate leave no room for a text in {self._max_length}"
                )
            numbers = [number for number, option in enumerate(options) if option == wanted]
            prompts = [contexts[number][-room:] or [self.prefix_token_id] for number in numbers]
            for number, text in zip(
                numbers,
                generate(
                    self._loaded,
                    prompts,
                    wanted,
                    batch_size=self._batch_size,
                    streams=numbers,
                    on_generated=counted,
                    compute=self._compute,
                ),
                strict=True,
            ):
                results[number] = text
        return results

    def _counted(self, total: int) -> Callable[[int], None]:
        """Adds up what is done and tells it."""
        done = 0

        def tell(more: int) -> None:
            nonlocal done
            done += more
            self._on_progress(done, total)

        return tell


def run_task(
    loaded: Evaluable,
    name: str,
    *,
    num_fewshot: int,
    limit: int | None,
    batch_size: int | None,
    max_length: int,
    on_progress: Progress,
    compute: Compute = here,
) -> list[TaskReport]:
    """Evaluate one task, group or tag; groups and tags give a report for each of their tasks too.

    Raises:
        TaskError: the task is unknown, its data cannot be had, or it needs what this model does not offer.
    """
    model = EvaluatedLM(loaded, batch_size=batch_size, max_length=max_length, on_progress=on_progress, compute=compute)
    with _quiet_lm_eval(), _seeded():
        built = _build(name)
        for task in built["tasks"].values():
            _refuse_unsupported(task)
            # A task that fixes its examples at none means it.
            if task.get_config("num_fewshot") != 0:
                task.set_config(key="num_fewshot", value=num_fewshot)
            task.set_fewshot_seed(seed=OTHER_SEED)
        results = evaluate(lm=model, task_dict=built, limit=limit, bootstrap_iters=BOOTSTRAP_DRAWS, log_samples=False)
    return [
        TaskReport(
            task=task,
            metrics=_metrics(values),
            n=int(values.get("sample_len") or results["n-samples"].get(task, {}).get("effective", 0)),
            num_fewshot=int(results["n-shot"].get(task) or 0),
            limit=limit,
            version=str(results["versions"].get(task)),
        )
        for task, values in results["results"].items()
    ]


def _token_request(context: list[int], target: list[int], max_length: int) -> TokenRequest:
    """The model reads all but the last token; what is too long loses its beginning."""
    if len(target) > max_length:
        raise TaskError(f"a continuation of {len(target)} tokens is longer than the {max_length} that the model reads")
    return TokenRequest(tuple((context + target)[-(max_length + 1) : -1]), tuple(target))


def _build(name: str) -> Any:
    """lm-eval's task objects: from the task's file alone where that is enough, else from its whole index."""
    file = find_task(name)
    try:
        return _manager(file).load([str(file.path) if file.kind == "task" else name])
    except QuambaError:
        raise
    except Exception as error:  # data sets, their scripts and the hub's client fail in many ways
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise TaskError(
            f"task {name!r} cannot be loaded ({reason}); without a download there are "
            f"{', '.join(sorted(path.stem for path in LOCAL_TASKS.glob('*.yaml')))}"
        ) from error


def _manager(file: TaskFile) -> Any:
    return TaskManager(include_defaults=False) if file.kind == "task" else _full_manager()


@cache
def _full_manager() -> Any:
    """lm-eval's manager with its whole index: about 10 seconds."""
    return TaskManager()


def _refuse_unsupported(task: Any) -> None:
    """Raise TaskError for tasks that run code or show pictures."""
    if getattr(task, "UNSAFE_CODE", False):
        raise TaskError(f"task {task.task_name!r} runs code that a model wrote: not supported")
    if getattr(task, "MULTIMODAL", False):
        raise TaskError(f"task {task.task_name!r} needs pictures or sound: not supported")


def _metrics(values: dict[str, Any]) -> tuple[MetricReport, ...]:
    """lm-eval's "metric,filter" entries; the filter is named where there is one."""
    found = []
    for key, value in values.items():
        metric, comma, filtered = key.partition(",")
        if not comma or metric.endswith("_stderr") or not isinstance(value, int | float | np.number):
            continue
        stderr = values.get(f"{metric}_stderr,{filtered}")
        found.append(
            MetricReport(
                name=metric if filtered == "none" else key,
                value=float(value),
                stderr=float(stderr) if isinstance(stderr, int | float | np.number) else math.nan,
            )
        )
    return tuple(found)


def bootstrap_stderr(f: Callable[[Sequence[Any]], float], xs: Sequence[Any], iters: int) -> float:
    """Standard error of f(xs) over resamples; the numbers of lm-eval's own function at up to 1000 of them.

    That one prints, and starts a pool of forked processes, which a process with threads of gRPC must not do.
    """
    # numpy's generator of this name in the state of `random.Random(0)` draws what that one's `choices` draws, at once.
    _, state, _ = random.Random(0).getstate()  # noqa: S311
    generator = np.random.RandomState()
    generator.set_state(("MT19937", np.array(state[:-1], dtype=np.uint32), state[-1], 0, 0.0))
    values = np.fromiter(xs, dtype=object, count=len(xs))
    draws = (np.floor(generator.random_sample(len(xs)) * len(xs)).astype(np.int64) for _ in range(iters))
    return float(lm_eval.api.metrics.sample_stddev([f(values[draw].tolist()) for draw in draws]))


@contextmanager
def _quiet_lm_eval() -> Iterator[None]:
    """Without lm-eval's log, progress bars and process pools; everything is as before afterwards."""
    loggers = [logging.getLogger(name) for name in ("lm_eval", "huggingface_hub", "datasets")]
    levels = [logger.level for logger in loggers]
    bars = datasets.are_progress_bars_disabled()
    replaced = [
        (lm_eval.api.task, "tqdm", partial(lm_eval.api.task.tqdm, disable=True)),
        (lm_eval.api.metrics, "bootstrap_stderr", bootstrap_stderr),
    ]
    originals = [getattr(module, name) for module, name, _ in replaced]
    try:
        for logger in loggers:
            logger.setLevel(logging.ERROR)
        datasets.disable_progress_bars()
        for module, name, value in replaced:
            setattr(module, name, value)
        yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
        if not bars:
            datasets.enable_progress_bars()
        for (module, name, _), original in zip(replaced, originals, strict=True):
            setattr(module, name, original)


@contextmanager
def _seeded() -> Iterator[None]:
    """The global generators as lm-eval seeds them, and as they were afterwards."""
    states = random.getstate(), np.random.get_state(), torch.get_rng_state()
    try:
        random.seed(RANDOM_SEED)
        np.random.seed(OTHER_SEED)
        torch.manual_seed(OTHER_SEED)
        yield
    finally:
        random.setstate(states[0])
        np.random.set_state(states[1])
        torch.set_rng_state(states[2])


__all__ = ["EvaluatedLM", "bootstrap_stderr", "run_task"]
