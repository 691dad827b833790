"""Addresses as all programs take and check them, and how both ends look after a connection."""

import ipaddress
import re
import socket
from typing import Final

_ADDRESS = re.compile(r"(\[[0-9A-Fa-f:.%]+\]|[^\s:/\[\]]+):([0-9]{1,5})", re.ASCII)

ADDRESS_FORM: Final = "HOST:PORT with a port from 1 to 65535, for example 127.0.0.1:50551"

# These belong together: a server hangs up on those who ping more often than it allows.
CLIENT_KEEPALIVE: Final = (
    ("grpc.keepalive_time_ms", 20_000),
    ("grpc.keepalive_timeout_ms", 10_000),
    ("grpc.http2.max_pings_without_data", 0),
)
SERVER_KEEPALIVE: Final = (
    ("grpc.http2.min_recv_ping_interval_without_data_ms", 10_000),
    ("grpc.http2.min_ping_interval_without_data_ms", 10_000),
    ("grpc.keepalive_permit_without_calls", 1),
    # A server looks for dead clients by itself.
    ("grpc.keepalive_time_ms", 60_000),
    ("grpc.keepalive_timeout_ms", 20_000),
)


def is_address(text: str) -> bool:
    """Whether a text is HOST:PORT (an IPv6 host in brackets)."""
    match = _ADDRESS.fullmatch(text)
    return match is not None and 0 < int(match[2]) < 2**16


def bracketed(host: str) -> str:
    """The host as it stands before a port: an IPv6 address in brackets."""
    return f"[{host}]" if ":" in host else host


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches an address, by all that its name stands for.

    Raises:
        ValueError: there is no such address.
    """
    try:
        found = socket.getaddrinfo(host or "::", None, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError):
        raise ValueError(f"cannot listen on {host!r}: no such address") from None
    return all(ipaddress.ip_address(str(address[4][0]).partition("%")[0]).is_loopback for address in found)


def listen_trouble(host: str, port: int) -> str:
    """Why one could not listen on an address a moment ago, in the operating system's words; gRPC does not tell."""
    try:
        for family, kind, protocol, _, address in socket.getaddrinfo(
            host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        ):
            with socket.socket(family, kind, protocol) as attempt:
                attempt.bind(address)
                attempt.listen()
    except OSError as error:
        return error.strerror or str(error)
    return "it was in use a moment ago"


__all__ = [
    "ADDRESS_FORM",
    "CLIENT_KEEPALIVE",
    "SERVER_KEEPALIVE",
    "bracketed",
    "is_address",
    "is_loopback",
    "listen_trouble",
]
