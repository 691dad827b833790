"""The program `qlog`: reads the command line, and turns every expected error into one line and an exit code."""

import gc
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from importlib import import_module
from typing import Any

import click
from qlog.v1.command_line import WRONG_USAGE, refusal, version_option
from qlog.v1.escaping import plain_logging

from client.cli.options import note, shared_options
from client.errors import InvalidRequestError, QlogError
from client.text import escape_lines

DONE, FAILED, INTERRUPTED = 0, 1, 130
# Between two looks for garbage: what a start imports is none, and Python's own 700 make it a fifth slower.
_GARBAGE_THRESHOLD = 100_000

# Verb -> module below client.cli that has the command under the name `command`; imported when it is used.
COMMANDS: Mapping[str, str] = {
    "list": "list",
    "show": "show",
    "compare": "compare",
    "watch": "watch",
    "plot": "plot",
    "export": "export",
    "import": "import_",
    "annotate": "annotate",
    "backup": "backup",
    "fsck": "fsck",
    "submit": "submit",
    "jobs": "jobs",
    "cancel": "cancel",
}

_EPILOG = """\b
Examples:
  qlog list --last 5
  qlog show -1
  qlog compare 0 1
  qlog --collector gpu1:50551 watch
  qlog submit models/mamba-2m --quantize --eval_zero_shot --wait

A REF is the number of an experiment, -1 for the last one, an id or a unique prefix of one.
"""


class _Commands(click.Group):
    """A group whose commands are imported when they are needed, and that ends quietly when its reader goes away."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002  (click calls it so)
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002  (the same)
        if cmd_name not in COMMANDS:
            return None
        found: click.Command = import_module(f"client.cli.{COMMANDS[cmd_name]}").command
        return found

    def invoke(self, ctx: click.Context) -> Any:
        try:
            result = super().invoke(ctx)
            sys.stdout.flush()
        except BrokenPipeError:
            # As in `qlog list | head -1`: nobody reads on. What is still buffered must not fail again at exit.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            raise click.exceptions.Exit(DONE) from None
        return result


@click.group(
    cls=_Commands,
    epilog=_EPILOG,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
)
@partial(shared_options, environment=True)
@version_option("qlog")
def cli() -> None:
    """List, show, compare and watch quantization experiments; take care of their log; submit and cancel jobs.

    The options below, but for --version, are accepted before and after the command.
    """


def _status_of(run: Callable[[], object]) -> int:
    """Run a command; its exit code, with errors told."""
    try:
        status = run()
    except click.ClickException as error:
        return refusal(error, "qlog", note)
    except QlogError as error:
        note(" ".join(str(error).split()))
        if isinstance(error, InvalidRequestError) and error.picture:
            click.echo(escape_lines(error.picture), err=True)
        return error.exit_code
    except (click.Abort, KeyboardInterrupt):
        return INTERRUPTED
    except OSError as error:
        note(f"cannot write the answer: {error.strerror or error}")
        return FAILED
    return status if isinstance(status, int) else DONE


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the program.

    Args:
        arguments: those after the program's name; None: those of the process.

    Returns:
        The exit code: 0 done, 1 failed, 2 wrong usage, 130 interrupted.
    """
    # gRPC's own lines about a peer say no more than ours. To be set before it is imported.
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")
    # What the collector inside this process warns of, for a local store.
    plain_logging("qlog: ")
    if arguments is None:
        gc.set_threshold(_GARBAGE_THRESHOLD)
    given = list(sys.argv[1:] if arguments is None else arguments)
    for stream in (sys.stdout, sys.stderr):
        # A terminal that cannot show a character shows its code.
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")
    try:
        "".join(given).encode()
    except UnicodeEncodeError:
        note("the command line holds bytes that are no UTF-8")
        return WRONG_USAGE
    status = _status_of(
        partial(cli.main, args=given, prog_name="qlog", standalone_mode=False, obj={"arguments": given})
    )
    if arguments is None:
        # The process ends: its memory goes back at once, without a search for garbage in it.
        gc.freeze()
    return status


if __name__ == "__main__":
    sys.exit(main())
