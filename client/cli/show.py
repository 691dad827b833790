"""`qlog show`."""

import click

from client.cli.options import REF_CONTEXT, answer, references, settings_of, shared_options
from client.settings import ask

_EPILOG = """\b
Examples:
  qlog show 3
  qlog show -1
  qlog show 0199c0de --format json
"""


@click.command("show", epilog=_EPILOG, context_settings=dict(REF_CONTEXT))
@click.argument("ref", metavar="REF", callback=references)
@shared_options
@click.pass_context
def command(ctx: click.Context, *, ref: str) -> None:
    """Show one experiment in full.

    REF is its number, -1 for the last one, its id or a unique prefix of it. With --format json the answer is the
    record as it stands in the log, without its checksum.
    """
    from client.show_document import show_output

    settings = settings_of(ctx)
    experiment = ask(settings, lambda api: api.get(ref, full=True))
    answer(show_output(experiment), settings)
