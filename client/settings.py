"""Where a command looks and how it answers, from the options that every command has."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from qlog.v1.credentials import Credentials, credentials_from

from client.errors import NotFoundError, StoreError, UnreachableError
from client.render import Format
from client.text import escape

if TYPE_CHECKING:
    from client.api import CollectorApi
    from client.quantizer_api import QuantizerApi

_Answer = TypeVar("_Answer")

DEFAULT_LOG_DIR = "logs"
DEFAULT_QUANTIZER = "127.0.0.1:50552"
DEFAULT_TIMEOUT_S = 30.0
# How often a local store may change hands under one question.
_MOVES = 2
_NO_CREDENTIALS = Credentials()


@dataclass(frozen=True, slots=True)
class Settings:
    """The options that every command has.

    Attributes:
        collector: HOST:PORT; None: the local store.
        log_dir: of the local store.
        log_dir_given: by the user, rather than by default.
        quantizer: HOST:PORT.
        form: how answers are written.
        timeout_s: of each call.
        credentials: for servers that were named; the local store asks for none.
    """

    collector: str | None = None
    log_dir: Path = Path(DEFAULT_LOG_DIR)
    log_dir_given: bool = False
    quantizer: str = DEFAULT_QUANTIZER
    form: Format = Format.TABLE
    timeout_s: float = DEFAULT_TIMEOUT_S
    credentials: Credentials = _NO_CREDENTIALS

    @property
    def nothing_yet(self) -> bool:
        """The store is the default local one, and nobody has made it yet."""
        return self.collector is None and not self.log_dir_given and not self.log_dir.exists()

    @property
    def place(self) -> str:
        """The store, as one names it to the user."""
        return escape(self.collector or f"{self.log_dir}/")


@dataclass(frozen=True, slots=True)
class CollectorSession:
    """A connection to the collector; `alone`: it is in this process, and nobody writes to its store now."""

    api: "CollectorApi"
    alone: bool


def settings_from(given: Mapping[str, object], environment: Mapping[str, object]) -> Settings:
    """The settings for what was typed and what the environment says; the first weighs more.

    A log directory that was typed is meant, whatever collector the environment names.
    """
    both = {**environment, **given}
    collector = both.get("collector")
    if "log_dir" in given and "collector" not in given:
        collector = None
    return Settings(
        collector=None if collector is None else str(collector),
        log_dir=Path(str(both.get("log_dir", DEFAULT_LOG_DIR))),
        log_dir_given="log_dir" in both,
        quantizer=str(both.get("quantizer", DEFAULT_QUANTIZER)),
        form=Format(both.get("format", Format.TABLE.value)),
        timeout_s=float(str(both.get("timeout", DEFAULT_TIMEOUT_S))),
        credentials=credentials_from(both),
    )


def no_experiments(settings: Settings) -> str:
    """What to say of a store without any."""
    return f"no experiments in {settings.place} yet: run `quantizer run MODEL --quantize ...`, or name another store"


class Use(Enum):
    """What a command does with a local store."""

    READ = "read"
    CHANGE = "change"
    # Also where there is none yet: then it is made.
    FILL = "fill"


@contextmanager
def open_collector(settings: Settings, use: Use = Use.READ) -> Iterator[CollectorSession]:
    """Connect to the collector that the settings name; for a local store to one in this process.

    Raises:
        NotFoundError: the default local store has not been made yet.
        StoreError: the local store cannot be read, or not be written.
    """
    from client.api import CollectorApi

    if settings.collector is not None:
        with CollectorApi(settings.collector, settings.timeout_s, settings.credentials) as api:
            yield CollectorSession(api, alone=False)
        return
    if settings.nothing_yet and use is not Use.FILL:
        raise NotFoundError(no_experiments(settings))
    if not settings.log_dir.is_dir() and not (use is Use.FILL and not settings.log_dir.exists()):
        wrong = "is not a directory" if settings.log_dir.exists() else "does not exist"
        raise StoreError(f"--log_dir {settings.log_dir}: {wrong}; `quantizer run --log_dir DIR` makes a store")
    from client.embedded import open_store

    with (
        open_store(settings.log_dir, write=use is not Use.READ) as store,
        CollectorApi(store.endpoint, settings.timeout_s) as api,
    ):
        yield CollectorSession(api, alone=store.owned)


def ask(settings: Settings, question: Callable[["CollectorApi"], _Answer], use: Use = Use.READ) -> _Answer:
    """Put one question to the collector that the settings name.

    A local store may be served by a run that ends at this moment: then it is looked for again.

    Raises:
        QlogError: there is no collector, or it refuses.
    """
    for _ in range(_MOVES):
        try:
            with open_collector(settings, use) as session:
                return question(session.api)
        except UnreachableError:
            if settings.collector is not None:
                raise
    with open_collector(settings, use) as session:
        return question(session.api)


def open_quantizer(settings: Settings) -> "QuantizerApi":
    """Connect to the quantizer that the settings name; to be used in a `with`."""
    from client.quantizer_api import QuantizerApi

    return QuantizerApi(settings.quantizer, settings.timeout_s, settings.credentials)


__all__ = [
    "DEFAULT_LOG_DIR",
    "DEFAULT_QUANTIZER",
    "DEFAULT_TIMEOUT_S",
    "CollectorSession",
    "Settings",
    "Use",
    "ask",
    "no_experiments",
    "open_collector",
    "open_quantizer",
    "settings_from",
]
