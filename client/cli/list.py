"""`qlog list`."""

from typing import Any

import click

from client.cli.options import answer, settings_of, shared_options
from client.columns import COLUMNS, ListColumn, column_for, default_columns, list_output
from client.documents import Note
from client.settings import ask, no_experiments
from client.text import escape
from client.values import Experiment

_EPILOG = f"""\b
Examples:
  qlog list --last 5
  qlog list --all --sort -number --columns number,model,alpha,results.accuracy
  qlog list --running --format json
  qlog list --filter 'model = "mamba2-*" AND accuracy > 0.5' --sort -accuracy
  qlog list --filter '-status: FAILED timestamp > -7d'

Columns: {", ".join(COLUMNS)}; or a dotted path into the record, such as config.calib_seqlen.
"""


def _columns(_ctx: click.Context, _param: click.Parameter, value: str | None) -> tuple[ListColumn, ...] | None:
    if value is None:
        return None
    names = [name.strip() for name in value.split(",") if name.strip()]
    columns = {name: column_for(name) for name in names}
    unknown = [name for name, column in columns.items() if column is None]
    if unknown or not columns:
        wrong = f"no column {escape(unknown[0])!r}" if unknown else "no column named"
        raise click.BadParameter(f"{wrong}: choose from {', '.join(COLUMNS)}, or a dotted path into the record")
    return tuple(column for column in columns.values() if column is not None)


def _sort_key(_ctx: click.Context, _param: click.Parameter, value: str) -> str:
    name = value.removeprefix("-").strip()
    if not name or any(character.isspace() or character == "," for character in name):
        raise click.BadParameter(f"{escape(value)!r} is no key: give one column or dotted path, with - for downwards")
    return value


@click.command("list", epilog=_EPILOG)
@click.option(
    "--last", type=click.IntRange(min=0), metavar="N", default=20, show_default=True, help="The last N; 0 for all."
)
@click.option("--all", "everything", is_flag=True, help="All experiments.")
@click.option("--running", is_flag=True, help="Also those that have not ended.")
@click.option(
    "--filter",
    "filter_text",
    metavar="FILTER",
    default="",
    help="Only those that match, as 'model = mamba-* AND accuracy > 0.5'.",
)
@click.option(
    "--sort",
    metavar="KEY",
    default="number",
    show_default=True,
    callback=_sort_key,
    help="A column or a dotted path; with - before it the largest first. What is absent comes last.",
)
@click.option("--columns", metavar="NAMES", callback=_columns, help="Which columns, separated by commas.")
@shared_options
@click.pass_context
def command(
    ctx: click.Context,
    *,
    last: int,
    everything: bool,
    running: bool,
    filter_text: str,
    sort: str,
    columns: tuple[ListColumn, ...] | None,
) -> None:
    """List experiments, the newest last."""
    settings = settings_of(ctx)
    experiments: list[Experiment] = []
    if not settings.nothing_yet:
        from client.listing import fetch_sorted

        count = None if everything else last or None
        experiments = ask(
            settings, lambda api: fetch_sorted(api, sort, last=count, filter_text=filter_text, running=running)
        )
    empty: tuple[Any, ...] = (
        () if experiments else (Note(_nothing(settings.place, filter_text) or no_experiments(settings)),)
    )
    shown = columns or default_columns(experiments)
    answer(list_output(experiments, shown, all_data=columns is None, sections=empty), settings)


def _nothing(place: str, filter_text: str) -> str:
    return f"no experiments in {place} match {escape(filter_text)!r}" if filter_text else ""
