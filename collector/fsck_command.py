"""`collector fsck`: a store checked where it lies, whether it is served or not."""

from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import click
from qlog.v1.escaping import escape

from collector.errors import DamageError, StoreAccessError

_STYLES = click.Choice(["text", "json"])
_EPILOG = """\b
Examples:
  collector fsck
  collector fsck --log_dir /var/lib/qlog
  collector fsck --format json > findings.json

\b
A collector that serves the store meanwhile goes on; `qlog fsck --collector HOST:PORT` asks that one itself."""


def fsck_command(log_dir_option: Callable[..., Callable[[click.Command], click.Command]]) -> click.Command:
    """The command.

    Args:
        log_dir_option: the decorator of `--log_dir`.
    """

    @click.command(epilog=_EPILOG)
    @log_dir_option
    @click.option("style", "--format", type=_STYLES, default="text", show_default=True, help="Of the output.")
    def fsck(log_dir: str, style: str) -> None:
        """Check the store of a directory: every line of every file is read, nothing is changed.

        An error is something stored that cannot be read; a warning is damage by which nothing acknowledged is known
        to be lost; a notice is no damage. Fails (exit code 1) where there are errors or warnings.
        """
        run(Path(log_dir), style)

    return fsck


def run(log_dir: Path, style: str) -> None:
    """Check, and print what was found.

    Args:
        log_dir: of the store.
        style: "text" or "json".

    Raises:
        DamageError: there are errors or warnings.
        StoreAccessError: there is no such directory.
    """
    import orjson

    from collector.fold import CODEC
    from collector.fsck import Checked
    from collector.store import open_store

    if not log_dir.is_dir():
        raise StoreAccessError(f"there is no log directory {log_dir}: name the store with --log_dir")
    checked = Checked()
    findings = []
    store = open_store(log_dir, CODEC, read_only=True)
    try:
        for found in store.check(checked):
            checked.counts[found.severity] += 1
            findings.append(found)
            if style == "text":
                place = "" if found.offset is None else f" at byte {found.offset}"
                line = "" if found.number is None else f", line {found.number}"
                name = f", experiment {found.experiment_id}" if found.experiment_id else ""
                text = f"{found.severity} {found.kind} {found.file}{place}{line}{name}: {found.message}"
                click.echo(escape(text))
    finally:
        store.close()
    damaged = checked.counts["ERROR"] + checked.counts["WARNING"]
    summary = {name: value for name, value in asdict(checked).items() if name != "counts"}
    summary |= {f"{name.lower()}s": count for name, count in checked.counts.items()}
    if style == "json":
        document = {"damaged": damaged > 0, **summary, "findings": [asdict(found) for found in findings]}
        click.echo(orjson.dumps(document, option=orjson.OPT_INDENT_2))
    else:
        click.echo(", ".join(f"{name.replace('_', ' ')} {value}" for name, value in summary.items()))
    if damaged:
        what = "1 finding" if damaged == 1 else f"{damaged} findings"
        raise DamageError(f"{log_dir} is damaged: {what}; lines that can be read are served all the same")


__all__ = ["fsck_command", "run"]
