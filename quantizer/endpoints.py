"""Where a collector is: a fixed address, or whoever serves the store in a directory at the moment."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol

from qlog.v1.addresses import ADDRESS_FORM, is_address
from qlog.v1.credentials import Credentials

from quantizer.errors import SpecError, Violation

if TYPE_CHECKING:
    from qlog.v1.serving.listening import Listening

# The store in the directory that holds the spool, wherever that is moved to.
LOCAL_TARGET = "local"


class Endpoint(Protocol):
    """What a sender needs to know of the collector it sends to."""

    @property
    def name(self) -> str:
        """For users."""

    @property
    def credentials(self) -> Credentials:
        """What to connect with."""

    @property
    def may_move(self) -> bool:
        """Whether another address may answer after this one has failed."""

    def resolve(self) -> str:
        """HOST:PORT.

        Raises:
            CollectorAwayError: nobody can serve now.
        """

    def failed(self) -> None:
        """The address that `resolve` gave did not answer."""

    def close(self) -> None:
        """No more calls."""


class FixedEndpoint:
    """A collector that runs somewhere."""

    may_move = False

    def __init__(self, address: str, credentials: Credentials | None = None) -> None:
        self.name = address
        self.credentials = credentials or Credentials()

    def resolve(self) -> str:
        """The address."""
        return self.name

    def failed(self) -> None:
        """It stays where it is."""

    def close(self) -> None:
        """Nothing to close."""


def endpoint_of(target: str, open_local: Callable[[], Endpoint], credentials: Credentials | None = None) -> Endpoint:
    """The endpoint for a target as the spool names it."""
    return open_local() if target == LOCAL_TARGET else FixedEndpoint(target, credentials)


def check_address(address: str) -> Violation | None:
    """What is wrong with HOST:PORT as a user gave it, if anything."""
    return None if is_address(address) else Violation("collector", f"--collector {address}: write it as {ADDRESS_FORM}")


def check_host(listening: "Listening", option: str = "host") -> None:
    """Refuse addresses that others can reach, unless they have to prove who they are or that is said to be meant.

    Raises:
        SpecError: it is one, or none at all.
    """
    from qlog.v1.serving.listening import ListeningError

    try:
        listening.check(option=f"--{option}")
    except ListeningError as error:
        raise SpecError((Violation(option, str(error)),)) from None


__all__ = ["LOCAL_TARGET", "Endpoint", "FixedEndpoint", "check_address", "check_host", "endpoint_of"]
