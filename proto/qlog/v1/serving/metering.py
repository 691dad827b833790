"""A server's metrics put together: a registry, what counts calls, and where they are read."""

from importlib.metadata import version

from qlog.v1.serving.access import Access, RoleTable
from qlog.v1.serving.listening import Listening
from qlog.v1.serving.metrics import CallMetrics, new_registry
from qlog.v1.serving.scraping import MetricsServer


class Metering:
    """The metrics of one server.

    Args:
        program: named in them.
        roles: its keys are the methods.

    Attributes:
        registry: for metrics of the program's own.
        calls: an observer of calls.
        url: where they are read; empty before `serve`.
    """

    def __init__(self, program: str, roles: RoleTable) -> None:
        self.registry = new_registry(program, version("qlog-ssm"))
        self.calls = CallMetrics(self.registry, roles)
        self.url = ""
        self._server: MetricsServer | None = None

    def serve(self, host: str, port: int, listening: Listening, access: Access) -> None:
        """Let them be read: see `MetricsServer`.

        Raises:
            ListeningError: the address cannot be had.
        """
        self._server = MetricsServer(self.registry, host, port, listening, access)
        self.url = self._server.url
        self._server.start()

    def stop(self) -> None:
        """No more; once is enough."""
        if self._server is not None:
            self._server.stop()
            self._server = None


__all__ = ["Metering"]
