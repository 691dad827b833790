"""Who an experiment in the spool belongs to: an advisory lock on a file of its own, freed with its process."""

import fcntl
import os
import uuid
from pathlib import Path


class ExperimentLock:
    """Held from an experiment's begin until its process ends or its events are all delivered."""

    def __init__(self, path: Path, descriptor: int) -> None:
        self._path = path
        self._descriptor = descriptor

    @classmethod
    def acquire(cls, directory: Path, experiment_id: str) -> "ExperimentLock | None":
        """The lock, or None where a living process (this one too) holds it.

        Raises:
            OSError: the lock file cannot be made.
            ValueError: an id that is none, as a damaged spool may have: it must not become a path.
        """
        if str(uuid.UUID(experiment_id)) != experiment_id:
            raise ValueError(f"{experiment_id[:64]!r} is no experiment's id")
        path = directory / f"{experiment_id}.lock"
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            # The holder before may have removed the file between the opening and the locking.
            if path.exists() and path.stat().st_ino == os.fstat(descriptor).st_ino:
                return cls(path, descriptor)
        except BlockingIOError:
            pass
        except OSError:
            os.close(descriptor)
            raise
        os.close(descriptor)
        return None

    def release(self, *, remove: bool) -> None:
        """Let go; `remove` where the experiment is gone from the spool."""
        if remove:
            self._path.unlink(missing_ok=True)
        os.close(self._descriptor)


__all__ = ["ExperimentLock"]
