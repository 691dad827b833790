"""`quantizer profile`: how fast a model reads and writes, and how large it is; recorded as an experiment's results."""

from dataclasses import dataclass
from typing import Any

import click

from quantizer.config_reader import DTYPES
from quantizer.errors import QuantizerError
from quantizer.settings import Settings, credential_options, settings_options
from quantizer.verbs import check_place, option, refused

_WHAT = ("ttft", "tpot", "ttlt", "size")
_COUNTS = ("batch_size", "prompt_len", "gen_len", "repeats")


@click.command(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@settings_options
@credential_options()
@click.argument("model", metavar="[MODEL]", required=False)
@option(
    "shape", metavar="SHAPE", help="Random weights of a published size instead of MODEL: mamba2-2.7b, mamba-130m, ..."
)
@option("ttft", is_flag=True, help="Time to first token: prompts are read.")
@option("tpot", is_flag=True, help="Time per output token.")
@option("ttlt", is_flag=True, help="Time to last token: prompts are read and all tokens written.")
@option("size", is_flag=True, help="Bytes of the weights, and of what is remembered of a text.")
@option("batch_size", type=int, default=1, metavar="N", help="Texts side by side.")
@option("prompt_len", type=int, default=512, metavar="N", help="Tokens of a prompt.")
@option("gen_len", type=int, default=64, metavar="N", help="Tokens to write.")
@option("repeats", type=int, default=10, metavar="N", help="Measurements; the median counts.")
@option("cache_graph", is_flag=True, help="Replay prompts and steps from CUDA graphs.")
@option("quantize", is_flag=True, help="Quantize first, by rounding, calibrated on random tokens.")
@option("w_bits", type=click.IntRange(4, 8), default=8, metavar="8|4", help="Bits of the weights, with --quantize.")
@option("a_bits", type=click.IntRange(8, 16), default=8, metavar="8|16", help="Of the activations, with --quantize.")
@option("quantize_embedding", is_flag=True, help="The embedding too, to the weights' bits.")
@option("quantize_lm_head", is_flag=True, help="The head too.")
@option("device", default="auto", metavar="auto|cpu|cuda[:N]", help="Where to run.")
@option("dtype", type=click.Choice(DTYPES), default="float32", help="What products of an unquantized model run in.")
@option("format", type=click.Choice(["table", "json"]), default="table", help="What to print.")
@click.pass_context
def profile(context: click.Context, /, model: str | None, shape: str | None, **options: Any) -> None:
    """Measure MODEL, a directory (also of a saved quantized model) or a Hugging Face hub id.

    Without --ttft, --tpot, --ttlt or --size all four are measured. Times are of the wall clock, medians; the record has
    all of them.

    \b
    Examples:
      quantizer profile models/mamba-2m --tpot --size
      quantizer profile models/mamba2-4m --quantize --ttft --tpot --prompt_len 128
      quantizer profile --shape mamba2-130m --quantize --tpot --batch_size 8 --cache_graph
    """
    import shlex

    for name in _COUNTS:
        if options[name] < 1:
            raise refused(name, f"{name} must be at least 1, not {options[name]}")
    if (model is None) == (shape is None):
        raise refused("model", "give a MODEL or a --shape" if model is None else "give a MODEL or a --shape, not both")
    if options["quantize"] and options["dtype"] != "float32":
        raise refused("dtype", f"--dtype {options['dtype']} is for unquantized models: leave it or --quantize out")
    typed: list[str] = context.find_root().meta["arguments"]
    wanted = tuple(name for name in _WHAT if options[name]) or _WHAT
    _Profile(model, shape, wanted, options, Settings.of(context), shlex.join(["quantizer", *typed])).run()


@dataclass(frozen=True, slots=True)
class _Profile:
    """What was asked for, checked as far as it can be without torch."""

    model: str | None
    shape: str | None
    wanted: tuple[str, ...]
    options: dict[str, Any]
    settings: Settings
    command: str

    def run(self) -> None:
        """Measure, record, print.

        Raises:
            SpecError: model, shape or device is not there, or cannot be quantized so.
            QuantizerError: the model cannot be loaded, or memory does not suffice.
        """
        import torch

        from quamba.errors import DeviceError, QuambaError, RecipeError
        from quamba.models.loading import is_hub_id
        from quantizer.profile_run import run_profile

        try:
            if self.model is not None:
                check_place(self.model, is_hub_id)
            text = run_profile(self.model, self.shape, self.wanted, self.options, self.settings, self.command)
        except DeviceError as error:
            raise refused("device", str(error)) from error
        except RecipeError as error:
            raise refused("", str(error)) from error
        except QuambaError as error:
            raise QuantizerError(str(error)) from error
        except (MemoryError, torch.OutOfMemoryError) as error:
            raise QuantizerError(
                f"out of memory on {self.options['device']}: try a smaller --batch_size "
                f"(it was {self.options['batch_size']}) or --prompt_len"
            ) from error
        click.echo(text)


__all__ = ["profile"]
