"""`qlog compare`."""

import click

from client.cli.options import REF_CONTEXT, answer, reference_list, settings_of, shared_options
from client.settings import ask

_EPILOG = """\b
Examples:
  qlog compare 0 1
  qlog compare 0,1,4 --all
  qlog compare -2 -1 --format markdown
"""


def _several(ctx: click.Context, param: click.Parameter, value: tuple[str, ...]) -> tuple[str, ...]:
    refs = reference_list(ctx, param, value)
    if len(refs) < 2:
        raise click.UsageError("give two or more experiments to compare", ctx=ctx)
    return refs


@click.command("compare", epilog=_EPILOG, context_settings=dict(REF_CONTEXT))
@click.argument("refs", metavar="REF REF...", nargs=-1, required=True, callback=_several)
@click.option("--all", "everything", is_flag=True, help="Also what is equal.")
@shared_options
@click.pass_context
def command(ctx: click.Context, *, refs: tuple[str, ...], everything: bool) -> None:
    """Compare experiments with the first of them.

    What differs is marked with an asterisk. Differences of accuracies are in points, with their standard error and
    whether they exceed it.
    """
    from client.compare_document import compare_output

    settings = settings_of(ctx)
    comparison = ask(settings, lambda api: api.compare(refs))
    answer(compare_output(comparison, everything=everything), settings)
