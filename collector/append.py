"""One AppendExperiment stream: a thread reads and submits, the call's own thread answers.

Apart, so that many batches wait for one sync of the disk together. Requests are answered in order; a sender that is far
ahead of its answers gets one for several. At most `MAX_PENDING_PER_STREAM` wait for their answer to be taken; a sender
that does not take them is not read further.
"""

import logging
import threading
from collections.abc import Iterator
from queue import SimpleQueue

import grpc
from qlog.v1 import collector_pb2

from collector.errors import CollectorError, DrainingError
from collector.gate import Gate
from collector.ledger import Receipt
from collector.limits import MAX_PENDING_PER_STREAM
from collector.received import Received, batch_of
from collector.store import Store

logger = logging.getLogger(__name__)

# With so many answers waiting to be sent, one of them stands for all before it that are of the same experiment: to
# send one costs more than to store a batch.
_MANY = 8

# What the reader, the writer and the server put for the answering thread: answers (for the id as it was sent), _End,
# _Gone.
_Answer = tuple[str, Receipt | CollectorError]


class _End:
    """No more requests."""

    def __init__(self, error: CollectorError | None = None) -> None:
        self.error = error


class _Gone:
    """The sender has hung up."""


def _response(sent_id: str, receipt: Receipt) -> collector_pb2.AppendExperimentResponse:
    return collector_pb2.AppendExperimentResponse(
        experiment_id=sent_id, committed_offset=receipt.committed_offset, number=receipt.number
    )


def _says_more(item: _Answer | _End, sent_id: str) -> bool:
    return not isinstance(item, _End) and item[0] == sent_id and isinstance(item[1], Receipt)


class Appender:
    """The two sides of one stream.

    Args:
        store: to append to.
        requests: from the sender.
        gate: of the server.
    """

    def __init__(self, store: Store, requests: Iterator[Received], gate: Gate) -> None:
        self._store = store
        self._requests = requests
        self._gate = gate
        self._inbox: SimpleQueue[_Answer | _End | _Gone] = SimpleQueue()
        self._window = threading.Semaphore(MAX_PENDING_PER_STREAM)
        self._submitted = 0
        self._stopped = False

    def hang_up(self) -> None:
        """The sender is gone: nothing is to be answered."""
        self._stop(_Gone())

    def responses(self) -> Iterator[collector_pb2.AppendExperimentResponse]:
        """The answers.

        Raises:
            CollectorError: what was wrong with a request, after the answers to all before it.
        """
        reader = threading.Thread(target=self._read, name="collector-append", daemon=True)
        reader.start()
        try:
            with self._gate.waker(self._drain):
                yield from self._answers()
        finally:
            self._stop(_Gone())

    def _answers(self) -> Iterator[collector_pb2.AppendExperimentResponse]:
        answered = 0
        end: _End | None = None
        # The last answer, where others stand behind it that say the same and more.
        held: tuple[str, Receipt] | None = None
        while end is None or answered < self._submitted:
            item = self._inbox.get()
            if isinstance(item, _Gone):
                return
            if held is not None and not _says_more(item, held[0]):
                yield _response(*held)
                held = None
            if isinstance(item, _End):
                end = end or item
                continue
            answered += 1
            sent_id, outcome = item
            if isinstance(outcome, CollectorError):
                raise outcome
            waiting = self._inbox.qsize()
            if waiting >= _MANY or (held is not None and waiting):
                held = sent_id, outcome
            else:
                held = None
                yield _response(sent_id, outcome)
            self._window.release()
        if end.error is not None:
            raise end.error

    def _drain(self) -> None:
        self._stop(_End(DrainingError("the collector is stopping: go on in a moment, after GetAppendStatus")))

    def _stop(self, last: _End | _Gone) -> None:
        self._stopped = True
        self._inbox.put(last)
        self._window.release()

    def _read(self) -> None:
        try:
            for request in self._requests:
                self._window.acquire()
                if self._stopped:
                    return
                self._submit(request)
            self._inbox.put(_End())
        except CollectorError as error:
            self._inbox.put(_End(error))
        except grpc.RpcError:
            self._inbox.put(_Gone())
        except Exception:
            logger.exception("reading a stream of events failed")
            self._inbox.put(_End(CollectorError("internal error: see the collector's log")))

    def _submit(self, request: Received) -> None:
        sent_id = request.experiment_id
        batch = batch_of(request)
        self._submitted += 1
        try:
            self._store.submit(batch, lambda outcome: self._inbox.put((sent_id, outcome)))
        except CollectorError:
            self._submitted -= 1
            raise


__all__ = ["Appender"]
