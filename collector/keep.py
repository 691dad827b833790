"""The innermost interceptor: requests of the ingest reach it as their bytes."""

from typing import Any

import grpc

_METHOD = "/qlog.v1.CollectorService/AppendExperiment"


class KeepBytes(grpc.ServerInterceptor):
    """Has one method's requests read by `collector.received`, which its first call imports."""

    def intercept_service(self, continuation: Any, handler_call_details: Any) -> Any:
        """Replace how requests are read."""
        handler = continuation(handler_call_details)
        if handler is None or handler_call_details.method != _METHOD:
            return handler
        from collector.received import received

        return grpc.stream_stream_rpc_method_handler(handler.stream_stream, received, handler.response_serializer)


__all__ = ["KeepBytes"]
