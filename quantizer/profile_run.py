"""What `quantizer profile` does: a model, its measurements, their record, and what is printed."""

import json
import time
from collections.abc import Sequence
from typing import Any

import torch

from quamba.errors import RecipeError
from quamba.flow.batches import batch_documents
from quamba.flow.quantize import quantize
from quamba.flow.recipe import Recipe
from quamba.models.loading import check_model, load_model, resolve_device
from quamba.models.precision import in_dtype, products_in
from quamba.models.published import published_config, random_model
from quamba.models.saving import size_bytes
from quamba.nn.model import MambaLM
from quamba.profiling import Measured, Workload, measure, state_bytes
from quamba.reports import MetricReport, TaskReport
from quantizer.config import SEED
from quantizer.console import Console
from quantizer.embedded import LocalEndpoint
from quantizer.environment import describe
from quantizer.events import Began, Evaluated, ExperimentEvent, ExperimentResults, FactsKnown, Finished, Status
from quantizer.ids import new_experiment_id
from quantizer.recorder import Recorder
from quantizer.settings import Settings
from quantizer.summary import recorded

_DOCUMENTS, _TOKENS = 4, 128
_WORDS = {
    "ttft": "time to first token",
    "tpot": "time per output token",
    "ttlt": "time to last token",
}


def run_profile(
    name: str | None,
    shape: str | None,
    wanted: Sequence[str],
    options: dict[str, Any],
    settings: Settings,
    command: str,
) -> str:
    """Measure a model, record it, and say what was found.

    Args:
        name: a model's directory or hub id, or None.
        shape: a published size, or None.
        wanted: of "ttft", "tpot", "ttlt" and "size".
        options: as the verb has them.
        settings: where the record goes.
        command: what the user typed.

    Returns:
        What to print.

    Raises:
        QuambaError: the model cannot be had, or quantized so.
    """
    counts = {key: options[key] for key in ("batch_size", "prompt_len", "gen_len", "repeats")}
    work = Workload(**counts, cache_graph=bool(options["cache_graph"]))
    ends: dict[str, Any] = {key: bool(options[key]) for key in ("quantize_embedding", "quantize_lm_head")}
    recipe = Recipe(options["w_bits"], options["a_bits"], **ends) if options["quantize"] else None
    device = resolve_device(options["device"])
    stored = None
    if shape is not None:
        published_config(shape)
    else:
        stored = check_model(str(name))[1]
    if stored is not None and (recipe is not None or options["dtype"] != "float32"):
        raise RecipeError(f"model {name} is quantized already: leave --quantize and --dtype out")
    environment = describe(str(device))
    local = LocalEndpoint(settings.log_dir)
    console = Console()
    try:
        if settings.collector is None:
            local.check()
        recorder = Recorder(
            settings.log_dir,
            collector=settings.collector,
            open_local=lambda: local,
            warn=console.warn_once,
            credentials=settings.credentials,
        )
        experiment_id = new_experiment_id()
        with recorder:
            recording = recorder.recording(experiment_id)
            start = time.monotonic()

            def end(status: Status, error: str) -> None:
                recording.record(Finished(status, error, time.monotonic() - start))

            known = recipe if stored is None else Recipe.from_facts(stored.recipe)
            config = _config(name or f"random:{shape}", work, known, str(device), wanted)
            if stored is not None:
                config |= {"quantize": False, "stored": True, "calib_data_num": 0, "calib_seqlen": 0}
            config["dtype"] = options["dtype"] if known is None else None
            recording.record(Began.now(experiment_id, command, config, environment))
            try:
                results, sizes = _measured(
                    name, shape, recipe, work, wanted, device, options["dtype"], recording.record
                )
            except KeyboardInterrupt:
                end(Status.CANCELLED, "stopped by the user")
                raise
            except Exception as error:
                end(Status.FAILED, " ".join(str(error).split())[:500])
                raise
            end(Status.COMPLETED, "")
        delivery = recorded(recorder.delivery(experiment_id))
    finally:
        console.end()
        local.close()
    notes = _notes(device, work)
    if options["format"] == "json":
        values = {item.name: {"median_ms": item.median_ms, "times_ms": item.times_ms} for item in results}
        return json.dumps(
            {"experiment_id": experiment_id, "config": config, **values, **sizes, "notes": notes}, indent=2
        )
    return "\n".join([*_table(results, sizes, work), *notes, delivery])


def _config(name: str, work: Workload, recipe: Recipe | None, device: str, wanted: Sequence[str]) -> dict[str, Any]:
    """The record's `config`: the fixed keys first."""
    return {
        "model": name,
        "w_bits": recipe.w_bits if recipe else 16,
        "a_bits": recipe.a_bits if recipe else 16,
        "percentile_alpha": None,
        "group_heads": recipe is not None and recipe.group_heads,
        "apply_gptq": recipe is not None and recipe.apply_gptq,
        "quantize_embedding": recipe is not None and recipe.quantize_embedding,
        "quantize_lm_head": recipe is not None and recipe.quantize_lm_head,
        "calib_data_num": _DOCUMENTS if recipe else 0,
        "calib_seqlen": _TOKENS if recipe else 0,
        "quantize": recipe is not None,
        "profile": list(wanted),
        "batch_size": work.batch_size,
        "prompt_len": work.prompt_len,
        "gen_len": work.gen_len,
        "repeats": work.repeats,
        "cache_graph": work.cache_graph,
        "device": device,
        "seed": SEED,
    }


def _measured(
    name: str | None,
    shape: str | None,
    recipe: Recipe | None,
    work: Workload,
    wanted: Sequence[str],
    device: torch.device,
    dtype: str,
    record: Any,
) -> tuple[list[Measured], dict[str, int]]:
    def tell(event: ExperimentEvent) -> None:
        record(event)

    model, facts = _model(name, shape, device, dtype)
    before = size_bytes(model)
    if recipe is not None:
        generator = torch.Generator().manual_seed(SEED)
        tokens = torch.randint(0, model.config.vocab_size, (_DOCUMENTS, _TOKENS), generator=generator).tolist()
        for _ in quantize(model, recipe, batch_documents(tokens, 1), report_layers=()):
            pass
    after = size_bytes(model)
    tell(FactsKnown(model=facts, model_size_bytes={"before": before, "after": after}))
    results: list[Measured] = []
    for found in measure(model, work, wanted):
        results.append(found)
        tell(Evaluated(ExperimentResults(tasks=tuple(_task(item) for item in results))))
    sizes = {"weights_bytes": after, "state_bytes": state_bytes(model)} if "size" in wanted else {}
    if sizes:
        metrics = tuple(MetricReport(key, float(value)) for key, value in sizes.items())
        report = TaskReport("profile_size", metrics, 1, 0, None, "1")
        tell(Evaluated(ExperimentResults(tasks=(*(_task(item) for item in results), report))))
    return results, sizes


def _model(name: str | None, shape: str | None, device: torch.device, dtype: str) -> tuple[MambaLM, dict[str, Any]]:
    if shape is not None:
        config = published_config(shape)
        return products_in(random_model(config, device, seed=SEED), dtype), config.facts()
    loaded = in_dtype(load_model(str(name), str(device)), dtype)
    return loaded.model, loaded.facts()


def _task(item: Measured) -> TaskReport:
    """A measurement as the results of a task, for the record."""
    ordered = sorted(item.times_ms)
    metrics = (
        MetricReport("median_ms", item.median_ms),
        MetricReport("min_ms", ordered[0]),
        MetricReport("max_ms", ordered[-1]),
    )
    return TaskReport(f"profile_{item.name}", metrics, len(ordered), 0, None, "1")


def _notes(device: torch.device, work: Workload) -> list[str]:
    if device.type == "cuda":
        return []
    notes = ["Note: on the CPU plain PyTorch runs, the reference path; a GPU's times are others altogether."]
    if work.cache_graph:
        notes.append("Note: --cache_graph changes nothing here: there are no CUDA graphs on a CPU.")
    return notes


def _table(results: Sequence[Measured], sizes: dict[str, int], work: Workload) -> list[str]:
    per = f"batch {work.batch_size}, prompt {work.prompt_len}, {work.gen_len} to write"
    lines = [f"median of {work.repeats}; {per}"]
    for item in results:
        spread = f"{min(item.times_ms):.3f} to {max(item.times_ms):.3f}"
        lines.append(f"{_WORDS[item.name]:<22} {item.median_ms:>12.3f} ms   ({spread})")
    for key, words in (("weights_bytes", "weights"), ("state_bytes", "remembered of a text")):
        if key in sizes:
            lines.append(f"{words:<22} {sizes[key] / 1e6:>12.3f} MB")
    return lines


__all__ = ["run_profile"]
