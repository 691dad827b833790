"""Whether a server says that it serves: exit code 0, or 1 with the reason.

    python health.py HOST:PORT

Both servers answer the standard health check of gRPC (grpc.health.v1), without a token; this asks for it once. For a
server with TLS, HEALTH_TLS_CA names the file of its authorities and HEALTH_TLS_NAME the name in its certificate, where
that is not HOST; HEALTH_TLS_CERT and HEALTH_TLS_KEY are a certificate of one's own, where it asks for one.
"""

import os
import sys
from pathlib import Path

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

TIMEOUT_S = 5.0


def main(endpoint: str) -> int:
    """Ask one server."""
    try:
        channel = _channel(endpoint)
    except OSError as error:
        print(f"{error.filename}: {error.strerror}", file=sys.stderr)
        return 1
    with channel:
        try:
            answer = health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(), timeout=TIMEOUT_S)
        except grpc.RpcError as error:
            print(f"{endpoint}: {error.code().name}", file=sys.stderr)
            return 1
    if answer.status != health_pb2.HealthCheckResponse.SERVING:
        print(f"{endpoint}: {health_pb2.HealthCheckResponse.ServingStatus.Name(answer.status)}", file=sys.stderr)
        return 1
    return 0


def _channel(endpoint: str) -> grpc.Channel:
    authorities, name, cert, key = (os.environ.get(f"HEALTH_TLS_{word}") for word in ("CA", "NAME", "CERT", "KEY"))
    if not authorities:
        return grpc.insecure_channel(endpoint)
    own = [Path(path).read_bytes() if path else None for path in (key, cert)]
    credentials = grpc.ssl_channel_credentials(Path(authorities).read_bytes(), *own)
    return grpc.secure_channel(endpoint, credentials, [("grpc.ssl_target_name_override", name)] if name else [])


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: health.py HOST:PORT")
    sys.exit(main(sys.argv[1]))
