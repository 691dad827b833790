"""`--statistics FILE`: which Python files add statistics of the user's own to every recorded tensor.

The operator of a program chooses them; a job that others submit never names code to run.
"""

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import click

from quantizer.errors import SpecError, Violation

VARIABLE = "QLOG_STATISTICS"


def statistics_option(command: Callable[..., Any]) -> Callable[..., Any]:
    """Decorate a click command with the option."""
    return click.option(
        "statistics",
        "--statistics",
        metavar="FILE",
        multiple=True,
        envvar=VARIABLE,
        type=click.Path(path_type=Path),
        help=f"Python file that registers statistics of your own; may be given again.  [env: {VARIABLE}]",
    )(command)


def files_of(given: Sequence[Path]) -> tuple[Path, ...]:
    """The files of the command line, else of the environment; absolute."""
    listed = given or [Path(name) for name in os.environ.get(VARIABLE, "").split(os.pathsep) if name]
    return tuple(path.expanduser().absolute() for path in listed)


def load(files: Sequence[Path]) -> None:
    """Register what they register; processes that are started from now on do so too.

    Raises:
        SpecError: one of them cannot be loaded.
    """
    if not files:
        return
    # Torch is loaded from here on.
    from quamba.errors import StatisticError
    from quamba.statistics import load_statistics

    for path in files:
        try:
            load_statistics(path)
        except StatisticError as error:
            raise SpecError((Violation("statistics", str(error)),)) from error
    os.environ[VARIABLE] = os.pathsep.join(map(str, files))


__all__ = ["VARIABLE", "files_of", "load", "statistics_option"]
