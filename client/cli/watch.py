"""`qlog watch`."""

import sys
from functools import partial

import click
from qlog.v1.command_line import counted

from client.cli.options import NEGATIVE_NUMBER, REF_CONTEXT, note, references, settings_of, shared_options
from client.errors import ExperimentFailedError, NotFoundError, QlogError
from client.events import WatchBatch
from client.live import LiveLines
from client.render import Format
from client.render_json import json_text
from client.settings import Settings, ask, open_collector
from client.values import COMPLETED, Experiment, short_id
from client.watch_lines import ended_data, ended_text, event_data, event_text, progress_of

_EPILOG = """\b
Examples:
  qlog watch
  qlog watch 0199c0de
  qlog watch -1
  qlog watch 0199c0de --format json | jq 'select(.event == "layer_stats").name'
"""


class _Printer:
    """Tells what happens, in the form that was asked for."""

    def __init__(self, form: Format, *, named: bool) -> None:
        self._json = form is Format.JSON
        self._named = named
        self.lines = LiveLines(sys.stdout)

    def batch(self, batch: WatchBatch) -> None:
        """Tell what arrived together."""
        for event in batch.events:
            if self._json:
                self.lines.line(json_text(event_data(event), indent=None))
                continue
            text, progress = event_text(event), progress_of(event)
            if text is None:
                continue
            if progress is None:
                self.lines.line(self._prefix(event.experiment_id) + text)
            else:
                self.lines.progress(event.experiment_id, progress, self._prefix(event.experiment_id) + text)
        if batch.ended is not None:
            self.ended(batch.ended)

    def ended(self, experiment: Experiment) -> None:
        """Tell how an experiment ended."""
        if self._json:
            self.lines.line(json_text(ended_data(experiment), indent=None))
        else:
            self.lines.line(self._prefix(experiment.experiment_id) + ended_text(experiment))

    def _prefix(self, experiment_id: str) -> str:
        return f"{short_id(experiment_id)}  " if self._named else ""


@click.command("watch", epilog=_EPILOG, context_settings=dict(REF_CONTEXT))
@click.argument("ref", metavar="[REF]", required=False, callback=references)
@shared_options
@click.pass_context
def command(ctx: click.Context, *, ref: str | None) -> None:
    """Watch what runs, or one experiment until it ends.

    Without REF all that run or begin, until Ctrl-C. REF is the id of one, or a unique prefix of it; what runs has no
    number yet, so that a number, or -1 for the last line of the log, names one that has ended. Of such a one the end is
    told at once.

    Shows phases, progress, the statistics of each layer and results as they arrive. Fails if the experiment did. With
    --format json each event is an object on a line of its own.
    """
    settings = settings_of(ctx)
    if settings.form not in {Format.TABLE, Format.JSON}:
        raise click.UsageError(f"--format {settings.form.value}: watch writes lines (table) or json", ctx=ctx)
    printer = _Printer(settings.form, named=ref is None)
    if ref is None:
        experiment = None
        # Also whether anybody is there: a stream that brings no news cannot tell.
        count = ask(settings, lambda api: api.running())
        going = f"{counted(count, 'experiment')} {'runs' if count == 1 else 'run'}" if count else "nothing runs"
        note(f"watching {settings.place}, where {going} now; end with Ctrl-C")
    else:
        experiment = _find(settings, ref)
    if experiment is not None and experiment.ended:
        printer.ended(experiment)
    else:
        experiment = _watch(settings, printer, "" if experiment is None else experiment.experiment_id)
    # Lines of the earlier logger have no status: they were written by runs that came to their end.
    if experiment is not None and experiment.status not in {COMPLETED, ""}:
        error = experiment.record.get("error")
        why = f": {error}" if error else ""
        raise ExperimentFailedError(f"experiment {experiment.name} {experiment.status}{why}")


def _find(settings: Settings, ref: str) -> Experiment:
    try:
        return ask(settings, lambda api: api.get(ref, full=False))
    except NotFoundError as error:
        if settings.nothing_yet or ref.isdecimal() or NEGATIVE_NUMBER.fullmatch(ref):
            raise
        raise NotFoundError(f"{error}; one that has not begun is among the jobs of `qlog jobs`") from error


def _watch(settings: Settings, printer: _Printer, experiment_id: str) -> Experiment | None:
    from client.follow import follow

    def lost(error: QlogError) -> None:
        note(f"{error}; looking for it again")

    ended = None
    try:
        for batch in follow(
            partial(open_collector, settings),
            experiment_id,
            on_lost=lost,
            on_alone=lambda: note(f"nobody writes to {settings.place} now, waiting for a run"),
        ):
            printer.batch(batch)
            ended = batch.ended
    finally:
        printer.lines.close()
    return ended
