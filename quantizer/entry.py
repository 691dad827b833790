"""The command line of the quantizer: parse, one call, one translation of what went wrong."""

import os
import shlex
import sys
import traceback
from collections.abc import Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import click
from qlog.v1.command_line import (
    complain,
    listen_options,
    log_options,
    metrics_options,
    refusal,
    traces_option,
    version_option,
)
from qlog.v1.configuration import config_command, configurable
from qlog.v1.escaping import plain_logging
from qlog.v1.language import LANGUAGES, language_of
from qlog.v1.options import SpecCommand, spec_from_options, spec_options

from quantizer.endpoints import check_host
from quantizer.errors import QuantizerError
from quantizer.generate import generate
from quantizer.profile import profile
from quantizer.search_hybrid import search_hybrid
from quantizer.settings import Settings, credential_options, looked_up, settings_options
from quantizer.statistics import files_of, load, statistics_option

if TYPE_CHECKING:
    from qlog.v1.serving.listening import Listening

# gRPC's own lines about a port or a peer say no more than ours do. To be set before it is imported.
os.environ.setdefault("GRPC_VERBOSITY", "NONE")

_CONTEXT = {"help_option_names": ["-h", "--help"], "max_content_width": 100}


@click.group(context_settings=_CONTEXT)
@settings_options
@version_option("quantizer")
def cli() -> None:
    """Quantize Mamba models, and record what it did to every layer and to accuracy.

    \b
    Examples:
      quantizer run models/mamba-2m --quantize --eval_zero_shot --task_list gutenberg_cloze
      quantizer serve --model_root models
      quantizer generate models/mamba-2m --prompt "It was a dark night, and"
      quantizer search-hybrid models/mamba2-4m --share 0.25
      quantizer profile models/mamba-2m --tpot --size
      quantizer spool flush
    """


cli.add_command(generate)
cli.add_command(search_hybrid)
cli.add_command(profile)


@cli.command(cls=SpecCommand, context_settings=_CONTEXT)
@settings_options
@credential_options()
@statistics_option
@click.option(
    "language",
    "--lang",
    type=click.Choice(LANGUAGES),
    envvar="QLOG_LANG",
    help="The language of the summary.  [env: QLOG_LANG; default: that of the locale, else en]",
)
@log_options()
@spec_options
@click.pass_context
def run(
    context: click.Context,
    /,
    statistics: Sequence[Path],
    language: str | None,
    log_format: str,
    log_level: str,
    **options: Any,
) -> None:
    """Run one experiment: load MODEL, calibrate, quantize, evaluate, record, print a summary.

    MODEL is a directory with config.json and weights, or a Hugging Face hub id. Without --collector the record goes
    into the local store in --log_dir.

    \b
    Examples:
      quantizer run models/mamba-2m --quantize --batch_size 16 --eval_zero_shot --task_list gutenberg_cloze
      quantizer run models/mamba-2m --quantize --percentile_alpha 1.0 --eval_ppl --ppl_dataset gutenberg
      quantizer run models/mamba2-4m --eval_ppl --ppl_dataset wikitext2
    """
    from quantizer.wire_spec import config_of

    if log_format == "json":
        from qlog.v1.logs import start_logging

        start_logging("quantizer", log_format, log_level)
    else:
        plain_logging("quantizer: warning: ", log_level)
    settings = Settings.of(context)
    config = config_of(spec_from_options(options))
    load(files_of(statistics))
    # Torch is loaded from here on.
    from quantizer.console import Console
    from quantizer.local_run import run_here

    run_here(
        config,
        command=_typed(context),
        log_dir=settings.log_dir,
        collector=settings.collector,
        credentials=settings.credentials,
        language=language or language_of(os.environ),
        console=Console(verbose=config.verbose, form=log_format, level=log_level),
    )


@click.command(context_settings=_CONTEXT)
@settings_options
@credential_options("collector_")
@listen_options(50552)
@click.option(
    "model_root",
    "--model_root",
    "--model-root",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    metavar="DIR",
    default=".",
    show_default=True,
    help="Jobs read models and data below this directory and nowhere else.",
)
@click.option(
    "output_root",
    "--output_root",
    "--output-root",
    type=click.Path(file_okay=False, path_type=Path),
    metavar="DIR",
    help="Jobs keep quantized models (--pretrained_dir) below this directory, and write nowhere else.  [default: they "
    "keep none]",
)
@click.option(
    "--devices",
    default="auto",
    show_default=True,
    metavar="LIST",
    help="Devices for jobs, separated by commas: cpu, cuda:0, ... auto: all GPUs, or the CPU where there are none.",
)
@statistics_option
@metrics_options
@traces_option
@log_options()
@click.pass_context
def serve(context: click.Context, /, model_root: Path, devices: str, statistics: Sequence[Path], **rest: Any) -> None:
    """Take experiments as jobs over gRPC and run them on this machine's devices.

    \b
    Examples:
      quantizer serve --model_root models --output_root models/quantized
      quantizer serve --host 0.0.0.0 --tls_cert host.pem --tls_key host.key --token_file tokens
      quantizer serve --collector store.example:50551 --devices cuda:0,cuda:1
      quantizer serve --config /etc/qlog/quantizer.toml --log_format json
    """
    where, settings = _checked(context)
    from quantizer.serve import ServeOptions, serve_until_stopped

    load(files_of(statistics))
    names = ("output_root", "log_format", "log_level", "metrics_host", "metrics_port", "otlp_endpoint")
    serve_until_stopped(ServeOptions(where, model_root, devices, **{name: rest[name] for name in names}), settings)


def _checked(context: click.Context) -> "tuple[Listening, Settings]":
    """Where to listen and where to record.

    Raises:
        SpecError: one of them is refused.
    """
    from qlog.v1.serving.listening import Listening

    values = context.params
    if values["insecure"]:
        context.find_root().ensure_object(dict)["insecure"] = True
    where = Listening(**{field.name: values[field.name] for field in fields(Listening)})
    check_host(where)
    if values["metrics_port"] is not None:
        check_host(replace(where, host=values["metrics_host"]), option="metrics_host")
    return where, Settings.of(context)


cli.add_command(configurable(serve, "QLOG_QUANTIZER"))
cli.add_command(config_command("quantizer", serve, _checked, looked_up))


@cli.group(context_settings=_CONTEXT)
@settings_options
def spool() -> None:
    """Look after events that a collector does not have yet."""


@spool.command(context_settings=_CONTEXT)
@settings_options
@click.pass_context
def status(context: click.Context) -> None:
    """List the experiments in the spool of --log_dir."""
    from quantizer.spool_commands import describe_spool

    click.echo(describe_spool(Settings.of(context).log_dir))


@spool.command(context_settings=_CONTEXT)
@settings_options
@credential_options()
@click.pass_context
def flush(context: click.Context) -> None:
    """Send what is in the spool of --log_dir: to --collector, else to where each experiment was meant to go."""
    from quantizer.spool_commands import flush_spool

    settings = Settings.of(context)
    click.echo(flush_spool(settings.log_dir, settings.collector, settings.credentials))


def _typed(context: click.Context) -> str:
    """The command as the user typed it, for the record."""
    arguments: list[str] = context.find_root().meta["arguments"]
    return shlex.join(["quantizer", *arguments])


# What the light installation lacks.
_EXTRA_MODULES = ("torch", "numpy", "safetensors", "tokenizers", "huggingface_hub", "lm_eval", "datasets", "pyarrow")


def run_command(arguments: Sequence[str]) -> int:
    """Run one command line; the exit code. Errors are one line each, on standard error."""
    # What the library warns of.
    plain_logging("quantizer: warning: ")
    try:
        context = cli.make_context("quantizer", list(arguments))
        context.meta["arguments"] = list(arguments)
        with context:
            cli.invoke(context)
    except click.exceptions.Exit as error:
        return error.exit_code
    except click.ClickException as error:
        return refusal(error, "quantizer", _complain)
    except QuantizerError as error:
        _trace()
        _complain(str(error))
        return error.exit_code
    except KeyboardInterrupt as error:
        _complain("stopped")
        return int(getattr(error, "exit_code", 130))
    except BrokenPipeError:
        # Whoever read our output is gone; nothing more can be told, at the interpreter's exit neither.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except Exception as error:  # noqa: BLE001 - the one catch at the top: no tracebacks at users
        _trace()
        if isinstance(error, ModuleNotFoundError) and (error.name or "").partition(".")[0] in _EXTRA_MODULES:
            _complain(f"{error.name} is not installed; run pip install '.[quantizer]' in the project's folder")
        else:
            _complain(f"internal error: {type(error).__name__}: {error} (QLOG_DEBUG=1 shows where)")
        return 1
    return 0


def _complain(message: str) -> None:
    complain("quantizer", message, prefix="quantizer: error: ")


def _trace() -> None:
    if os.environ.get("QLOG_DEBUG"):
        traceback.print_exc()


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """The console script."""
    code = run_command(sys.argv[1:] if arguments is None else arguments)
    sys.stdout.flush()
    sys.exit(code)


if __name__ == "__main__":
    main()
