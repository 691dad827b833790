"""One writer: an advisory lock on a file beside the log, in which the holder says who and where it is.

The lock is the kernel's (flock): it ends with the process that holds it, however that ends. The file's content is only
information, and the file is never removed (a lock on a removed file would be nobody's).
"""

import contextlib
import errno
import fcntl
import json
import os
import socket
import time
from dataclasses import asdict, dataclass
from pathlib import Path

from collector.errors import StoreAccessError

# For how long a lock is tried again: a reader's glance (`current_holder`) is over at once; a holder that is just
# starting has not said who it is.
_GLANCE_S, _START_S = 0.02, 0.5


@dataclass(frozen=True, slots=True)
class Holder:
    """Who holds a store.

    Attributes:
        host: name of the machine.
        pid: of the process there; positive.
        endpoint: HOST:PORT of its collector; empty as long as it is starting.
        guarded: that collector wants TLS or a token.
    """

    host: str
    pid: int
    endpoint: str = ""
    guarded: bool = False

    @property
    def on_this_host(self) -> bool:
        """Whether its loopback address is this machine's."""
        return self.host == socket.gethostname()

    @property
    def alive(self) -> bool:
        """Whether that process exists; true where that cannot be told."""
        if not self.on_this_host:
            return True
        try:
            os.kill(self.pid, 0)
        except ProcessLookupError:
            return False
        except (OSError, OverflowError):
            return True
        return True

    def __str__(self) -> str:
        at = f", collector at {self.endpoint}" if self.endpoint else ""
        return f"process {self.pid} on {self.host}{at}"


class StoreLock:
    """The lock of one store, held until `release`."""

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self.announce("")

    @classmethod
    def acquire(cls, path: Path) -> "StoreLock | None":
        """Take the lock; None where another holds it.

        Raises:
            PermissionError: the directory cannot be written.
            StoreAccessError: the lock file cannot be used for another reason.
        """
        try:
            fd = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        except PermissionError:
            raise
        except OSError as error:
            if error.errno == errno.EROFS:
                raise PermissionError(error.errno, os.strerror(error.errno), str(path)) from None
            raise StoreAccessError(f"the lock file {path} cannot be opened: {error.strerror}") from None
        start = time.monotonic()
        while True:
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return cls(fd)
            except BlockingIOError:
                holder = _read(fd)
                patience = _GLANCE_S if holder is not None and holder.alive else _START_S
                if time.monotonic() < start + patience:
                    time.sleep(0.002)
                    continue
                os.close(fd)
                return None
            except OSError as error:
                os.close(fd)
                raise StoreAccessError(f"the lock file {path} cannot be locked: {error.strerror}") from None

    def announce(self, endpoint: str, *, guarded: bool = False) -> None:
        """Write who holds the lock, where it listens, and whether it wants TLS or a token."""
        holder = Holder(socket.gethostname(), os.getpid(), endpoint, guarded)
        text = json.dumps(asdict(holder)).encode() + b"\n"
        # Advice for others: a full disk must not keep the store closed.
        with contextlib.suppress(OSError):
            os.pwrite(self._fd, text, 0)
            os.ftruncate(self._fd, len(text))

    def release(self) -> None:
        """Give the lock up; once is enough."""
        if self._fd >= 0:
            with contextlib.suppress(OSError):
                os.ftruncate(self._fd, 0)
            os.close(self._fd)
            self._fd = -1


def current_holder(path: Path) -> Holder | None:
    """Who holds the lock now, without taking it; None where nobody does (or nobody that says so)."""
    try:
        fd = os.open(path, os.O_RDONLY)
    except OSError:
        return None
    try:
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return _read(fd)
    except OSError:
        return None
    else:
        return None
    finally:
        os.close(fd)


def read_holder(path: Path) -> Holder | None:
    """Whom the lock file names."""
    try:
        fd = os.open(path, os.O_RDONLY)
    except OSError:
        return None
    try:
        return _read(fd)
    finally:
        os.close(fd)


def _read(fd: int) -> Holder | None:
    try:
        stated = json.loads(os.pread(fd, 4096, 0))
        return Holder(
            str(stated["host"]), max(int(stated["pid"]), 1), str(stated["endpoint"]), bool(stated.get("guarded"))
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None


__all__ = ["Holder", "StoreLock", "current_holder", "read_holder"]
