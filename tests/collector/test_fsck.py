"""A check of the store finds each damage, where it is, and changes nothing."""

from qlog.v1 import collector_pb2 as wire

from collector.store import LOG_NAME
from tests.collector.builders import begin, log_lines, new_id, serving


def check(client):
    """(kind, severity, number) of each finding, and the summary."""
    *found, last = client.stub.CheckStore(wire.CheckStoreRequest(), timeout=30)
    findings = [finding for response in found for finding in response.findings]
    return findings, last.summary


def test_a_whole_store_has_no_findings(log_dir):
    """Nothing to tell of lines, annotations and running experiments that are as they should be."""
    with serving(log_dir) as client:
        client.record()
        client.append(new_id(), [begin()])
        client.stub.AnnotateExperiment(wire.AnnotateExperimentRequest(ref="0", add_tags=["a"]), timeout=10)
        findings, summary = check(client)
    assert findings == []
    assert (summary.lines, summary.verified_lines, summary.meta_lines, summary.running) == (1, 1, 1, 1)


def test_each_damage_is_found_where_it_is(log_dir):
    """A changed byte, a second line of the same experiment, what was set aside; not a byte of the log is changed."""
    with serving(log_dir) as client:
        client.record()
        client.record()
    first, second = log_lines(log_dir)
    data = first + second.replace(b"COMPLETED", b"COMPLETEX") + first
    (log_dir / LOG_NAME).write_bytes(data + b'{"half')
    with serving(log_dir) as client:
        findings, summary = check(client)
    kinds = [(wire.FindingKind.Name(f.kind).removeprefix("FINDING_KIND_"), f.offset, f.number) for f in findings]
    assert kinds == [
        ("CORRUPT_LINE", len(first), 1),
        ("DUPLICATE_ID", len(first) + len(second), 2),
        ("FILE_SET_ASIDE", 0, 0),
    ]
    assert (summary.errors, summary.warnings, summary.notices) == (1, 1, 1)
    assert (log_dir / LOG_NAME).read_bytes() == data
