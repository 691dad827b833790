"""Lines of other stores: taken in once, as they stand; what is no experiment is rejected with its reason."""

from qlog.v1 import collector_pb2 as wire

from collector.store import LOG_NAME
from tests.collector.builders import LEGACY_LINE, log_lines, serving


def sent(client, data: bytes, size: int = 1000):
    chunks = (wire.ImportExperimentsRequest(chunk=data[i : i + size]) for i in range(0, len(data), size))
    return client.stub.ImportExperiments(chunks, timeout=30)


def test_another_store_is_taken_in_once_byte_by_byte(log_dir, tmp_path):
    """Lines with ids and of the earlier logger, cut anywhere; the same again changes nothing."""
    with serving(tmp_path / "other") as client:
        client.record()
        client.record()
    other = b"".join(log_lines(tmp_path / "other")) + LEGACY_LINE.rstrip(b"\n")
    with serving(log_dir) as client:
        client.record()
        answer = sent(client, other, 77)
        assert (answer.imported, answer.already_present, answer.rejected) == (3, 0, 0)
        answer = sent(client, b"\xef\xbb\xbf" + LEGACY_LINE + b"\r\n\n" + other)
        assert (answer.imported, answer.already_present, answer.rejected) == (0, 4, 0)
        assert client.get("3").config.model == "mamba-370m"
    assert (log_dir / LOG_NAME).read_bytes().endswith(other + b"\n")
    with serving(log_dir) as client:
        assert client.list().total_size == 4


def test_what_is_no_experiment_is_rejected(log_dir, tmp_path):
    """Each with its place and reason; the others are taken."""
    with serving(tmp_path / "other") as client:
        client.record()
    (line,) = log_lines(tmp_path / "other")
    damaged = line.replace(b"COMPLETED", b"COMPLETEX")
    with serving(log_dir) as client:
        answer = sent(client, b"\n".join([b"no json", b"[]", b'{"a":1}', damaged.strip(), line]))
        assert (answer.imported, answer.rejected) == (1, 4)
        assert [item.line for item in answer.rejections] == [1, 2, 3, 4]
        assert "checksum" in answer.rejections[3].reason


def test_an_export_goes_on_where_it_was_and_what_was_said_travels(log_dir, tmp_path):
    """From a token on, the rest; lines as shown, imported elsewhere, are the lines and what was said of them."""
    with serving(tmp_path / "other") as client:
        client.record()
        client.record()
        client.stub.AnnotateExperiment(wire.AnnotateExperimentRequest(ref="1", add_tags=["kept"]), timeout=10)
        whole = b"".join(log_lines(tmp_path / "other"))
        (answer,) = client.stub.ExportExperiments(wire.ExportExperimentsRequest(), timeout=10)
        assert answer.chunk == whole
        request = wire.ExportExperimentsRequest(resume_token=answer.resume_token)
        assert list(client.stub.ExportExperiments(request, timeout=10)) == []
        shown = list(client.stub.ExportExperiments(wire.ExportExperimentsRequest(as_shown=True), timeout=10))
        request = wire.ExportExperimentsRequest(as_shown=True, resume_token=shown[0].resume_token)
        assert list(client.stub.ExportExperiments(request, timeout=10)) == shown[1:]
    with serving(log_dir) as client:
        assert sent(client, b"".join(part.chunk for part in shown)).imported == 2
        assert list(client.get("1").tags) == ["kept"]
    assert b"".join(log_lines(log_dir)) == whole
