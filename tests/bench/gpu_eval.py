"""Scores of models on a GPU against the CPU's, and how long LAMBADA takes there.

    python -m tests.bench.gpu_eval scores MODEL... [--device cpu] [--schemes FP32 ...] [--output FILE] [--against FILE]

`scores` measures a model, unquantized and by each preset, on the last words of LAMBADA and of the shipped passages and
on WikiText-2 (both data sets from the assets folder, QLOG_ASSETS), and writes an object a line. `gpu_references.jsonl`
is what it wrote on a CPU; with `--against` each line tells how far it is from that one's of the same model and sizes.
"""

import argparse
import json
import math
import time
from pathlib import Path
from typing import Any

import torch

from quamba.corpora import shipped
from quamba.evals.local_tasks import lambada_file, last_word, passage
from quamba.evals.perplexity import perplexity
from quamba.evals.scoring import TokenRequest, score_requests
from quamba.models.loading import load_model
from quamba.reports import PerplexityReport
from tests.bench.quality import Subject, quantized

REFERENCES = Path(__file__).parent / "gpu_references.jsonl"
SCHEMES = ("FP32", "quamba2-w8a8", "quamba2-w4a8", "quamba2-w4a16")
# What has to be equal where two lines are compared.
_SAME = ("model", "scheme", "documents", "lambada", "cloze", "windows")


def last_words(subject: Subject, text: str, limit: int | None, batch_size: int | None) -> tuple[float, float, int]:
    """Accuracy, perplexity and number of passages, the last words' as lm-eval scores them."""
    documents = [json.loads(line) for line in text.splitlines()][:limit]
    requests = []
    for document in documents:
        context = subject.tokenizer.encode(passage(document))
        whole = subject.tokenizer.encode(passage(document) + last_word(document))
        requests.append(TokenRequest(tuple(whole[:-1]), tuple(whole[len(context) :])))
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


def distance(row: dict[str, Any], references: list[dict[str, Any]]) -> dict[str, float] | None:
    """Points of accuracy, and per cent of perplexity, between a line and its reference; None: there is none."""
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
    return None


def scores(options: argparse.Namespace) -> None:
    references = []
    if options.against is not None:
        references = [json.loads(line) for line in options.against.read_text(encoding="utf-8").splitlines()]
    for directory in options.models:
        loaded = load_model(directory, options.device)
        for scheme, model, _ in quantized(loaded, options.documents, set(options.schemes)):
            start = time.perf_counter()
            facts = {"model": Path(directory).name, "scheme": scheme, "documents": options.documents}
            row = facts | measured(Subject(model, loaded.tokenizer), options)
            row |= {"device": loaded.device.type, "seconds": round(time.perf_counter() - start, 2)}
            if options.output is not None:
                with options.output.open("a", encoding="utf-8") as file:
                    file.write(json.dumps(row) + "\n")
            print(
                json.dumps(row if options.against is None else row | {"distance": distance(row, references)}),
                flush=True,
            )


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    verbs = parser.add_subparsers(required=True)
    verb = verbs.add_parser("scores")
    verb.add_argument("models", nargs="+")
    verb.add_argument("--device", default="auto")
    verb.add_argument("--schemes", nargs="*", default=list(SCHEMES))
    verb.add_argument("--documents", type=int, default=32, help="of calibration, 512 tokens each at most")
    verb.add_argument("--lambada", type=int, default=None, help="only so many passages")
    verb.add_argument("--cloze", type=int, default=None, help="only so many passages")
    verb.add_argument("--windows", type=int, default=None, help="only so many windows of WikiText-2")
    verb.add_argument("--batch_size", type=int, default=None)
    verb.add_argument("--output", type=Path, default=None, help="append the lines to this file too")
    verb.add_argument("--against", type=Path, default=None, help="lines to compare with")
    verb.set_defaults(run=scores)
    options = parser.parse_args()
    torch.manual_seed(0)
    options.run(options)


if __name__ == "__main__":
    main()
