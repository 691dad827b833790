"""`qlog fsck`."""

import click

from client.cli.options import answer, settings_of, shared_options
from client.errors import DamageError
from client.settings import ask

_EPILOG = """\b
Examples:
  qlog fsck
  qlog fsck --collector gpu1:50551 --format json
  qlog fsck --log_dir logs --format csv > findings.csv
"""


@click.command("fsck", epilog=_EPILOG)
@shared_options
@click.pass_context
def command(ctx: click.Context) -> None:
    """Check the store: every line of every file is read, nothing is changed.

    Tells each finding by kind, with its file and its offset in bytes. An error is something stored that cannot be read;
    a warning is damage by which nothing acknowledged is known to be lost; a notice is no damage. Fails (exit code 1)
    where there are errors or warnings.
    """
    from client.check_document import check_output

    settings = settings_of(ctx)
    report = ask(settings, lambda api: api.check())
    answer(check_output(report), settings)
    if report.damaged:
        count = sum(finding.severity != "notice" for finding in report.findings)
        what = "1 finding" if count == 1 else f"{count} findings"
        raise DamageError(f"{settings.place} is damaged: {what}; lines that can be read are served all the same")
