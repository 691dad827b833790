"""Following a job to its end, over broken connections and restarts of the quantizer."""

from collections.abc import Callable, Hashable, Iterator

from client.errors import QlogError, StreamLostError, UnreachableError
from client.events import ExperimentEvent
from client.follow import Patience
from client.jobs import Job, JobEvent, LogLine
from client.quantizer_api import QuantizerApi


def _identity(event: JobEvent) -> Hashable:
    """What makes an event the same as one that was told before."""
    match event:
        case LogLine(text):
            return ("log", text)
        case Job():
            return ("job", event.state, event.device, event.queue_position)
        case ExperimentEvent():
            return (event.kind, repr(event.data))


def follow_job(
    connect: Callable[[], QuantizerApi],
    name: str,
    *,
    on_event: Callable[[JobEvent], None],
    on_lost: Callable[[QlogError], None],
    patience: Patience | None = None,
) -> Job:
    """Tell what happens in a job; the job as it ended.

    Args:
        connect: opens a connection, anew after each loss.
        name: of its operation.
        on_event: told each event, once.
        on_lost: told when the connection is lost and not there again at once.

    Raises:
        QlogError: the quantizer refuses, or stays away for longer than `patience` allows.
    """
    patience = patience or Patience()
    told: set[Hashable] = set()
    pauses, told_lost = patience.pauses(), False
    while True:
        lost: QlogError | None = None
        try:
            with connect() as api:
                # A stream tells a job from its start: what was told before a loss is not news.
                for event in _news(api.watch(name), told):
                    pauses, told_lost = patience.pauses(), False
                    on_event(event)
                job = api.job(name)
                if job.done:
                    return job
        except (StreamLostError, UnreachableError) as error:
            lost = error
        pause = next(pauses, None)
        if lost is not None and pause and not told_lost:
            on_lost(lost)
            told_lost = True
        if pause is None:
            raise lost or StreamLostError(f"{name} tells nothing more, and yet has not ended: look with `qlog jobs`")
        patience.sleep(pause)


def _news(events: Iterator[JobEvent], told: set[Hashable]) -> Iterator[JobEvent]:
    before = frozenset(told)
    for event in events:
        identity = _identity(event)
        told.add(identity)
        if identity not in before:
            yield event


__all__ = ["follow_job"]
