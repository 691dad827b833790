"""What the verbs that record nothing share: options, the look for a model, refusals."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from quantizer.errors import SpecError, Violation


def option(name: str, *, default: Any = None, **how: Any) -> Callable[[Any], Any]:
    """A click option that is accepted with `_` and with `-`."""
    names = dict.fromkeys((f"--{name}", f"--{name.replace('_', '-')}"))
    return click.option(name, *names, default=default, show_default=default is not None, **how)


def check_place(model: str, is_hub_id: Callable[[str], bool]) -> None:
    """Refuse what can be no model: "models/nosuch" is meant as a path where there is a directory "models".

    Raises:
        SpecError: it cannot.
    """
    try:
        path = Path(model).expanduser()
        possible = path.exists() or (is_hub_id(model) and not path.parent.is_dir())
    except (OSError, RuntimeError, ValueError) as error:  # Too long, a home that nobody has, a NUL.
        raise refused("model", f"model {model[:64]!r} cannot be a path ({error})") from error
    if not possible:
        raise refused("model", f"no model {model!r}: give a directory with config.json and weights, or a hub id")


def refused(option: str, message: str) -> SpecError:
    """One thing that is wrong with a command line."""
    return SpecError((Violation(option, message),))


__all__ = ["check_place", "option", "refused"]
