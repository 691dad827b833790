"""One AppendExperiment stream: a thread reads and submits, the call's own thread answers.

Apart, so that many batches wait for one sync of the disk together; each request is answered once, in order. At most
`MAX_PENDING_PER_STREAM` wait for their answer to be taken; a sender that does not take them is not read further.
"""

import logging
import threading
from collections.abc import Iterator
from queue import SimpleQueue

import grpc
from qlog.v1 import collector_pb2

from collector.batches import Batch
from collector.errors import CollectorError, DrainingError
from collector.ledger import Receipt
from collector.limits import MAX_PENDING_PER_STREAM
from collector.rpc import Gate
from collector.store import Store
from collector.validate import check_batch, check_experiment_id

logger = logging.getLogger(__name__)

# What the reader, the writer and the server put for the answering thread: answers (for the id as it was sent), _End,
# _Gone.
_Answer = tuple[str, Receipt | CollectorError]


class _End:
    """No more requests."""

    def __init__(self, error: CollectorError | None = None) -> None:
        self.error = error


class _Gone:
    """The sender has hung up."""


def batch_from_request(request: collector_pb2.AppendExperimentRequest) -> Batch:
    """The batch that a request carries, checked; the request is taken apart.

    Raises:
        InvalidRequestError: it breaks the contract.
    """
    experiment_id = check_experiment_id(request.experiment_id)
    kinds = check_batch(request)
    offset, count = request.offset, len(kinds)
    request.ClearField("experiment_id")
    request.ClearField("offset")
    finishes = count > 0 and kinds[-1] == "finish"
    return Batch(experiment_id, offset, count, kinds.count("layer_stats"), finishes, request.SerializeToString())


class Appender:
    """The two sides of one stream.

    Args:
        store: to append to.
        requests: from the sender.
        gate: of the server.
    """

    def __init__(self, store: Store, requests: Iterator[collector_pb2.AppendExperimentRequest], gate: Gate) -> None:
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
        while end is None or answered < self._submitted:
            item = self._inbox.get()
            if isinstance(item, _Gone):
                return
            if isinstance(item, _End):
                end = end or item
                continue
            answered += 1
            sent_id, outcome = item
            if isinstance(outcome, CollectorError):
                raise outcome
            yield collector_pb2.AppendExperimentResponse(
                experiment_id=sent_id, committed_offset=outcome.committed_offset, number=outcome.number
            )
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

    def _submit(self, request: collector_pb2.AppendExperimentRequest) -> None:
        sent_id = request.experiment_id
        batch = batch_from_request(request)
        self._submitted += 1
        try:
            self._store.submit(batch, lambda outcome: self._inbox.put((sent_id, outcome)))
        except CollectorError:
            self._submitted -= 1
            raise


__all__ = ["Appender", "batch_from_request"]
