"""Scores of models on a GPU against the CPU's, and how long LAMBADA takes there.

    python -m tests.bench.gpu_eval [--times MODEL...] [--scores MODEL...] [--schemes FP32 ...] [--against FILE] [--own]
    python -m tests.bench.gpu_eval --scores MODEL... --device cpu --output FILE

Times are of the task of 5153 passages, from a loaded model to its results: first with all that a process loads and
compiles once, then again; by lm-eval, or by what it calls of this package where it is not installed. A MODEL that is no
directory but one of `SIZES` gets random weights and mamba-2m's tokenizer: what takes time depends on sizes alone.

Scores are those of last words, of LAMBADA and of the shipped passages, and perplexities on WikiText-2 (both data sets
from the assets folder, QLOG_ASSETS), unquantized and by each preset. `gpu_references.jsonl` is what they were on a CPU,
a line for each model and scheme; with `--against` that file lines have what is between them and the one there of the
same model, scheme and sizes. On a GPU lines are kept in gpu_results.jsonl. With --own Mamba-2 goes without mamba-ssm's
chunk scan, which takes a minute to tune itself where Triton has not kept what it found.
"""

import argparse
import importlib.util
import json
import math
import time
from collections.abc import Iterator
from dataclasses import replace
from itertools import chain
from pathlib import Path
from typing import Any

import torch

from quamba.corpora import shipped
from quamba.evals import evaluate_tasks
from quamba.evals.local_tasks import lambada_file, last_word, passage
from quamba.evals.perplexity import perplexity
from quamba.evals.scoring import TokenRequest, score_requests
from quamba.kernels import ops
from quamba.models.config import parse_config
from quamba.models.loading import LoadedModel, load_model
from quamba.models.published import random_model
from quamba.reports import PerplexityReport
from tests.bench.gpu_timing import RESULTS, copy_bandwidth, facts, keep
from tests.bench.quality import Subject, quantized

SMALL = Path(__file__).resolve().parents[2] / "models" / "mamba-2m"
# Of checkpoints that are not shipped, by name: d_model and n_layer, the rest as mamba-2m.
SIZES = {"mamba-29m": (512, 16)}
SCHEMES = ("FP32", "quamba2-w8a8", "quamba2-w4a8", "quamba2-w4a16")
# What has to be equal where two lines are compared.
_SAME = ("model", "scheme", "documents", "lambada", "cloze", "windows")
_NO_TIMES = {"ours_ms": None, "baseline_ms": None, "ratio": None, "sqnr_db": None, "bandwidth_share": None}


def last_words(subject: Subject, text: str, limit: int | None, batch_size: int | None) -> tuple[float, float, int]:
    """Accuracy, perplexity and number of passages, the last words' as lm-eval scores them."""
    documents = [json.loads(line) for line in text.splitlines()][:limit]
    contexts = subject.tokenizer.encode_batch([passage(document) for document in documents])
    wholes = subject.tokenizer.encode_batch([passage(document) + last_word(document) for document in documents])
    requests = [
        TokenRequest(tuple(whole[:-1]), tuple(whole[len(context) :]))
        for context, whole in zip(contexts, wholes, strict=True)
    ]
    scores = score_requests(subject, requests, batch_size=batch_size)
    accuracy = sum(greedy for _, greedy in scores) / len(scores)
    return accuracy, math.exp(-math.fsum(total for total, _ in scores) / len(scores)), len(scores)


def measured(subject: Subject, options: argparse.Namespace) -> dict[str, Any]:
    lambada_text = lambada_file().read_text(encoding="utf-8")
    cloze_text = shipped("cloze.jsonl").read_text(encoding="utf-8")
    row: dict[str, Any] = {}
    for name, text, limit in (("lambada", lambada_text, options.lambada), ("cloze", cloze_text, options.cloze)):
        accuracy, surprise, count = last_words(subject, text, limit, options.batch_size)
        row |= {name: count, f"{name}_accuracy": accuracy, f"{name}_perplexity": surprise}
    *_, report = perplexity(subject, "wikitext2", batch_size=options.batch_size, max_windows=options.windows)
    if not isinstance(report, PerplexityReport):
        raise TypeError(f"the measurement ended with {report}")
    return row | {"windows": report.windows, "wikitext2_perplexity": report.perplexity}


def distance(row: dict[str, Any], references: list[dict[str, Any]]) -> dict[str, float]:
    """Points of accuracy, and per cent of perplexity, from the reference to a line; empty where there is none."""
    for reference in references:
        if all(row[key] == reference[key] for key in _SAME):
            points = {
                f"{name}_points": round(100 * (row[f"{name}_accuracy"] - reference[f"{name}_accuracy"]), 3)
                for name in ("lambada", "cloze")
            }
            parts = {
                f"{name}_percent": round(100 * (row[f"{name}_perplexity"] / reference[f"{name}_perplexity"] - 1), 4)
                for name in ("lambada", "cloze", "wikitext2")
            }
            return points | parts
    return {}


def scores(options: argparse.Namespace) -> Iterator[dict[str, Any]]:
    references: list[dict[str, Any]] = []
    if options.against is not None:
        references = [json.loads(line) for line in options.against.read_text(encoding="utf-8").splitlines()]
    for directory in options.scores:
        loaded = load_model(directory, options.device)
        if options.own and loaded.config.family == "mamba2":
            without_other_packages()
        for scheme, model, _ in quantized(loaded, options.documents, set(options.schemes)):
            start = time.perf_counter()
            row = {"model": Path(directory).name, "scheme": scheme, "documents": options.documents}
            row |= measured(Subject(model, loaded.tokenizer), options)
            row |= {"device": loaded.device.type, "seconds": round(time.perf_counter() - start, 2)}
            sizes = f"{row['lambada']}, {row['cloze']}, {row['windows']}"
            yield {"case": f"scores {row['model']} {scheme} ({sizes})", **_NO_TIMES, **row, **distance(row, references)}


def without_other_packages() -> None:
    """From here on plain PyTorch and this package's kernels."""
    ops.load_functions = dict
    ops.implementations.cache_clear()


def times(options: argparse.Namespace) -> Iterator[dict[str, Any]]:
    for name in options.times:
        loaded = load_model(name, options.device) if Path(name).is_dir() else random_weights(name, options.device)
        what = "lm-eval" if importlib.util.find_spec("lm_eval") else "without lm-eval"
        weights = "" if Path(name).is_dir() else ", random weights"
        for scheme, model, _ in quantized(loaded, options.documents, set(options.schemes) & set(SCHEMES[:2])):
            taken = [seconds_of_lambada(Subject(model, loaded.tokenizer), options.batch_size) for _ in range(2)]
            first, again = (round(seconds * 1e3) for seconds in taken)
            case = f"LAMBADA {Path(name).name} {scheme}, {what}{weights}"
            yield {"case": case, **_NO_TIMES, "ours_ms": first, "again_ms": again}


def random_weights(name: str, device: str) -> LoadedModel:
    loaded = load_model(str(SMALL), device)
    d_model, n_layer = SIZES[name]
    values = json.loads((SMALL / "config.json").read_text(encoding="utf-8")) | {"d_model": d_model, "n_layer": n_layer}
    config = parse_config(values, Path(name))
    return replace(loaded, config=config, model=random_model(config, loaded.device))


def seconds_of_lambada(subject: Subject, batch_size: int | None) -> float:
    """From the loaded model to accuracy and perplexity."""
    start = time.perf_counter()
    if importlib.util.find_spec("lm_eval"):
        list(evaluate_tasks(subject, ["lambada_local"], batch_size=batch_size))
    else:
        last_words(subject, lambada_file().read_text(encoding="utf-8"), None, batch_size)
    return time.perf_counter() - start


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--times", nargs="*", default=[], metavar="MODEL")
    parser.add_argument("--scores", nargs="*", default=[], metavar="MODEL")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--schemes", nargs="*", default=list(SCHEMES))
    parser.add_argument("--documents", type=int, default=32, help="of calibration, 512 tokens each at most")
    parser.add_argument("--batch_size", type=int, default=None)
    parser.add_argument("--lambada", type=int, default=None, help="score only so many passages")
    parser.add_argument("--cloze", type=int, default=None, help="score only so many passages")
    parser.add_argument("--windows", type=int, default=None, help="only so many windows of WikiText-2")
    parser.add_argument("--against", type=Path, default=None, help="lines to compare with")
    parser.add_argument("--own", action="store_true", help="Mamba-2 without other packages' kernels")
    parser.add_argument("--output", type=Path, default=None, help="append the lines to this file, and keep none")
    options = parser.parse_args()
    torch.manual_seed(0)
    on_gpu = options.device != "cpu" and torch.cuda.is_available()
    common = facts(copy_bandwidth()) if on_gpu and options.output is None else {}
    torch.cuda.empty_cache()
    for row in chain(times(options), scores(options)):
        print(json.dumps(row), flush=True)
        if options.output is not None:
            with options.output.open("a", encoding="utf-8") as file:
                file.write(json.dumps(row) + "\n")
        elif on_gpu:
            keep(RESULTS, [row], common)


if __name__ == "__main__":
    main()
