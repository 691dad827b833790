"""A server of the same contract that stores nothing: what gRPC itself takes for the same stream of batches."""

import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import grpc
from qlog.v1 import collector_pb2 as wire
from qlog.v1 import collector_pb2_grpc
from qlog.v1.serving.listening import server_options


class Bare(collector_pb2_grpc.CollectorServiceServicer):
    """Reads each request, counts its events, acknowledges."""

    def AppendExperiment(
        self, request_iterator: Iterator[wire.AppendExperimentRequest], _context: grpc.ServicerContext
    ) -> Iterator[wire.AppendExperimentResponse]:
        """Acknowledge everything."""
        for request in request_iterator:
            yield wire.AppendExperimentResponse(
                experiment_id=request.experiment_id, committed_offset=request.offset + len(request.events)
            )


def main() -> None:
    """Serve until standard input ends."""
    server = grpc.server(ThreadPoolExecutor(32), options=server_options())
    collector_pb2_grpc.add_CollectorServiceServicer_to_server(Bare(), server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    print(f"bare: listening on 127.0.0.1:{port}, nothing is stored", flush=True)
    sys.stdin.read()
    server.stop(1).wait()


if __name__ == "__main__":
    main()
