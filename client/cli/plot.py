"""`qlog plot`."""

from functools import partial
from pathlib import Path

import click

from client.cli.options import REF_CONTEXT, answer, note, reference_list, settings_of, shared_options
from client.plot import KINDS, plot_output, require_matplotlib, write_picture
from client.plot_data import MAX_EXPERIMENTS, picture
from client.settings import ask

_EPILOG = """\b
Examples:
  qlog plot -1
  qlog plot 0 1 4 --output alphas.pdf
  qlog plot 0,1 --tensors '*.x_proj:input' --tensors '*.ssm_state_act:input' -o ranges.svg
  qlog plot 3 --stat sqnr_db --stat my_kurtosis -o noise.png
  qlog plot 0 1 --lang zh --font NotoSansSC-Regular.otf -o 对比.png

Pictures need matplotlib: pip install 'qlog-ssm[plot]'.
"""


def _file(_ctx: click.Context, _param: click.Parameter, value: Path | None) -> Path | None:
    if value is not None and value.suffix.lower().removeprefix(".") not in KINDS:
        raise click.BadParameter(f"{str(value)!r} ends in none of {', '.join(f'.{kind}' for kind in KINDS)}")
    return value


@click.command("plot", epilog=_EPILOG, context_settings=dict(REF_CONTEXT))
@click.argument("refs", metavar="REF...", nargs=-1, required=True, callback=reference_list)
@click.option(
    "--output",
    "-o",
    type=click.Path(path_type=Path),
    metavar="FILE",
    callback=_file,
    help="The picture, a .png, .svg or .pdf; replaced where it is there.  [default: experiments-REF-REF.png]",
)
@click.option(
    "--tensors", "globs", multiple=True, metavar="GLOB", help="Only tensors whose names match; may be repeated."
)
@click.option(
    "--stat",
    "statistics",
    multiple=True,
    metavar="NAME",
    help="This statistic of each tensor, your own too, in place of ranges and clipped shares; may be repeated.",
)
@click.option(
    "--font",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="A font for characters that the usual one lacks.  [default: one of this machine's]",
)
@shared_options
@click.pass_context
def command(
    ctx: click.Context,
    *,
    refs: tuple[str, ...],
    output: Path | None,
    globs: tuple[str, ...],
    statistics: tuple[str, ...],
    font: Path | None,
) -> None:
    """Draw experiments: ranges before and after clipping, clipped shares, the effect of reordering, by layer.

    There is a row for each kind of tensor. Several experiments stand side by side in colours, with what they came to
    below. With --format json or csv the numbers that are drawn are written to the standard output.
    """
    if len(refs) > MAX_EXPERIMENTS:
        raise click.UsageError(f"{len(refs)} experiments: colours tell {MAX_EXPERIMENTS} apart", ctx=ctx)
    settings = settings_of(ctx)
    require_matplotlib()
    experiments = ask(settings, lambda api: [api.get(ref, full=True) for ref in refs])
    named = "-".join(one.name.removeprefix("#") for one in experiments)
    file = output or Path(f"experiments-{named}.png")
    drawn = write_picture(partial(picture, experiments, globs, statistics), file, font, note)
    answer(plot_output(drawn, file), settings)
