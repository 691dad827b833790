"""The collector inside this process, for a local store: the same one as the remote one, on an ephemeral endpoint."""

import errno
import logging
import threading
from pathlib import Path

from qlog.v1.credentials import Credentials

from collector.embedded import CollectorError, LocalCollector, open_local
from quantizer.errors import CollectorAwayError, QuantizerError
from quantizer.spool_files import is_disk_trouble


class LocalEndpoint:
    """The store in `log_dir`, served by this process or by the one that holds it at the moment."""

    may_move = True
    # A collector that asks for some is reached by its address.
    credentials = Credentials()

    def __init__(self, log_dir: Path) -> None:
        self.name = f"the local store in {log_dir}"
        self._log_dir = log_dir
        self._lock = threading.Lock()
        self._collector: LocalCollector | None = None
        self._closed = False
        # Its troubles reach the user as ours, once; not as lines of a log besides.
        logging.getLogger("collector").addHandler(logging.NullHandler())

    def check(self) -> None:
        """Open the store before anything heavy happens.

        Raises:
            QuantizerError: it can never be opened as things are. A full disk is no such thing: it may pass.
        """
        try:
            self._open()
        except (CollectorError, OSError) as error:
            if not is_disk_trouble(error):
                raise QuantizerError(_cannot_use(self._log_dir, error)) from error

    def resolve(self) -> str:
        """The endpoint of whoever serves the store; this process, if nobody does.

        Raises:
            CollectorAwayError: the store cannot be opened now.
        """
        try:
            return self._open()
        except (CollectorError, OSError) as error:
            raise CollectorAwayError(_cannot_use(self._log_dir, error)) from error

    def _open(self) -> str:
        with self._lock:
            if self._closed:
                raise CollectorAwayError("stopped")
            if self._collector is None:
                collector = open_local(self._log_dir)
                if collector.read_only:
                    collector.close()
                    raise PermissionError(errno.EACCES, "it can only be read")
                self._collector = collector
            return str(self._collector.endpoint)

    def failed(self) -> None:
        """Another process that served the store may have ended: look again."""
        with self._lock:
            if self._collector is not None and not self._collector.owned:
                self._collector.close()
                self._collector = None

    def close(self) -> None:
        """Stop serving, if this process does."""
        if not self._lock.acquire(timeout=5.0):
            return  # It is being opened at this moment, by a thread that ends with the process.
        try:
            self._closed = True
            if self._collector is not None:
                self._collector.close()
                self._collector = None
        finally:
            self._lock.release()


def _cannot_use(log_dir: Path, error: Exception) -> str:
    if isinstance(error, OSError):
        return f"the log directory {log_dir} cannot be used ({error.strerror or error}): give another --log_dir"
    return str(error)


__all__ = ["LocalEndpoint"]
