"""`qlog annotate`."""

import click

from client.annotations import Annotation
from client.cli.options import REF_CONTEXT, answer, references, settings_of, shared_options
from client.settings import Use, ask

_EPILOG = """\b
Examples:
  qlog annotate 3 --tag good --tag paper
  qlog annotate -1 --untag good --note "clipped too much in layer 3"
  qlog annotate 4 5 7 --archive
  qlog annotate 3 --note "" --unarchive
"""


def _words(_ctx: click.Context, _param: click.Parameter, value: tuple[str, ...]) -> tuple[str, ...]:
    words = tuple(word.strip() for word in value)
    if not all(words):
        raise click.BadParameter("an empty tag")
    return words


@click.command("annotate", epilog=_EPILOG, context_settings=dict(REF_CONTEXT))
@click.argument("refs", metavar="REF...", nargs=-1, required=True, callback=references)
@click.option("--tag", "tags", multiple=True, metavar="TAG", callback=_words, help="Give it this tag; may be repeated.")
@click.option("--untag", "untags", multiple=True, metavar="TAG", callback=_words, help="Take this tag from it.")
@click.option("--note", metavar="TEXT", help="What to remember of it, in place of any note before; empty: nothing.")
@click.option("--archive/--unarchive", "archived", default=None, help="Put it away, or take it back.")
@shared_options
@click.pass_context
def command(
    ctx: click.Context,
    *,
    refs: tuple[str, ...],
    tags: tuple[str, ...],
    untags: tuple[str, ...],
    note: str | None,
    archived: bool | None,
) -> None:
    """Tag experiments, note something of them, put them away.

    The line in the log stays as it is; what is said of it is kept beside the log. `qlog list` and `qlog show` show it,
    and filters find it. Saying the same again changes nothing.
    """
    from client.columns import COLUMNS, list_output

    annotation = Annotation(tags, untags, note, archived)
    if annotation.empty:
        raise click.UsageError("give --tag, --untag, --note, --archive or --unarchive", ctx=ctx)
    both = sorted(set(tags) & set(untags))
    if both:
        raise click.UsageError(f"--tag {both[0]} and --untag {both[0]} contradict each other", ctx=ctx)
    settings = settings_of(ctx)
    experiments = ask(settings, lambda api: [api.annotate(ref, annotation) for ref in refs], Use.CHANGE)
    columns = [COLUMNS[name] for name in ("number", "id", "model", "tags", "note", "archived")]
    answer(list_output(experiments, columns, all_data=False), settings)
