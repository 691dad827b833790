"""`qlog backup`."""

from pathlib import Path

import click

from client.cli.options import answer, settings_of, shared_options
from client.settings import open_collector

_EPILOG = """\b
Examples:
  qlog backup /backup/qlog-monday
  qlog backup copy --collector gpu1:50551
  qlog --log_dir copy list
"""


@click.command("backup", epilog=_EPILOG)
@click.argument("destination", metavar="DEST", type=click.Path(path_type=Path))
@shared_options
@click.pass_context
def command(ctx: click.Context, *, destination: Path) -> None:
    """Copy the store as of one moment into DEST, a directory that is new or empty.

    Also while experiments are running and being recorded. The copy is a store like any other: read it with --log_dir.
    It is on disk when the command ends, and nothing of it is there if the command fails.
    """
    from client.backup import check_destination, write_backup
    from client.backup_document import backup_output

    settings = settings_of(ctx)
    check_destination(destination)
    with open_collector(settings) as session:
        sizes = write_backup(session.api.backup(), destination)
    answer(backup_output(sizes, str(destination)), settings)
