"""`quantizer generate`: texts continued by a model, to see what it writes."""

import secrets
from dataclasses import dataclass
from typing import Any

import click

from quamba.errors import DeviceError, QuambaError, RecipeError
from quamba.generation_options import GenerationOptions, Sampling
from quantizer.config_reader import DTYPES
from quantizer.errors import QuantizerError
from quantizer.prompts import read_prompts
from quantizer.verbs import check_place, option, refused

_DEFAULT, _PLAIN = GenerationOptions(), Sampling()
_BATCH_SIZE = 16


@click.command(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.argument("model", metavar="MODEL")
@option("prompt", multiple=True, metavar="TEXT", help="What to continue; may be given again. -: standard input.")
@option("prompts", metavar="FILE", help="A file with a prompt a line; blank lines are left out. -: standard input.")
@option("max_new_tokens", type=int, default=_DEFAULT.max_new_tokens, metavar="N", help="Tokens at most.")
@option("temperature", type=float, default=_PLAIN.temperature, metavar="T", help="0: the likeliest token each time.")
@option("top_k", type=int, default=_PLAIN.top_k, metavar="K", help="Only among the K likeliest tokens; 0: all.")
@option("top_p", type=float, default=_PLAIN.top_p, metavar="P", help="Only among the fewest that reach P; 1: all.")
@option("min_p", type=float, default=_PLAIN.min_p, metavar="P", help="Only those P times as likely as the likeliest.")
@option(
    "repetition_penalty",
    type=float,
    default=_PLAIN.repetition_penalty,
    metavar="X",
    help="Above 1: tokens that the text has already become less likely.",
)
@option("seed", type=int, metavar="N", help="The same seed draws the same text. Default: another one each time.")
@option("stop", multiple=True, metavar="TEXT", help="End before this text; may be given again.")
@option("stream", is_flag=True, help="Show text as it is written; of several prompts as JSON lines {index, text}.")
@option("format", type=click.Choice(["text", "json"]), default="text", help="What to print.")
@option("batch_size", type=int, default=_BATCH_SIZE, metavar="N", help="Prompts side by side.")
@option("device", default="auto", metavar="auto|cpu|cuda[:N]", help="Where to run.")
@option("dtype", type=click.Choice(DTYPES), default="float32", help="What products run in.")
def generate(model: str, prompt: tuple[str, ...], prompts: str | None, **options: Any) -> None:
    """Continue texts with MODEL, a directory with config.json and weights, or a Hugging Face hub id.

    What a prompt's text becomes does not depend on the prompts beside it.

    \b
    Examples:
      quantizer generate models/mamba-2m --prompt "It was a dark night, and" --temperature 0
      quantizer generate models/mamba-2m --prompt "She said" --top_p 0.9 --seed 1 --stream
      quantizer generate models/mamba2-4m --prompts prompts.txt --format json
    """
    seed = options["seed"]
    request = _Request(
        model=model,
        prompts=read_prompts(prompt, prompts),
        options=_checked(options, secrets.randbits(32) if seed is None else seed),
        batch_size=options["batch_size"],
        device=options["device"],
        dtype=options["dtype"],
        stream=bool(options["stream"]),
        as_json=options["format"] == "json",
    )
    request.run()


def _checked(options: dict[str, Any], seed: int) -> GenerationOptions:
    """The library's options.

    Raises:
        SpecError: one of them cannot be obeyed.
    """
    names = ("temperature", "top_k", "top_p", "min_p", "repetition_penalty")
    if options["batch_size"] < 1:
        raise refused("batch_size", f"batch_size must be at least 1, not {options['batch_size']}")
    try:
        return GenerationOptions(
            sampling=Sampling(**{name: options[name] for name in names}),
            max_new_tokens=options["max_new_tokens"],
            stop=tuple(dict.fromkeys(options["stop"])),
            seed=seed,
        )
    except RecipeError as error:
        raise refused("", str(error)) from error


@dataclass(frozen=True, slots=True)
class _Request:
    """What was asked for, checked as far as it can be without torch."""

    model: str
    prompts: tuple[str, ...]
    options: GenerationOptions
    batch_size: int
    device: str
    dtype: str
    stream: bool
    as_json: bool

    def run(self) -> None:
        """Load the model and print what it writes.

        Raises:
            SpecError: the model or the device is not there.
            QuantizerError: the model cannot be loaded, or memory does not suffice.
        """
        import torch

        from quamba.completions import complete
        from quamba.models.loading import is_hub_id, load_model, resolve_device
        from quamba.models.precision import in_dtype
        from quantizer.completion_output import output_for

        try:
            # Before the model is looked for, which may take a download.
            resolve_device(self.device)
            check_place(self.model, is_hub_id)
            loaded = in_dtype(load_model(self.model, self.device), self.dtype)
            tokenizer = loaded.tokenizer
            # A text without a beginning begins after the end of another.
            ids = [encoded or [tokenizer.eos_token_id] for encoded in tokenizer.encode_batch(self.prompts)]
            steps = complete(
                loaded.model,
                tokenizer,
                ids,
                self.options,
                batch_size=self.batch_size,
                vocab_size=tokenizer.vocab_size,
            )
            output = output_for(self.prompts, stream=self.stream, as_json=self.as_json)
            try:
                for pieces in steps:
                    for piece in pieces:
                        output.show(piece)
            except KeyboardInterrupt:
                output.end()
                raise
            output.end()
        except DeviceError as error:
            raise refused("device", str(error)) from error
        except QuambaError as error:
            raise QuantizerError(str(error)) from error
        except (MemoryError, torch.OutOfMemoryError) as error:
            raise QuantizerError(
                f"out of memory on {self.device}: try a smaller --batch_size (it was {self.batch_size})"
            ) from error


__all__ = ["generate"]
