"""What can go wrong in the collector.

    CollectorError
    ├── StartError                 the store or the server cannot be opened
    │   ├── StoreAccessError       the log directory cannot be used
    │   ├── LockedError            another collector holds the store
    │   ├── NetworkFileSystemError the log directory is on a network file system
    │   ├── ListenError            the address cannot be listened on
    │   ├── DamageError            a check has found damage
    │   ├── TokenFileError         a file of tokens, keys or certificates cannot be used
    │   └── TracesError            traces cannot be sent as asked
    ├── InvalidRequestError        a request breaks the contract; names the field
    │   ├── AmbiguousRefError      a prefix of an id fits several experiments
    │   └── FilterError            a filter is wrong; names the place in it
    ├── NotFoundError              no such experiment
    ├── OffsetGapError             events before this batch are missing; names the offset that is wanted
    ├── EndedError                 more events for an experiment that has its line
    ├── ReadOnlyError              the store was opened for reading only
    ├── CorruptLineError           the experiment's line is damaged
    ├── ResponseTooLargeError      the answer is larger than a client takes
    ├── TooSlowError               the answer takes longer than a call without a deadline may
    ├── GoneError                  whoever called has gone
    ├── RequestTooLargeError       a message is larger than is taken
    ├── UnsupportedError           a call that this version does not have
    └── RetryError                 worth trying again after a while
        ├── StoreFullError         no space left on the store's disk
        ├── StoreUnavailableError  the store's disk or files fail
        ├── TooManyStreamsError    all streams that this server allows are taken
        └── DrainingError          the server is stopping

Each message is one line: what was wrong, with the value, and what to do. `collector.statuses` has the one table from
these classes to gRPC's statuses.
"""


class CollectorError(Exception):
    """Base of all errors that the collector raises on purpose."""


class StartError(CollectorError):
    """The store or the server cannot be opened."""


class StoreAccessError(StartError):
    """The log directory cannot be used."""


class LockedError(StartError):
    """Another collector holds the store."""


class NetworkFileSystemError(StartError):
    """The log directory is on a network file system, where locks and syncs cannot be relied on."""


class ListenError(StartError):
    """The address cannot be listened on."""


class DamageError(StartError):
    """A check has found damage."""


class TokenFileError(StartError):
    """A file of tokens, keys or certificates cannot be used."""


class TracesError(StartError):
    """Traces cannot be sent as asked."""


class InvalidRequestError(CollectorError):
    """A request breaks the contract.

    Attributes:
        field: the path of the field in the request, as `events[3].layer_stats.name`.
    """

    def __init__(self, field: str, message: str) -> None:
        super().__init__(message)
        self.field = field


class AmbiguousRefError(InvalidRequestError):
    """A prefix of an id fits several experiments."""


class FilterError(InvalidRequestError):
    """A filter, or an order, is wrong.

    Attributes:
        start, end: the characters of `text` that are.
        text: the filter.
    """

    def __init__(self, field: str, message: str, text: str = "", start: int = 0, end: int = 0) -> None:
        super().__init__(field, message)
        self.text = text
        self.start = start
        self.end = end


class NotFoundError(CollectorError):
    """No such experiment."""


class OffsetGapError(CollectorError):
    """Events before this batch are missing.

    Attributes:
        wanted_offset: where the sender has to go on.
    """

    def __init__(self, experiment_id: str, offset: int, wanted_offset: int) -> None:
        super().__init__(f"experiment {experiment_id}: offset {offset} leaves a gap, send from offset {wanted_offset}")
        self.wanted_offset = wanted_offset


class EndedError(CollectorError):
    """More events for an experiment that has its line."""


class ReadOnlyError(CollectorError):
    """The store was opened for reading only."""


class CorruptLineError(CollectorError):
    """The experiment's line is damaged."""


class ResponseTooLargeError(CollectorError):
    """The answer is larger than a client takes."""


class TooSlowError(CollectorError):
    """The answer takes longer than a call without a deadline may."""


class GoneError(CollectorError):
    """Whoever called has gone."""


class RequestTooLargeError(CollectorError):
    """A message is larger than is taken."""


class UnsupportedError(CollectorError):
    """A call that this version does not have."""


class RetryError(CollectorError):
    """Worth trying again after a while.

    Attributes:
        retry_s: the least time to wait, in seconds.
    """

    retry_s = 1.0


class StoreFullError(RetryError):
    """No space left on the store's disk."""

    retry_s = 10.0


class StoreUnavailableError(RetryError):
    """The store's disk or files fail."""

    retry_s = 2.0


class TooManyStreamsError(RetryError):
    """All streams that this server allows are taken."""

    retry_s = 5.0


class DrainingError(RetryError):
    """The server is stopping."""


__all__ = [
    "AmbiguousRefError",
    "CollectorError",
    "CorruptLineError",
    "DamageError",
    "DrainingError",
    "EndedError",
    "FilterError",
    "GoneError",
    "InvalidRequestError",
    "ListenError",
    "LockedError",
    "NetworkFileSystemError",
    "NotFoundError",
    "OffsetGapError",
    "ReadOnlyError",
    "RequestTooLargeError",
    "ResponseTooLargeError",
    "RetryError",
    "StartError",
    "StoreAccessError",
    "StoreFullError",
    "StoreUnavailableError",
    "TokenFileError",
    "TooManyStreamsError",
    "TooSlowError",
    "TracesError",
    "UnsupportedError",
]
