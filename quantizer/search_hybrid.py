"""`quantizer search-hybrid`: which layers of a W4AX hybrid keep float activations."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

from quantizer.errors import QuantizerError
from quantizer.verbs import check_place, option, refused

_HELD_OUT = 8


@click.command(name="search-hybrid", context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.argument("model", metavar="MODEL")
@option("share", type=float, default=0.25, metavar="S", help="The share of layers that keep 16-bit activations.")
@option("output", type=click.Path(path_type=Path), default=Path("hybrid.json"), metavar="FILE", help="What to write.")
@option("overwrite", is_flag=True, help="Replace the file if it is there.")
@option("group_heads", is_flag=True, help="As the quantization will: reorder and group heads (Mamba-2).")
@option("rotation", type=click.Choice(["hadamard", "none"]), default="hadamard", help="As the quantization will.")
@option("calib_data", default="builtin", metavar="pile|builtin|FILE", help="Calibration text.")
@option("calib_data_num", type=int, default=64, metavar="N", help="Calibration documents; the next 8 are measured on.")
@option("calib_seqlen", type=int, default=512, metavar="N", help="Tokens a document is cut to.")
@option("batch_size", type=int, default=4, metavar="N", help="Documents at a time.")
@option("device", default="auto", metavar="auto|cpu|cuda[:N]", help="Where to run.")
@option("format", type=click.Choice(["table", "json"]), default="table", help="What to print.")
def search_hybrid(model: str, **options: Any) -> None:
    """Propose which layers of MODEL get 8-bit activations in a hybrid with 4-bit weights (W4AX).

    Every layer alone is given 8-bit activations, and what that does to the next-token distributions is measured as a
    KL divergence; the layers that cost most keep float activations. The file is for --hybrid_blocks_config.

    \b
    Examples:
      quantizer search-hybrid models/mamba2-4m --share 0.25 --group_heads --output hybrid.json
      quantizer run models/mamba2-4m --preset quamba2-w4ax --hybrid_blocks_config hybrid.json --testing
    """
    for name in ("calib_data_num", "calib_seqlen", "batch_size"):
        if options[name] < 1:
            raise refused(name, f"{name} must be at least 1, not {options[name]}")
    if not 0.0 <= options["share"] <= 1.0:
        raise refused("share", f"share must be between 0 and 1, not {options['share']}")
    output: Path = options["output"]
    if output.exists() and not options["overwrite"]:
        raise refused("output", f"{output} is there already: give --overwrite, or another --output")
    if not output.absolute().parent.is_dir():
        raise refused("output", f"{output.parent} is no directory: give an --output in one that is there")
    _Search(model, output, options).run()


@dataclass(frozen=True, slots=True)
class _Search:
    model: str
    output: Path
    options: dict[str, Any]

    def run(self) -> None:
        """Measure, write, print.

        Raises:
            SpecError: model, data or device is not there, or the recipe is not for this model.
            QuantizerError: the model cannot be loaded, or memory does not suffice.
        """
        import torch

        from quamba.errors import DataError, DeviceError, QuambaError, RecipeError
        from quamba.flow.sensitivity import choose
        from quamba.hybrid import write_hybrid
        from quamba.models.loading import is_hub_id

        try:
            check_place(self.model, is_hub_id)
            scores = self._scores()
            layers = choose(scores, self.options["share"])
            write_hybrid(self.output, layers)
        except (DataError, DeviceError, RecipeError) as error:
            raise refused("", str(error)) from error
        except QuambaError as error:
            raise QuantizerError(str(error)) from error
        except OSError as error:
            raise QuantizerError(f"{self.output} cannot be written: {error.strerror or error}") from error
        except (MemoryError, torch.OutOfMemoryError) as error:
            raise QuantizerError(
                f"out of memory: try a smaller --batch_size (it was {self.options['batch_size']})"
            ) from error
        click.echo(self._printed(scores, layers))

    def _scores(self) -> list[float]:
        from quamba.corpora import calibration_documents
        from quamba.flow.batches import batch_documents
        from quamba.flow.recipe import Recipe
        from quamba.flow.sensitivity import LayerSensitivity, sensitivities
        from quamba.models.loading import check_model, load_model, resolve_device
        from quantizer.console import Console
        from quantizer.events import Progressed

        options = self.options
        recipe = Recipe(w_bits=4, group_heads=options["group_heads"], rotate=options["rotation"] == "hadamard")
        # Before anything is loaded.
        resolve_device(options["device"])
        config, quantization = check_model(self.model)
        if quantization is not None:
            raise refused("model", f"model {self.model} is quantized already: give the float model")
        recipe.check(config)
        number = options["calib_data_num"]
        texts = calibration_documents(options["calib_data"], number + _HELD_OUT).texts
        if len(texts) < 2:
            raise refused("calib_data", "at least 2 documents are needed: one to calibrate on, one to measure on")
        split = min(number, max(1, len(texts) - _HELD_OUT), len(texts) - 1)
        loaded = load_model(self.model, options["device"])
        ids = loaded.tokenizer.encode_batch(texts)
        calibration, held_out = (
            batch_documents(part, options["batch_size"], options["calib_seqlen"]) for part in (ids[:split], ids[split:])
        )
        console, scores = Console(), []
        try:
            for report in sensitivities(loaded.model, recipe, calibration, held_out):
                if isinstance(report, LayerSensitivity):
                    scores.append(report.divergence)
                else:
                    console.show(Progressed(report))
        finally:
            console.end()
        return scores

    def _printed(self, scores: list[float], layers: tuple[str, ...]) -> str:
        if self.options["format"] == "json":
            rows = [
                {"layer": layer, "divergence": score, "scheme": scheme}
                for layer, (score, scheme) in enumerate(zip(scores, layers, strict=True))
            ]
            return json.dumps({"output": str(self.output), "layers": rows}, indent=2)
        width = len(str(len(layers)))
        lines = [
            f"layer {layer:>{width}}  {score:.3e} nats a token  {scheme}"
            for layer, (score, scheme) in enumerate(zip(scores, layers, strict=True))
        ]
        spared = layers.count("W4A16")
        preset = f"--preset quamba2-w4ax --hybrid_blocks_config {self.output}"
        lines.append(f"{spared} of {len(layers)} layers keep float activations; written to {self.output}. Use it with")
        lines.append(f"  quantizer run {self.model} {preset}")
        return "\n".join(lines)


__all__ = ["search_hybrid"]
