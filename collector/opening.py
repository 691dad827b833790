"""What has to hold before a store is opened for writing."""

from pathlib import Path

from collector.errors import LockedError, NetworkFileSystemError, StoreAccessError
from collector.lock import StoreLock, read_holder
from collector.mounts import network_file_system
from collector.names import LOCK_NAME


def check_directory(log_dir: Path) -> None:
    """Raise StoreAccessError where a log directory is something else."""
    if log_dir.exists() and not log_dir.is_dir():
        raise StoreAccessError(f"the log directory {log_dir} is not a directory")


def take_lock(log_dir: Path, *, allow_network_fs: bool) -> StoreLock:
    """The lock of a log directory, which is made where it is not there.

    Raises:
        LockedError: another process holds it.
        NetworkFileSystemError: it is on a network file system.
        StoreAccessError: it cannot be used.
        PermissionError: it cannot be written.
    """
    try:
        kind = network_file_system(log_dir)
    except (OSError, RuntimeError) as error:  # Links in a circle.
        raise StoreAccessError(f"the log directory {log_dir} cannot be used: {error}; choose another") from None
    if kind is not None and not allow_network_fs:
        raise NetworkFileSystemError(
            f"the log directory {log_dir} is on a network file system ({kind}), where locks and syncs cannot be relied "
            "on: use a local directory, or a collector on another machine (--collector HOST:PORT)"
        )
    try:
        log_dir.mkdir(parents=True, exist_ok=True)
    except PermissionError:
        raise
    except OSError as error:
        raise StoreAccessError(f"the log directory {log_dir} cannot be made: {error.strerror}") from None
    lock = StoreLock.acquire(log_dir / LOCK_NAME)
    if lock is None:
        holder = read_holder(log_dir / LOCK_NAME)
        raise LockedError(f"the store {log_dir} is held by {holder or 'another process'}: stop that, or use it instead")
    return lock


__all__ = ["check_directory", "take_lock"]
