"""`quantizer run`: one experiment in this process, recorded in the local store or by a collector elsewhere."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

import click
from qlog.v1.credentials import Credentials

from quantizer.config import RunConfig
from quantizer.console import Console
from quantizer.embedded import LocalEndpoint
from quantizer.environment import describe
from quantizer.events import ExperimentEvent
from quantizer.ids import new_experiment_id
from quantizer.outcome import Outcome
from quantizer.recorder import Recorder, Recording
from quantizer.summary import summary
from quantizer.surroundings import examine


class TerminatedError(KeyboardInterrupt):
    """SIGTERM or SIGHUP: ends an experiment as Ctrl-C does."""

    def __init__(self, number: int) -> None:
        super().__init__(signal.Signals(number).name)
        self.exit_code = 128 + number


def run_here(
    config: RunConfig,
    *,
    command: str,
    log_dir: Path,
    collector: str | None,
    credentials: Credentials | None = None,
    language: str = "en",
    console: Console | None = None,
) -> None:
    """Run one experiment, or one for each alpha with one calibration, and print the summaries in a language.

    Raises:
        SpecError: something that it needs is not there; nothing has been written.
        QuantizerError: `log_dir` cannot be used (nothing has been run), or the experiment failed (and is recorded so).
        KeyboardInterrupt: it was stopped, and is recorded as CANCELLED.
    """
    config = examine(config)
    from quantizer.runner import run_experiment
    from quantizer.workbench import Workbench

    # Now: it starts a program (git), which is better done before gRPC has threads.
    environment = describe(config.device)
    console = console or Console(verbose=config.verbose)
    local = LocalEndpoint(log_dir)
    try:
        if collector is None:
            local.check()
        recorder = Recorder(
            log_dir,
            collector=collector,
            open_local=lambda: local,
            warn=console.warn_once,
            credentials=credentials,
        )
        experiments, outcomes = config.experiments(), dict[str, Outcome]()
        bench = Workbench(experiments)
        try:
            with recorder, _signals_as_interrupts():
                for number, experiment in enumerate(experiments, 1):
                    if len(experiments) > 1:
                        console.line(f"experiment {number} of {len(experiments)}: {_alpha(experiment)}")
                    experiment_id = new_experiment_id()
                    recording = recorder.recording(experiment_id)

                    def emit(event: ExperimentEvent, recording: Recording = recording) -> None:
                        console.show(event)
                        recording.record(event)

                    outcomes[experiment_id] = run_experiment(
                        experiment,
                        experiment_id=experiment_id,
                        command=command,
                        environment=environment,
                        emit=emit,
                        bench=bench,
                    )
                console.end()
        finally:
            console.end()
            # Of a sweep that was stopped, what it had done.
            for experiment_id, outcome in outcomes.items():
                click.echo(summary(outcome, recorder.delivery(experiment_id), language))
    finally:
        console.end()
        local.close()


def _alpha(config: RunConfig) -> str:
    alpha = config.percentile_alpha
    return f"percentile_alpha {'default' if alpha is None else alpha}"


@contextmanager
def _signals_as_interrupts() -> Iterator[None]:
    def interrupt(number: int, _frame: FrameType | None) -> None:
        raise TerminatedError(number)

    # Where someone ignores them (nohup), they stay ignored.
    changed = [number for number in (signal.SIGTERM, signal.SIGHUP) if signal.getsignal(number) is signal.SIG_DFL]
    for number in changed:
        signal.signal(number, interrupt)
    try:
        yield
    finally:
        for number in changed:
            signal.signal(number, signal.SIG_DFL)


__all__ = ["TerminatedError", "run_here"]
