"""One side of the evaluation benchmark, in a process of its own so that its peak memory is its own.

    python -m tests.bench.cloze ours|transformers models/mamba-2m [RUNS]

Evaluates the first 192 cloze passages at batch 64, from a loaded model to accuracy and perplexity, and prints one JSON
object: {"seconds": [...], "accuracy": ..., "perplexity": ..., "peak_bytes": ...}.
"""

import json
import math
import resource
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

PASSAGES = 192
BATCH = 64
CLOZE = Path(__file__).resolve().parents[2] / "quamba" / "data" / "gutenberg" / "cloze.jsonl"

Scores = tuple[float, float]


def ours(model: str) -> Callable[[], Scores]:
    """This project: lm-eval through its adapter."""
    from quamba.evals import evaluate_tasks
    from quamba.models.loading import load_model
    from quamba.reports import TaskReport

    loaded = load_model(model)
    # What is imported on first use is no part of evaluating: the other side imports before it is timed, too.
    list(evaluate_tasks(loaded, ["gutenberg_cloze"], limit=1, batch_size=BATCH))

    def evaluate() -> Scores:
        reports = list(evaluate_tasks(loaded, ["gutenberg_cloze"], limit=PASSAGES, batch_size=BATCH))
        task = reports[-1]
        if not isinstance(task, TaskReport):
            raise TypeError(f"the evaluation ended with {task}")
        metrics = {metric.name: metric.value for metric in task.metrics}
        return metrics["acc"], metrics["perplexity"]

    return evaluate


def transformers(model: str) -> Callable[[], Scores]:
    """transformers' CPU path: its tokenizer, right-padded batches in the file's order, scores of the last word."""
    warnings.filterwarnings("ignore")
    from safetensors.torch import load_file
    from transformers import PreTrainedTokenizerFast

    from tests.quamba.test_models import to_transformers

    config = json.loads((Path(model) / "config.json").read_text())
    network = to_transformers(config, load_file(Path(model) / "model.safetensors"))
    tokenizer = PreTrainedTokenizerFast(tokenizer_file=str(Path(model) / "tokenizer.json"))
    texts = [json.loads(line)["text"] for line in CLOZE.read_text(encoding="utf-8").splitlines()[:PASSAGES]]

    @torch.no_grad()
    def evaluate() -> Scores:
        right, total = 0, 0.0
        for start in range(0, len(texts), BATCH):
            batch = texts[start : start + BATCH]
            whole = [tokenizer.encode(text) for text in batch]
            context = [len(tokenizer.encode(text.rsplit(" ", 1)[0])) for text in batch]
            longest = max(len(ids) for ids in whole)
            input_ids = torch.tensor([ids + [0] * (longest - len(ids)) for ids in whole])
            logits = network(input_ids, use_cache=False).logits
            for row, ids in enumerate(whole):
                scores = torch.log_softmax(logits[row, context[row] - 1 : len(ids) - 1].float(), dim=-1)
                target = torch.tensor(ids[context[row] :])
                total += float(scores.gather(1, target[:, None]).sum())
                right += bool((scores.argmax(dim=-1) == target).all())
        return right / len(texts), math.exp(-total / len(texts))

    return evaluate


def main() -> None:
    """Run one side."""
    side, model, runs = sys.argv[1], sys.argv[2], int(sys.argv[3]) if len(sys.argv) > 3 else 1
    evaluate = {"ours": ours, "transformers": transformers}[side](model)
    result: dict[str, Any] = {"seconds": []}
    for _ in range(runs):
        start = time.perf_counter()
        result["accuracy"], result["perplexity"] = evaluate()
        result["seconds"].append(time.perf_counter() - start)
    result["peak_bytes"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    print(json.dumps(result))


if __name__ == "__main__":
    main()
