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


class ExperimentFailedError(QlogError):
    """The experiment that was waited for did not complete."""


__all__ = [
    "AccessError",
    "DeadlineError",
    "ExperimentFailedError",
    "InvalidRequestError",
    "NotFoundError",
    "QlogError",
    "RefusedError",
    "ServerError",
    "StoreError",
    "StreamLostError",
    "UnreachableError",
]
