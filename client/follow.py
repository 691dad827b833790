"""Following experiments over broken connections and restarts of the collector."""

import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace

from client.errors import InvalidRequestError, QlogError, StoreError, StreamLostError, UnreachableError
from client.events import WatchBatch
from client.settings import CollectorSession

# A local store that nobody writes to is looked at again after so long: a run may have begun.
ALONE_S = 2.0


@dataclass(frozen=True, slots=True)
class Patience:
    """For how long a lost server is looked for: after `first_s`, then ever more seldom, at least every `longest_s`."""

    first_s: float = 0.25
    longest_s: float = 5.0
    give_up_s: float = 120.0
    sleep: Callable[[float], None] = time.sleep

    def pauses(self) -> Iterator[float]:
        """The waits between attempts, in seconds; the first one is made at once."""
        yield 0.0
        passed = 0.0
        while passed < self.give_up_s:
            pause = min(self.longest_s, self.first_s + passed)
            passed += pause
            yield pause


@dataclass(slots=True)
class _Place:
    """How far one has read: the server's token, and where each experiment's news begin."""

    token: str = ""
    next_offset: dict[str, int] = field(default_factory=dict)

    def news(self, batch: WatchBatch) -> WatchBatch:
        """The batch without events that were told before."""
        self.token = batch.resume_token or self.token
        start = self.next_offset.get(batch.experiment_id, 0)
        events = tuple(event for event in batch.events if event.offset is None or event.offset >= start)
        offsets = [event.offset + 1 for event in events if event.offset is not None]
        self.next_offset[batch.experiment_id] = max([start, *offsets])
        return replace(batch, events=events)


def follow(
    connect: Callable[[], AbstractContextManager[CollectorSession]],
    experiment_id: str,
    *,
    on_lost: Callable[[QlogError], None],
    on_alone: Callable[[], None],
    patience: Patience | None = None,
) -> Iterator[WatchBatch]:
    """Events of one experiment until it ends, or of all (an empty id) for ever; each once.

    Args:
        connect: finds the collector, anew after each loss.
        on_lost: told when a connection is lost and not there again at once.
        on_alone: told when nobody writes to a local store.

    Raises:
        QlogError: the collector refuses, or stays away for longer than `patience` allows.
    """
    patience = patience or Patience()
    place = _Place()
    pauses, told_lost, told_alone = patience.pauses(), False, False
    while True:
        alone = False
        try:
            with connect() as session:
                alone = session.alone
                for batch in session.api.watch(experiment_id, place.token, ALONE_S if alone else None):
                    pauses, told_lost = patience.pauses(), False
                    yield place.news(batch)
                    if batch.ended is not None and experiment_id:
                        return
            # The stream ended in order, and yet the experiment has not: the server forgot to say why.
            lost: QlogError = StreamLostError("the collector ended the stream")
        except (StreamLostError, UnreachableError, StoreError) as error:
            lost = error
        except InvalidRequestError:
            if not place.token:
                raise
            # A token of a server that is no more; what was told already is known by its offsets.
            place.token = ""
            continue
        if alone:
            if not told_alone:
                on_alone()
                told_alone = True
            patience.sleep(patience.first_s)
            continue
        pause = next(pauses, None)
        if pause is None:
            raise lost
        if pause and not told_lost:
            on_lost(lost)
            told_lost = True
        patience.sleep(pause)


__all__ = ["ALONE_S", "Patience", "follow"]
