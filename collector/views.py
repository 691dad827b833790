"""Experiments as clients see them: lines of the log and those that run, BASIC and FULL."""

import threading
from dataclasses import dataclass
from functools import lru_cache

import orjson
from qlog.v1 import common_pb2 as pb

from collector.annotations import NOTHING_SAID, Annotation
from collector.errors import NotFoundError
from collector.fold import Fold
from collector.index import Entry
from collector.records import Record
from collector.refs import resolve
from collector.store import Store
from collector.wire import corrupt_experiment, experiment_from_record, record_from_experiment

_READ_BYTES = 4 << 20
# BASIC views that are kept: most lists are of the same, newest ones.
_KEPT = 1024


@dataclass
class _Partial:
    """A BASIC view that is brought up to date by what came since."""

    fold: Fold
    offset: int = 0


@lru_cache(_KEPT)
def _basic(entry: Entry) -> pb.Experiment:
    """The BASIC view of a line, without what was said of it; not to be changed."""
    try:
        record = entry.basic_record()
    except orjson.JSONDecodeError as error:
        # It was whole when it was indexed.
        return corrupt_experiment(entry.number, f"the line at byte {entry.offset} was damaged: {error}")
    return experiment_from_record(record, number=entry.number, layer_stats_count=entry.layer_stats_count)


class Views:
    """Views of one store's experiments."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._lock = threading.Lock()
        self._partials: dict[str, _Partial] = {}

    def get(self, ref: str, *, full: bool, field: str = "ref") -> pb.Experiment:
        """The experiment that a REF names.

        Raises:
            CollectorError: there is none, or it cannot be read.
        """
        return self.of(resolve(self._store, ref, field), full=full)

    def of(self, item: Entry | str, *, full: bool) -> pb.Experiment:
        """The experiment of a line, or the one that runs under an id."""
        return self.of_entry(item, full=full) if isinstance(item, Entry) else self.of_running(item, full=full)

    def of_entry(self, entry: Entry, *, full: bool) -> pb.Experiment:
        """The experiment of a line, not to be changed; a corrupt one is shown as such."""
        said, amended = self._store.annotation(entry), self._store.meta.is_amended(entry.number)
        if entry.corrupt:
            experiment = corrupt_experiment(entry.number, entry.error)
        elif full:
            experiment = experiment_from_record(self._store.record(entry), number=entry.number)
        elif not amended and said == NOTHING_SAID:
            return _basic(entry)
        else:
            experiment = pb.Experiment()
            experiment.CopyFrom(_basic(entry))
        experiment.amended = amended
        return _annotated(experiment, said)

    def of_running(self, experiment_id: str, *, full: bool) -> pb.Experiment:
        """The experiment as far as it has come; as its line has it where it ends meanwhile.

        Raises:
            NotFoundError: it neither runs nor has a line.
        """
        if full:
            partial = _Partial(Fold(experiment_id, keep_stats=True))
            self._advance(experiment_id, partial)
            experiment = partial.fold.experiment()
        else:
            with self._lock:
                partial = self._partials.setdefault(experiment_id, _Partial(Fold(experiment_id, keep_stats=False)))
                self._advance(experiment_id, partial)
                experiment = partial.fold.experiment()
                self._forget_ended()
        entry = self._store.index().by_id(experiment_id)
        if entry is not None:
            return self.of_entry(entry, full=full)
        if partial.offset == 0:
            raise NotFoundError(f"there is no experiment {experiment_id}")
        # A finish whose line could not be written yet does not end it.
        experiment.status = pb.EXPERIMENT_STATUS_RUNNING
        return _annotated(experiment, self._store.annotation(experiment_id))

    def start_of(self, experiment_id: str) -> int:
        """When a running experiment began, in nanoseconds since 1970; 0 where that is not known."""
        try:
            start_time = self.of_running(experiment_id, full=False).start_time
        except NotFoundError:
            return 0
        return max(0, start_time.ToNanoseconds())

    def running_record(self, experiment_id: str, *, full: bool) -> Record | None:
        """The record of an experiment that runs, as far as it has come; None where it does not any more."""
        try:
            experiment = self.of_running(experiment_id, full=full)
        except NotFoundError:
            return None
        return None if experiment.HasField("number") else record_from_experiment(experiment)

    def record(self, ref: str, field: str) -> Record:
        """The full record of the experiment that a REF names.

        Raises:
            CollectorError: there is none, or it cannot be read.
        """
        found = resolve(self._store, ref, field)
        if isinstance(found, Entry):
            return self._store.record(found)
        return record_from_experiment(self.of_running(found, full=True))

    def _advance(self, experiment_id: str, partial: _Partial) -> None:
        while batches := self._store.events(experiment_id, partial.offset, max_bytes=_READ_BYTES):
            for first, count, payload in batches:
                partial.fold.add_payload(payload, count)
                partial.offset = first + count

    def _forget_ended(self) -> None:
        running = self._store.running()
        for experiment_id in self._partials.keys() - running.keys():
            del self._partials[experiment_id]


def _annotated(experiment: pb.Experiment, said: Annotation) -> pb.Experiment:
    experiment.tags.extend(said.tags)
    experiment.note, experiment.archived = said.note, said.archived
    return experiment


__all__ = ["Views"]
