"""Experiments that finish together have their lines written together, and what befalls one is none of the others'."""

from collections.abc import Iterable
from pathlib import Path
from queue import SimpleQueue
from typing import Any

from collector.errors import CollectorError, StoreUnavailableError
from collector.fold import CODEC, fold_record
from collector.ledger import Codec, Receipt
from collector.observer import StoreObserver
from collector.records import Record
from collector.store import LOG_NAME, Store, open_store
from tests.collector.builders import batch, log_lines, new_id, whole

_Answers = SimpleQueue[tuple[str, Receipt | CollectorError]]


def finished_while_one_waits(store: Store, names: list[str]) -> dict[str, Receipt | CollectorError]:
    """The answers to whole experiments, all but the first of which arrive while the writer waits to write that."""
    answers: _Answers = SimpleQueue()
    waiting = SimpleQueue[None]()
    original = store._ingest._endings._record

    def record(name: str) -> Record:
        waiting.put(None)
        return original(name)

    store._ingest._endings._record = record
    with store._catalog.lock:
        for place, name in enumerate(names):
            store.submit(batch(name, whole(model=name)), lambda answer, name=name: answers.put((name, answer)))
            if place == 0:
                waiting.get(timeout=20)
    return dict(answers.get(timeout=30) for _ in names)


def opened(log_dir: Path, codec: Codec = CODEC, **more: Any) -> Store:
    return open_store(log_dir, codec, allow_network_fs=True, **more)


def test_one_sync_of_the_log_for_all(tmp_path: Path) -> None:
    """A line for each, in the order in which they came, each with its number; the log is synced twice for eight."""
    synced: list[str] = []
    store = opened(tmp_path, observer=StoreObserver(synced=lambda name, _seconds: synced.append(name)))
    names = [new_id() for _ in range(8)]
    answers = finished_while_one_waits(store, names)
    assert [answers[name].number for name in names] == list(range(8))
    assert synced.count(LOG_NAME) == 2
    assert [store.index().by_id(name).number for name in names] == list(range(8))
    store.close()
    assert [name in line.decode() for name, line in zip(names, log_lines(tmp_path), strict=True)] == [True] * 8
    with_new_index = opened(tmp_path, read_only=True)
    assert with_new_index.index().count() == 8
    with_new_index.close()


def test_a_record_that_cannot_be_written_is_none_of_the_others(tmp_path: Path) -> None:
    """Its sender is told; the others have their lines, and no number is left out."""
    names = [new_id() for _ in range(4)]

    def fold(experiment_id: str, batches: Iterable[tuple[bytes, int]]) -> Record:
        record = fold_record(experiment_id, batches)
        return record | {"other": object()} if experiment_id == names[2] else record

    store = opened(tmp_path, Codec(fold, CODEC.without_first))
    answers = finished_while_one_waits(store, names)
    assert isinstance(answers.pop(names[2]), StoreUnavailableError)
    assert [answer.number for answer in answers.values()] == [0, 1, 2]
    store.close()
    assert len(log_lines(tmp_path)) == 3
    # What was kept becomes a line as soon as it can be one.
    again = opened(tmp_path)
    assert again.index().by_id(names[2]).number == 3
    again.close()
