"""One writer: who holds a store, who may have it next, and where no store should be."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from collector.errors import LockedError, NetworkFileSystemError, StoreAccessError
from collector.fold import CODEC
from collector.lock import Holder, StoreLock, current_holder, read_holder
from collector.mounts import network_file_system
from collector.store import LOCK_NAME, open_store
from tests.collector.builders import opened, record


def test_a_second_store_says_who_has_the_first(log_dir):
    """Also in the same process: host, process and endpoint in one line."""
    with opened(log_dir) as store:
        store.announce("127.0.0.1:12345")
        with pytest.raises(LockedError, match=rf"process {os.getpid()} on .*, collector at 127.0.0.1:12345") as caught:
            open_store(log_dir, CODEC)
        assert "\n" not in str(caught.value)
        record(store)
    with opened(log_dir) as store:
        assert store.index().count() == 1


def test_the_lock_ends_with_its_process(tmp_path):
    """Whoever is killed holds nothing, whatever the file says."""
    path = tmp_path / "lock"
    code = (
        "import sys; from pathlib import Path; from collector.lock import StoreLock\n"
        f"lock = StoreLock.acquire(Path({str(path)!r})); lock.announce('127.0.0.1:1')\n"
        "print('held', flush=True); sys.stdin.read()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout.readline() == "held\n"
        assert StoreLock.acquire(path) is None
        assert current_holder(path) == Holder(os.uname().nodename, process.pid, "127.0.0.1:1")
        process.kill()
        process.wait()
    assert read_holder(path).pid == process.pid
    assert not read_holder(path).alive
    assert current_holder(path) is None
    lock = StoreLock.acquire(path)
    assert read_holder(path).pid == os.getpid()
    lock.release()
    lock.release()
    assert read_holder(path) is None


@pytest.mark.parametrize("text", ["", "{", "[]", '{"host": 1}', '{"host": "h", "pid": "x", "endpoint": ""}'])
def test_a_lock_file_with_nonsense_names_nobody(tmp_path, text):
    """It is only information: it neither opens nor closes a store."""
    path = tmp_path / LOCK_NAME
    path.write_text(text)
    assert read_holder(path) is None
    with opened(tmp_path):
        assert read_holder(path).pid == os.getpid()


MOUNTS = r"""22 1 0:21 / / rw,relatime shared:1 - ext4 /dev/vda rw
30 22 0:30 / /home rw - nfs4 server:/home rw
31 30 0:31 / /home/me/local\040disk rw - xfs /dev/vdb rw
32 22 0:32 / /mnt/s3 rw - fuse.s3fs s3fs rw
33 22 0:33 / /mnt/fuse rw - fuse.gocryptfs x rw
34 22 0:34 / /twice rw - cifs //x/y rw
35 22 0:35 / /twice rw - tmpfs tmpfs rw
broken line
"""


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("/var/logs", None),
        ("/home/me/logs", "nfs4"),
        ("/home/me/local disk/logs", None),
        ("/homely", None),
        ("/mnt/s3/logs", "fuse.s3fs"),
        ("/mnt/fuse/logs", None),
        ("/twice/logs", None),
    ],
)
def test_network_file_systems_are_known_by_the_mount_table(tmp_path, path, kind):
    """The nearest mount point counts, and of two on the same place the later."""
    table = tmp_path / "mountinfo"
    table.write_text(MOUNTS)
    assert network_file_system(Path(path), table) == kind
    assert network_file_system(Path(path), tmp_path / "none") is None


def test_no_store_on_a_network_file_system_unless_forced(log_dir, monkeypatch):
    """Refused in one line that says what to do; reading is always allowed."""
    monkeypatch.setattr("collector.opening.network_file_system", lambda _: "nfs4")
    with pytest.raises(NetworkFileSystemError, match=r"network file system \(nfs4\).*--collector HOST:PORT"):
        open_store(log_dir, CODEC)
    assert not log_dir.exists()
    open_store(log_dir, CODEC, allow_network_fs=True).close()
    open_store(log_dir, CODEC, read_only=True).close()


def test_a_file_is_no_log_directory(tmp_path):
    """Said in one line."""
    path = tmp_path / "file"
    path.write_text("x")
    for read_only in (False, True):
        with pytest.raises(StoreAccessError, match="is not a directory"):
            open_store(path, CODEC, read_only=read_only)
    with pytest.raises(StoreAccessError, match="cannot be made"):
        open_store(path / "below", CODEC)
