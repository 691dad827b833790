"""One connection to one program: its calls have deadlines, and their failures are the client's own errors."""

from collections.abc import Iterator
from types import TracebackType
from typing import Any, Self

import grpc
from qlog.v1.credentials import Credentials

from client import rpc


class Connection:
    """One connection to one program; closes it at the end of a `with`."""

    program: str

    def __init__(self, endpoint: str, timeout_s: float = 30.0, credentials: Credentials | None = None) -> None:
        self.endpoint = endpoint
        self._timeout_s = timeout_s
        self.channel = rpc.open_channel(endpoint, credentials or Credentials())

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.channel.close()

    def call(self, method: Any, request: Any) -> Any:
        """The answer of a call.

        Raises:
            QlogError: it failed.
        """
        try:
            return method(request, timeout=self._timeout_s)
        except grpc.RpcError as error:
            raise rpc.translated(error, self.endpoint, self.program) from error

    def stream(
        self, method: Any, request: Any, timeout_s: float | None = None, *, resumable: bool = False
    ) -> Iterator[Any]:
        """What a call streams; one that is resumable and cannot even begin is lost like one that broke off.

        Raises:
            QlogError: it failed.
        """
        call = method(request, timeout=timeout_s)
        begun = resumable
        try:
            for response in call:
                begun = True
                yield response
        except grpc.RpcError as error:
            raise rpc.translated(error, self.endpoint, self.program, stream=begun) from error
        finally:
            call.cancel()


__all__ = ["Connection"]
