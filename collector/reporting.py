"""What a collector says of its store: what it serves, and what is wrong with it."""

from collections.abc import Iterator
from functools import cache

from google.protobuf.timestamp_pb2 import Timestamp
from qlog.v1 import collector_pb2

from collector import patience
from collector.fsck import Checked
from collector.gate import Gate
from collector.store import Store


def store_info(store: Store, open_time: Timestamp) -> collector_pb2.GetStoreInfoResponse:
    """What is served, since when."""
    index = store.index()
    corrupt = index.corrupt_count()
    annotated, amended = store.meta.counts()
    return collector_pb2.GetStoreInfoResponse(
        path=str(store.path),
        size_bytes=store.committed_size(),
        experiments=index.count() - corrupt,
        corrupt_lines=corrupt,
        running=len(store.running()),
        open_time=open_time,
        version=_version(),
        read_only=store.read_only,
        meta_size_bytes=store.meta.size,
        corrupt_meta_lines=store.meta.corrupt,
        annotated=annotated,
        amended=amended,
        lease_s=store.lease_s,
    )


def findings(store: Store, gate: Gate) -> Iterator[collector_pb2.CheckStoreResponse]:
    """What is wrong in any file, and at last what was read."""
    checked = Checked()
    for found in store.check(checked):
        gate.check()
        patience.check()
        checked.counts[found.severity] += 1
        finding = collector_pb2.Finding(
            kind=f"FINDING_KIND_{found.kind}",
            severity=f"FINDING_SEVERITY_{found.severity}",
            file=found.file,
            offset=found.offset,
            number=found.number,
            experiment_id=found.experiment_id,
            message=found.message,
        )
        yield collector_pb2.CheckStoreResponse(findings=[finding])
    summary = collector_pb2.CheckSummary(
        lines=checked.lines,
        verified_lines=checked.verified_lines,
        meta_lines=checked.meta_lines,
        running=checked.running,
        bytes=checked.bytes,
        notices=checked.counts["NOTICE"],
        warnings=checked.counts["WARNING"],
        errors=checked.counts["ERROR"],
    )
    yield collector_pb2.CheckStoreResponse(summary=summary)


@cache
def _version() -> str:
    # Imported when asked for: it takes as long as opening a small store.
    from importlib import metadata

    return metadata.version("qlog-ssm")


__all__ = ["findings", "store_info"]
