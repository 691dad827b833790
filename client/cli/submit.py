"""`qlog submit`."""

import shlex
import sys
import uuid
from functools import partial
from typing import Any

import click
from qlog.v1.options import SpecCommand, spec_options

from client.cli.options import answer, note, settings_of, shared_options
from client.errors import ExperimentFailedError, QlogError
from client.events import ExperimentEvent
from client.job_document import job_output, state_text, summary_output
from client.jobs import Job, JobEvent
from client.live import LiveLines
from client.render import Format
from client.settings import Settings, open_quantizer
from client.text import escape
from client.values import COMPLETED
from client.watch_lines import event_text, progress_of

_EPILOG = """\b
Examples:
  qlog submit models/mamba-2m --quantize --eval_zero_shot --task_list gutenberg_cloze --wait
  qlog --quantizer gpu1:50552 submit state-spaces/mamba-130m --quantize --percentile_alpha 1.0
"""


def _uuid(_ctx: click.Context, _param: click.Parameter, value: str | None) -> str:
    if value is None:
        return str(uuid.uuid4())
    try:
        return str(uuid.UUID(value))
    except ValueError:
        raise click.BadParameter(f"{value!r} is no UUID") from None


@click.command("submit", cls=SpecCommand, epilog=_EPILOG)
@spec_options
@click.option("--wait", is_flag=True, help="Wait for its end, show progress, print the summary.")
@click.option(
    "--watch/--no-watch", default=None, help="Show progress, as --wait does; or, with --wait, only the summary."
)
@click.option(
    "--request_id", "--request-id", metavar="UUID", callback=_uuid, help="Submitting again with it is no second job."
)
@shared_options
@click.pass_context
def command(ctx: click.Context, /, *, wait: bool, watch: bool | None, request_id: str, **options: Any) -> None:
    """Submit an experiment to a quantizer.

    MODEL is a name below the quantizer's model root, as the quantizer sees it, or a hub id. Without --wait the answer
    is the job: look at it with `qlog jobs`, follow it with `qlog watch ID`, end it with `qlog cancel ID`.
    """
    settings = settings_of(ctx)
    typed = shlex.join(["qlog", *ctx.ensure_object(dict)["arguments"]])
    with open_quantizer(settings) as api:
        job = api.submit(options, request_id, typed)
    if not (wait or watch):
        answer(job_output(job), settings)
        return
    if settings.form is Format.TABLE:
        answer(job_output(job), settings)
        sys.stdout.flush()
    job = _wait(settings, job, shown=watch is not False)
    if job.state != COMPLETED or job.error:
        if settings.form is not Format.TABLE:
            answer(job_output(job), settings)
        why = f": {job.error}" if job.error else ""
        raise ExperimentFailedError(f"job {job.name} {job.state}{why}")
    answer(summary_output(job), settings)


def _wait(settings: Settings, job: Job, *, shown: bool) -> Job:
    from client.job_follow import follow_job

    lines = LiveLines(sys.stderr)

    def tell(event: JobEvent) -> None:
        match event:
            case Job():
                lines.line(state_text(event))
            case ExperimentEvent():
                progress, text = progress_of(event), event_text(event)
                if progress is not None and text is not None:
                    lines.progress(job.name, progress, text)
                elif text is not None:
                    lines.line(text)
            case _:
                lines.line(escape(event.text))

    def lost(error: QlogError) -> None:
        note(f"{error}; looking for it again")

    try:
        return follow_job(
            partial(open_quantizer, settings), job.name, on_event=tell if shown else _ignore, on_lost=lost
        )
    except KeyboardInterrupt:
        note(f"the job goes on: `qlog watch {job.experiment_id}`, `qlog cancel {job.experiment_id}`")
        raise
    finally:
        lines.close()


def _ignore(_event: JobEvent) -> None:
    """With --no-watch nothing is told on the way."""
