"""What each ingredient of the recipe is worth on a trained model: the README's table.

    python -m tests.bench.quality MODEL [--device cuda] [--only NAME ...] [--lambada N] [--windows N] [--output FILE]

Each recipe is built from one sweep over the same calibration documents and measured on LAMBADA (as lm-eval's
lambada_openai scores it) and WikiText-2, both read from the assets folder (QLOG_ASSETS). A JSON object a recipe is
printed as it is done: {"model", "recipe", "device", "accuracy", "lambada_perplexity", "wikitext2", "divergence", ...}.
`divergence` is the mean over WikiText-2's tokens of KL(float || quantized), in nats: a damaged model can be lucky in
perplexity, but not in this.
"""

import argparse
import copy
import json
import math
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from quamba.corpora import calibration_documents, perplexity_text
from quamba.evals.local_tasks import lambada_file, last_word, passage
from quamba.evals.scoring import TokenRequest, score_requests
from quamba.flow.batches import batch_documents
from quamba.flow.calibrate import Calibration
from quamba.flow.quantize import convert
from quamba.flow.recipe import Recipe
from quamba.models.config import Family
from quamba.models.loading import LoadedModel, load_model
from quamba.models.tokenizer import Tokenizer
from quamba.nn.model import MambaLM
from quamba.presets import PRESETS
from quamba.transforms.rotation import rotate_model

WINDOW = 2048
# Rows of logits, and windows, at a time.
_ROWS = 2048
_WINDOWS_AT_ONCE = 8


def recipes(family: Family) -> dict[str, Recipe]:
    """What is compared, by the names in the table."""
    grouped = family == "mamba2"
    found = {
        "W8A8": Recipe(rotate=False),
        "W8A8, rotated": Recipe(),
        **({"W8A8, rotated, grouped": Recipe(group_heads=True)} if grouped else {}),
        "quamba2-w8a8": PRESETS["quamba2-w8a8"].recipe(family),
    }
    for name, a_bits in (("W4A8", 8), ("W4A16", 16)):
        groups = grouped and a_bits == 8
        found[f"{name}, rounded"] = Recipe(w_bits=4, a_bits=a_bits, group_heads=groups)
        found[f"{name}, GPTQ"] = Recipe(w_bits=4, a_bits=a_bits, group_heads=groups, apply_gptq=True)
        preset = f"quamba2-{name.lower()}"
        found[preset] = PRESETS[preset].recipe(family)
    return found


@dataclass(frozen=True)
class Subject:
    """A model with a tokenizer, as scoring takes it."""

    model: MambaLM
    tokenizer: Tokenizer

    @property
    def device(self) -> torch.device:
        """Where it lies."""
        return self.model.device


def lambada(subject: Subject, limit: int | None, batch_size: int) -> tuple[float, float, float]:
    """Accuracy, its standard error and the perplexity of the last word."""
    documents = [json.loads(line) for line in lambada_file().read_text(encoding="utf-8").splitlines()][:limit]
    requests = []
    for document in documents:
        context = subject.tokenizer.encode(passage(document))
        whole = subject.tokenizer.encode(passage(document) + last_word(document))
        requests.append(TokenRequest(tuple(whole[:-1]), tuple(whole[len(context) :])))
    scores = score_requests(subject, requests, batch_size=batch_size)
    accuracy = sum(greedy for _, greedy in scores) / len(scores)
    error = math.sqrt(accuracy * (1 - accuracy) / (len(scores) - 1))
    return accuracy, error, math.exp(-math.fsum(total for total, _ in scores) / len(scores))


@torch.no_grad()
def hidden_states(model: MambaLM, windows: Tensor) -> list[Tensor]:
    """What the head reads, float32 [Bt, 2048, D] for each batch of windows."""
    return [model.hidden_states(ids.to(model.device)) for ids in windows.split(_WINDOWS_AT_ONCE)]


@torch.no_grad()
def wikitext(subject: Subject, reference: MambaLM, expected: list[Tensor], windows: Tensor) -> tuple[float, float]:
    """Perplexity, and mean KL(float || quantized) in nats a token.

    Args:
        subject: the model to measure.
        reference: the float model.
        expected: its `hidden_states` of the windows.
        windows: int64 [W, 2048].
    """
    losses, divergence, tokens = [], 0.0, 0
    for batch, ids in zip(expected, windows.split(_WINDOWS_AT_ONCE), strict=True):
        ids = ids.to(subject.device)
        for row, hidden in enumerate(subject.model.hidden_states(ids)):
            loss, last = 0.0, len(hidden) - 1
            for start in range(0, last, _ROWS):
                rows = slice(start, min(start + _ROWS, last))
                q = torch.log_softmax(subject.model.head(hidden[rows]), -1)
                p = torch.log_softmax(reference.head(batch[row, rows]), -1)
                targets = ids[row, rows.start + 1 : rows.stop + 1]
                loss -= float(q.gather(1, targets[:, None]).double().sum())
                divergence += float((p.exp() * (p - q)).double().sum())
            tokens += last
            losses.append(loss / last)
    return math.exp(math.fsum(losses) / len(losses)), max(0.0, divergence / tokens)


def quantized(loaded: LoadedModel, documents: int, only: set[str]) -> Iterator[tuple[str, MambaLM, float]]:
    """The float model, then the model by each recipe, and the seconds that its conversion took."""
    if not only or "FP32" in only:
        yield "FP32", loaded.model, 0.0
    family = loaded.config.family
    texts = calibration_documents("builtin", documents).texts
    batches = batch_documents(loaded.tokenizer.encode_batch(texts), 16, 512)
    wanted = {name: recipe for name, recipe in recipes(family).items() if not only or name in only}
    for rotate in (False, True):
        chosen = {name: recipe for name, recipe in wanted.items() if recipe.rotate == rotate}
        if not chosen:
            continue
        base = copy.deepcopy(loaded.model)
        if rotate:
            rotate_model(base)
        calibration = Calibration(base, list(chosen.values()), batches, ())
        for _ in calibration.run():
            pass
        for name, recipe in chosen.items():
            model = copy.deepcopy(base)
            start = time.perf_counter()
            for _ in convert(model, recipe, calibration):
                pass
            yield name, model, time.perf_counter() - start


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--documents", type=int, default=128, help="of calibration, 512 tokens each at most")
    parser.add_argument("--only", nargs="*", default=[], help="names of recipes, FP32 among them")
    parser.add_argument("--lambada", type=int, default=None, help="only so many passages")
    parser.add_argument("--windows", type=int, default=None, help="only so many windows of WikiText-2")
    parser.add_argument("--batch_size", type=int, default=64)
    parser.add_argument("--output", type=Path, default=None, help="append the lines to this file too")
    options = parser.parse_args()
    torch.manual_seed(0)
    loaded = load_model(options.model, options.device)
    ids = torch.tensor(loaded.tokenizer.encode(perplexity_text("wikitext2")))
    windows = ids[: len(ids) // WINDOW * WINDOW].view(-1, WINDOW)[: options.windows]
    expected = hidden_states(loaded.model, windows)
    for name, model, seconds in quantized(loaded, options.documents, set(options.only)):
        start = time.perf_counter()
        subject = Subject(model, loaded.tokenizer)
        accuracy, error, perplexity = lambada(subject, options.lambada, options.batch_size)
        wikitext2, divergence = wikitext(subject, loaded.model, expected, windows)
        row: dict[str, Any] = {
            "model": Path(options.model).name,
            "recipe": name,
            "device": loaded.device.type,
            "accuracy": accuracy,
            "accuracy_stderr": error,
            "lambada_perplexity": perplexity,
            "wikitext2": wikitext2,
            "divergence": divergence,
            "windows": len(windows),
            "convert_s": round(seconds, 2),
            "evaluate_s": round(time.perf_counter() - start, 2),
        }
        print(json.dumps(row), flush=True)
        if options.output is not None:
            with options.output.open("a", encoding="utf-8") as file:
                file.write(json.dumps(row) + "\n")


if __name__ == "__main__":
    main()
