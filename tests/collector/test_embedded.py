"""The embedded collector: whoever opens a local store gets a collector for it, theirs or another's."""

import json
import os
import subprocess
import sys
import tempfile
import threading
from pathlib import Path

import grpc
import pytest
from qlog.v1 import collector_pb2 as wire

from collector.embedded import open_local
from collector.errors import CollectorError, LockedError
from collector.lock import StoreLock
from collector.store import LOCK_NAME
from tests.collector.builders import connected, new_id, requests, whole


def count(endpoint: str) -> int:
    with connected(endpoint) as (stub, _):
        return stub.ListExperiments(wire.ListExperimentsRequest(), timeout=10).total_size


def send(endpoint: str) -> None:
    with connected(endpoint) as (stub, _):
        list(stub.AppendExperiment(requests(new_id(), whole()), timeout=30))


def test_the_first_owns_the_store_the_second_uses_it(log_dir):
    """Two opens of one directory serve one store; after the first is closed the next one owns it."""
    with open_local(log_dir) as first:
        assert first.owned
        assert not first.read_only
        assert first.store_path == log_dir / "percentile_experiments.jsonl"
        send(first.endpoint)
        for read_only in (False, True):
            with open_local(log_dir, read_only=read_only) as second:
                assert (second.endpoint, second.owned) == (first.endpoint, False)
        assert count(first.endpoint) == 1
    with open_local(log_dir) as third:
        assert third.owned
        assert count(third.endpoint) == 1
        third.close()
    assert open_local(log_dir / "missing" / "below", read_only=True).close() is None


def test_reading_needs_no_lock_and_makes_nothing(log_dir):
    """read_only serves beside other readers, keeps nobody from writing, and a missing directory stays missing."""
    with open_local(log_dir, read_only=True) as empty:
        assert empty.owned
        assert empty.read_only
        assert count(empty.endpoint) == 0
        assert not log_dir.exists()
        with open_local(log_dir) as writer:
            assert writer.owned
            send(writer.endpoint)
            assert count(empty.endpoint) == 1
    before = sorted(log_dir.iterdir())
    with open_local(log_dir, read_only=True) as one, open_local(log_dir, read_only=True) as two:
        assert one.endpoint != two.endpoint
        with connected(two.endpoint) as (stub, _), pytest.raises(grpc.RpcError) as caught:
            list(stub.AppendExperiment(requests(new_id(), whole()), timeout=10))
        assert caught.value.code() is grpc.StatusCode.FAILED_PRECONDITION
    assert sorted(log_dir.iterdir()) == before


def test_many_opens_at_once_agree_on_one_owner(log_dir):
    """Whoever is not first waits until the first one says where it is."""
    opened, lock = [], threading.Barrier(6)

    def run() -> None:
        lock.wait()
        opened.append(open_local(log_dir))

    threads = [threading.Thread(target=run) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [local.owned for local in opened].count(True) == 1
    assert len({local.endpoint for local in opened}) == 1
    assert count(opened[0].endpoint) == 0
    for local in opened:
        local.close()


def test_a_holder_that_does_not_answer_is_named(log_dir, monkeypatch):
    """To a writer, after some patience: one line with host, process and what to do. A reader reads the files."""
    monkeypatch.setattr("collector.embedded._PATIENCE_S", 0.1)
    monkeypatch.setattr("collector.embedded._READING_PATIENCE_S", 0.1)
    with open_local(log_dir) as local:
        send(local.endpoint)
    lock = StoreLock.acquire(log_dir / LOCK_NAME)
    elsewhere = json.dumps({"host": "elsewhere", "pid": 7, "endpoint": "127.0.0.1:50551"})
    for endpoint in ("", "127.0.0.1:1", "nonsense", "127.0.0.1:99999999", elsewhere):
        lock.announce(endpoint)
        who = rf"process {os.getpid()} on .*"
        if endpoint == elsewhere:
            (log_dir / LOCK_NAME).write_text(elsewhere)
            who = "process 7 on elsewhere, collector at 127.0.0.1:50551"
        with pytest.raises(LockedError, match=f"{who}, whose collector does not answer"):
            open_local(log_dir)
        with open_local(log_dir, read_only=True) as reader:
            assert (reader.owned, reader.read_only, count(reader.endpoint)) == (True, True, 1)
    lock.release()


def test_what_is_no_directory_is_said_in_one_line(tmp_path):
    """CollectorError, whatever is wrong."""
    path = tmp_path / "file"
    path.write_text("x")
    with pytest.raises(CollectorError, match="is not a directory"):
        open_local(path)


# Root may write everywhere: it becomes somebody else, once all is imported.
UNWRITABLE = """
import os, sys
from pathlib import Path
import collector.fold, collector.server, collector.store
from collector.embedded import open_local
from collector.errors import CollectorError
if os.geteuid() == 0:
    os.setgroups([])
    os.setgid(65534)
    os.setuid(65534)
for name in sys.argv[1:]:
    try:
        with open_local(Path(name)) as local:
            print(local.owned, local.read_only)
    except CollectorError as error:
        print(error)
"""


def test_a_directory_that_cannot_be_written_is_read():
    """Without lock and repair; one that cannot be made or read is an error in one line."""
    with tempfile.TemporaryDirectory() as root:
        readable, secret = Path(root, "logs"), Path(root, "secret")
        with open_local(readable) as local:
            send(local.endpoint)
        secret.mkdir()
        for path, mode in ((readable, 0o555), (secret, 0o000), (Path(root), 0o555)):
            path.chmod(mode)
        command = [sys.executable, "-c", UNWRITABLE, readable, Path(root, "new"), secret]
        ran = subprocess.run(command, capture_output=True, text=True, check=False)
        Path(root).chmod(0o755)
    assert ran.stderr == ""
    assert ran.stdout.splitlines() == [
        "True True",
        f"the log directory {root}/new cannot be made: permission denied; choose another",
        f"the log directory {root}/secret cannot be read: Permission denied",
    ]


def test_the_embedded_collector_imports_little(tmp_path):
    """Nothing of torch, rich, reflection or click: `qlog list` starts it each time."""
    code = (
        "import sys; from pathlib import Path; from collector.embedded import open_local\n"
        "MODULES = ('torch', 'numpy', 'rich', 'grpc_reflection.v1alpha.reflection', 'click', 'quamba')\n"
        f"open_local(Path({str(tmp_path)!r})).close()\n"
        "print([name for name in MODULES if name in sys.modules])"
    )
    ran = subprocess.run([sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, check=False)
    assert (ran.stdout, ran.stderr) == ("[]\n", "")
