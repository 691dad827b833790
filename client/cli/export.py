"""`qlog export`."""

from enum import Enum
from functools import partial
from pathlib import Path

import click

from client.cli.options import note, settings_of, shared_options
from client.export_tables import TableName
from client.settings import Settings, ask, open_collector

_EPILOG = """\b
Examples:
  qlog export > copy.jsonl
  qlog export --output copy.jsonl --resume
  qlog export --filter 'status: COMPLETED' --format csv --output experiments.csv
  qlog export --stats --output layers.parquet
  qlog export --stats --filter 'mamba-370m' --format csv | head

In Python: `pandas.read_parquet("layers.parquet")`. Parquet needs pyarrow: pip install 'qlog-ssm[parquet]'.
"""


class Form(Enum):
    """How the log is written."""

    JSONL = "jsonl"
    CSV = "csv"
    PARQUET = "parquet"


@click.command("export", epilog=_EPILOG)
@click.option(
    "--format",
    "form",
    type=click.Choice([form.value for form in Form]),
    help="jsonl: the lines as they stand in the log; csv, parquet: a flat table.  "
    "[default: by the ending of --output, else jsonl, or csv for a table]",
)
@click.option("--filter", "filter_text", metavar="FILTER", default="", help="Only those that match (AIP-160).")
@click.option(
    "--output",
    "-o",
    type=click.Path(path_type=Path, allow_dash=True),
    metavar="FILE",
    help="The file, replaced where it is there, written whole or not at all.  [default: the standard output]",
)
@click.option(
    "--table",
    "table_name",
    type=click.Choice([table.value for table in TableName]),
    help="Of csv and parquet: a row an experiment, or a row a tensor with its statistics.  [default: experiments]",
)
@click.option("--stats", is_flag=True, help="The same as --table layers.")
@click.option(
    "as_shown",
    "--as_shown",
    "--as-shown",
    is_flag=True,
    help="Of jsonl: each line with its tags, note and archive mark, and completed where events came late.",
)
@click.option(
    "--resume", is_flag=True, help="Of jsonl: go on where FILE ends; new lines of the log are appended to it."
)
@partial(shared_options, own_format=True)
@click.pass_context
def command(
    ctx: click.Context,
    *,
    form: str | None,
    filter_text: str,
    output: Path | None,
    table_name: str | None,
    stats: bool,
    as_shown: bool,
    resume: bool,
) -> None:
    """Write the log, or a table made of it.

    jsonl is what `qlog import` reads; with --as_shown tags and notes come along. The columns of the tables are dotted
    paths into the record (config.model, results.tasks.TASK.METRIC, before_percentile.range), statistics of your own
    among them; an experiment is named by number and experiment_id.
    """
    if stats and table_name == TableName.EXPERIMENTS.value:
        raise click.UsageError("--stats is --table layers: give one of them", ctx=ctx)
    table = TableName.LAYERS if stats else TableName(table_name) if table_name else None
    output = None if output is None or str(output) == "-" else output
    chosen = _form(form, output, table)
    if chosen is Form.JSONL and table is not None:
        raise click.UsageError("jsonl has everything of each experiment: --table and --stats need csv or parquet")
    if chosen is Form.PARQUET and output is None:
        raise click.UsageError("parquet is no text: give --output FILE", ctx=ctx)
    if as_shown and chosen is not Form.JSONL:
        raise click.UsageError(f"--as_shown is of jsonl: {chosen.value} has tags and notes anyway", ctx=ctx)
    if resume and (chosen is not Form.JSONL or output is None or filter_text.strip() or as_shown):
        raise click.UsageError("--resume is of the whole log as it stands, in a FILE: give --output alone", ctx=ctx)
    settings = settings_of(ctx)
    if resume and output is not None:
        _resume(settings, output)
    elif chosen is Form.JSONL:
        _export_lines(settings, filter_text, output, as_shown=as_shown)
    else:
        _export_table(settings, chosen, table or TableName.EXPERIMENTS, filter_text, output)


def _form(given: str | None, output: Path | None, table: TableName | None) -> Form:
    if given is not None:
        return Form(given)
    endings = {".csv": Form.CSV, ".parquet": Form.PARQUET, ".pq": Form.PARQUET, ".jsonl": Form.JSONL}
    ending = None if output is None else endings.get(output.suffix.lower())
    return ending or (Form.JSONL if table is None else Form.CSV)


def _export_lines(settings: Settings, filter_text: str, output: Path | None, *, as_shown: bool) -> None:
    from client.export import copy_lines, opened

    with open_collector(settings) as session, opened(output) as stream:
        count = copy_lines(session.api.export(filter_text, as_shown=as_shown), stream)
    _tell(count, "line", output)


def _resume(settings: Settings, output: Path) -> None:
    from client.export_resume import go_on, opened_at_end

    with open_collector(settings) as session, opened_at_end(output) as file:
        count = go_on(file, output, lambda start: session.api.export(start=start))
    _tell(count, "more line", output)


def _export_table(settings: Settings, form: Form, table: TableName, filter_text: str, output: Path | None) -> None:
    from client.export import fetch_table, opened, write_table
    from client.export_files import require_pyarrow

    if form is Form.PARQUET:
        require_pyarrow()
    with ask(settings, lambda api: fetch_table(api, table, filter_text)) as rows:
        with opened(output) as stream:
            write_table(rows, table, stream, parquet=form is Form.PARQUET)
        count = rows.count
    _tell(count, "row", output)


def _tell(count: int, noun: str, output: Path | None) -> None:
    from qlog.v1.command_line import counted

    if output is not None:
        note(f"{counted(count, noun)} in {output}")
