"""What can go wrong in the client.

    QlogError                    exit code 1
    ├── UnreachableError         nobody answers at an endpoint
    ├── DeadlineError            an answer took longer than allowed
    ├── NotFoundError            no such experiment or job
    ├── RefusedError             the server cannot do it, now or at all
    │   └── InvalidRequestError  what was asked for is wrong; exit code 2
    ├── AccessError              who asks may not
    ├── ServerError              the server failed, or its answer makes no sense
    ├── StreamLostError          a stream broke off; it can be resumed
    ├── StoreError               a local log directory cannot be opened
    ├── InputError               a file that was named cannot be read
    ├── OutputError              a file that was named cannot be written
    ├── MissingPackageError      an optional package is not installed
    ├── DamageError              a check found damage
    ├── RejectedError            some of what was given was not taken
    └── ExperimentFailedError    the experiment that was waited for did not complete

Each message is one line: what was wrong, with the value, and what to do.
"""


class QlogError(Exception):
    """Base of all errors that the client raises on purpose."""

    exit_code = 1


class UnreachableError(QlogError):
    """Nobody answers at an endpoint."""


class DeadlineError(QlogError):
    """An answer took longer than allowed."""


class NotFoundError(QlogError):
    """No such experiment or job."""


class RefusedError(QlogError):
    """The server cannot do it, now or at all."""


class InvalidRequestError(RefusedError):
    """What was asked for is wrong.

    Attributes:
        picture: the filter that is wrong, with a caret under the place; lines of text, or empty.
    """

    exit_code = 2
    picture = ""


class AccessError(QlogError):
    """Who asks may not."""


class ServerError(QlogError):
    """The server failed, or its answer makes no sense."""


class StreamLostError(QlogError):
    """A stream broke off; it can be resumed."""


class StoreError(QlogError):
    """A local log directory cannot be opened."""


class InputError(QlogError):
    """A file that was named cannot be read."""


class OutputError(QlogError):
    """A file that was named cannot be written."""


class MissingPackageError(QlogError):
    """An optional package is not installed."""


class DamageError(QlogError):
    """A check found damage."""


class RejectedError(QlogError):
    """Some of what was given was not taken."""


class ExperimentFailedError(QlogError):
    """The experiment that was waited for did not complete."""


__all__ = [
    "AccessError",
    "DamageError",
    "DeadlineError",
    "ExperimentFailedError",
    "InputError",
    "InvalidRequestError",
    "MissingPackageError",
    "NotFoundError",
    "OutputError",
    "QlogError",
    "RefusedError",
    "RejectedError",
    "ServerError",
    "StoreError",
    "StreamLostError",
    "UnreachableError",
]
