"""What the client can ask a collector: functions of our own values over the stubs of its service."""

from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING

import grpc
from qlog.v1 import collector_pb2 as pb
from qlog.v1 import collector_pb2_grpc
from qlog.v1.credentials import Credentials

from client import rpc, wire
from client.connection import Connection
from client.errors import QlogError
from client.values import Experiment, ExperimentPage

if TYPE_CHECKING:
    from client.annotations import Annotation
    from client.backup import BackupChunk
    from client.checks import CheckReport
    from client.comparisons import Comparison
    from client.events import WatchBatch
    from client.imports import ImportReport

MAX_PAGE_SIZE = 1000
# With statistics an experiment has a hundred times as much.
_FULL_PAGE_SIZE = 50


class CollectorApi(Connection):
    """The experiments that a collector has."""

    program = "collector"

    def __init__(self, endpoint: str, timeout_s: float = 30.0, credentials: Credentials | None = None) -> None:
        super().__init__(endpoint, timeout_s, credentials)
        self._stub = collector_pb2_grpc.CollectorServiceStub(self.channel)

    def page(
        self,
        *,
        page_size: int,
        page_token: str = "",
        order_by: str = "number",
        filter_text: str = "",
        running: bool = False,
    ) -> ExperimentPage:
        """One page of experiments, without statistics; by number, running ones, where wanted, are the newest.

        Args:
            order_by: fields with asc or desc, as "results.accuracy desc, number".

        Raises:
            QlogError: the call failed.
        """
        request = pb.ListExperimentsRequest(
            filter=filter_text,
            order_by=order_by,
            page_size=page_size,
            page_token=page_token,
            view=pb.EXPERIMENT_VIEW_BASIC,
            include_running=running,
        )
        return wire.page_from(self.call(self._stub.ListExperiments, request))

    def get(self, ref: str, *, full: bool) -> Experiment:
        """One experiment; `full`: with its tensors' statistics.

        Raises:
            QlogError: the call failed.
        """
        view = pb.EXPERIMENT_VIEW_FULL if full else pb.EXPERIMENT_VIEW_BASIC
        response = self.call(self._stub.GetExperiment, pb.GetExperimentRequest(ref=ref, view=view))
        return wire.experiment_from(response.experiment, full=full)

    def compare(self, refs: Sequence[str]) -> "Comparison":
        """Two or more experiments side by side.

        Raises:
            QlogError: the call failed.
        """
        from client.compare_wire import comparison_from

        return comparison_from(self.call(self._stub.CompareExperiments, pb.CompareExperimentsRequest(refs=refs)))

    def every(self, filter_text: str = "", *, full: bool = False) -> Iterator[Experiment]:
        """All experiments that have ended and match, by number, page by page; `full`: with statistics.

        Raises:
            QlogError: a call failed.
        """
        token = ""
        while True:
            request = pb.ListExperimentsRequest(
                filter=filter_text,
                order_by="number",
                page_size=_FULL_PAGE_SIZE if full else MAX_PAGE_SIZE,
                page_token=token,
                view=pb.EXPERIMENT_VIEW_FULL if full else pb.EXPERIMENT_VIEW_BASIC,
            )
            response = self.call(self._stub.ListExperiments, request)
            for experiment in response.experiments:
                yield wire.experiment_from(experiment, full=full)
            token = response.next_page_token
            if not token:
                return

    def export(self, filter_text: str = "", *, as_shown: bool = False, start: int = 0) -> Iterator[bytes]:
        """The lines of the log as they stand there, cut anywhere; `as_shown`: with what was said of each since.

        Args:
            start: the byte of the log to begin with; of the whole log as it stands.

        Raises:
            QlogError: the call failed.
        """
        request = pb.ExportExperimentsRequest(
            filter=filter_text,
            format=pb.EXPORT_FORMAT_JSONL,
            as_shown=as_shown,
            resume_token=str(start) if start else "",
        )
        for response in self.stream(self._stub.ExportExperiments, request):
            yield response.chunk

    def import_lines(self, chunks: Iterable[bytes]) -> "ImportReport":
        """Add lines of another log, cut anywhere; what is there already is not added again.

        Raises:
            QlogError: the call failed.
        """
        from client.imports import import_report_from

        failures: list[QlogError] = []

        def requests() -> Iterator[pb.ImportExperimentsRequest]:
            # gRPC reads in a thread of its own, where an error would be lost.
            try:
                for chunk in chunks:
                    yield pb.ImportExperimentsRequest(chunk=chunk)
            except QlogError as error:
                failures.append(error)
                call.cancel()

        # It takes as long as the file is large: no deadline.
        call = self._stub.ImportExperiments.future(requests())
        try:
            return import_report_from(call.result())
        except grpc.FutureCancelledError:
            raise failures[0] from None
        except grpc.RpcError as error:
            raise rpc.translated(error, self.endpoint, self.program) from error
        finally:
            call.cancel()

    def annotate(self, ref: str, annotation: "Annotation") -> Experiment:
        """Change an experiment's tags, note or archive mark; the experiment after it.

        Raises:
            QlogError: the call failed.
        """
        request = pb.AnnotateExperimentRequest(
            ref=ref,
            add_tags=annotation.add_tags,
            remove_tags=annotation.remove_tags,
            note=annotation.note,
            archived=annotation.archived,
        )
        return wire.experiment_from(self.call(self._stub.AnnotateExperiment, request).experiment)

    def check(self) -> "CheckReport":
        """Have the store checked, every line of every file.

        Raises:
            QlogError: the call failed.
        """
        from client.checks import CheckReport, counts_from, finding_from

        findings, counts = [], {}
        for response in self.stream(self._stub.CheckStore, pb.CheckStoreRequest()):
            findings += [finding_from(finding) for finding in response.findings]
            if response.HasField("summary"):
                counts = counts_from(response.summary)
        return CheckReport(tuple(findings), counts)

    def backup(self) -> "Iterator[BackupChunk]":
        """The files of the store as of one moment, one after the other.

        Raises:
            QlogError: the call failed.
        """
        from client.backup import BackupChunk

        for response in self.stream(self._stub.BackupStore, pb.BackupStoreRequest()):
            yield BackupChunk(response.file, response.offset, response.chunk, response.size_bytes)

    def running(self) -> int:
        """How many experiments have not ended.

        Raises:
            QlogError: the call failed.
        """
        return int(self.call(self._stub.GetStoreInfo, pb.GetStoreInfoRequest()).running)

    def watch(
        self, experiment_id: str = "", resume_token: str = "", timeout_s: float | None = None
    ) -> "Iterator[WatchBatch]":
        """Events as they arrive, those of before first; of one experiment until it ends, or of all for ever.

        Raises:
            StreamLostError: the stream broke off, or `timeout_s` is over: resume it with the last token.
            QlogError: the call failed.
        """
        from client.event_wire import batch_from

        request = pb.WatchExperimentsRequest(experiment_id=experiment_id, resume_token=resume_token)
        for response in self.stream(self._stub.WatchExperiments, request, timeout_s, resumable=True):
            yield batch_from(response)


__all__ = ["MAX_PAGE_SIZE", "CollectorApi"]
