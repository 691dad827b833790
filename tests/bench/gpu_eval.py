"""Scores of models on a GPU against the CPU's, and how long LAMBADA takes there.

    python -m tests.bench.gpu_eval scores MODEL... [--device cpu] [--schemes FP32 ...] [--against FILE] [--output FILE]
    python -m tests.bench.gpu_eval lambada MODEL... [--schemes FP32 quamba2-w8a8]

`scores` measures a model, unquantized and by each preset, on the last words of LAMBADA and of the shipped passages and
on WikiText-2 (both data sets from the assets folder, QLOG_ASSETS). `gpu_references.jsonl` is what it wrote on a CPU, a
line for each model and scheme; with `--against` that file lines have what is between them and those of the same model,
scheme and sizes. `lambada` times the task of 5153 passages, from a loaded model to its results, by lm-eval: first with
all that a process loads and compiles once, then again. On a GPU both keep their lines in gpu_results.jsonl. With --own
neither uses mamba-ssm and causal-conv1d, whose kernels for Mamba-2 take a minute to tune themselves in a process.
"""

import argparse
import json
import math
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from quamba.corpora import shipped
from quamba.evals import evaluate_tasks
from quamba.evals.local_tasks import lambada_file, last_word, passage
from quamba.evals.perplexity import perplexity
from quamba.evals.scoring import TokenRequest, score_requests
from quamba.kernels import ops
from quamba.models.loading import load_model
from quamba.reports import PerplexityReport, TaskReport
from tests.bench.gpu_timing import RESULTS, copy_bandwidth, facts, keep
from tests.bench.quality import Subject, quantized

REFERENCES = Path(__file__).parent / "gpu_references.jsonl"
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
    for directory in options.models:
        loaded = load_model(directory, options.device)
        for scheme, model, _ in quantized(loaded, options.documents, set(options.schemes)):
            start = time.perf_counter()
            row = {"model": Path(directory).name, "scheme": scheme, "documents": options.documents}
            row |= measured(Subject(model, loaded.tokenizer), options)
            row |= {"device": loaded.device.type, "seconds": round(time.perf_counter() - start, 2)}
            sizes = f"{row['lambada']}, {row['cloze']}, {row['windows']}"
            yield {"case": f"scores {row['model']} {scheme} ({sizes})", **_NO_TIMES, **row, **distance(row, references)}


def lambada(options: argparse.Namespace) -> Iterator[dict[str, Any]]:
    for directory in options.models:
        loaded = load_model(directory, options.device)
        for scheme, model, _ in quantized(loaded, options.documents, set(options.schemes)):
            times = []
            for _ in range(2):
                start = time.perf_counter()
                *_, report = evaluate_tasks(
                    Subject(model, loaded.tokenizer), ["lambada_local"], batch_size=options.batch_size
                )
                times.append(round((time.perf_counter() - start) * 1e3))
            if not isinstance(report, TaskReport):
                raise TypeError(f"the evaluation ended with {report}")
            found = {metric.name: metric.value for metric in report.metrics}
            name = f"{Path(directory).name} {scheme}"
            yield {"case": f"LAMBADA {name}", **_NO_TIMES, "ours_ms": times[0], "again_ms": times[1], **found}


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    verbs = parser.add_subparsers(required=True)
    for name, run, schemes in (("scores", scores, SCHEMES), ("lambada", lambada, SCHEMES[:2])):
        verb = verbs.add_parser(name)
        verb.add_argument("models", nargs="+")
        verb.add_argument("--device", default="auto")
        verb.add_argument("--schemes", nargs="*", default=list(schemes))
        verb.add_argument("--documents", type=int, default=32, help="of calibration, 512 tokens each at most")
        verb.add_argument("--batch_size", type=int, default=None)
        verb.add_argument("--own", action="store_true", help="without the kernels of other packages")
        verb.add_argument("--output", type=Path, default=None, help="append the lines to this file")
        verb.set_defaults(run=run)
        if run is scores:
            verb.add_argument("--lambada", type=int, default=None, help="only so many passages")
            verb.add_argument("--cloze", type=int, default=None, help="only so many passages")
            verb.add_argument("--windows", type=int, default=None, help="only so many windows of WikiText-2")
            verb.add_argument("--against", type=Path, default=None, help="lines to compare with")
    options = parser.parse_args()
    torch.manual_seed(0)
    if options.own:
        ops.load_functions = dict
    on_gpu = options.device != "cpu" and torch.cuda.is_available()
    common = facts(copy_bandwidth()) if on_gpu and options.output is None else {}
    torch.cuda.empty_cache()
    for row in options.run(options):
        print(json.dumps(row), flush=True)
        if options.output is not None:
            with options.output.open("a", encoding="utf-8") as file:
                file.write(json.dumps(row) + "\n")
        elif on_gpu:
            keep(RESULTS, [row], common)


if __name__ == "__main__":
    main()
