"""Who calls, and what they may: roles, and the file that gives them to tokens and certificates.

A line of the file is `ROLES NAME TOKEN` or `ROLES TOKEN`; ROLES are one or more of reader, writer and admin with commas
between them, NAME is how log lines call whoever sends the token. `cert:SUBJECT` in the place of the token stands for
client certificates with that common name. Empty lines, and those that begin with #, say nothing.
"""

import hashlib
import hmac
import logging
import threading
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Final, Protocol

from qlog.v1.secrets import CredentialsError, is_token, secret_lines

logger = logging.getLogger(__name__)

_CERTIFICATE = "cert:"
_MOST_TOKENS = 1000
# How often a file is looked at for changes.
_LOOK_S = 1.0


class Role(StrEnum):
    """What a token is good for."""

    READER = "reader"
    WRITER = "writer"
    ADMIN = "admin"


Roles = frozenset[Role]
ADMINS: Final[Roles] = frozenset({Role.ADMIN})
READERS: Final[Roles] = ADMINS | {Role.READER}
WRITERS: Final[Roles] = ADMINS | {Role.WRITER}
# In a table of roles: nobody is asked who they are.
OPEN: Final = None
RoleTable = Mapping[str, Roles | None]

# Load balancers and orchestrators ask for health, and have no tokens.
COMMON_ROLES: Final[RoleTable] = {
    "/grpc.health.v1.Health/Check": OPEN,
    "/grpc.health.v1.Health/List": OPEN,
    "/grpc.health.v1.Health/Watch": OPEN,
    "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo": READERS,
}


@dataclass(frozen=True, slots=True)
class Identity:
    """Whoever calls: a name for log lines, and what they may."""

    name: str
    roles: Roles


ANONYMOUS: Final = Identity("anonymous", frozenset(Role))


@dataclass(frozen=True, slots=True)
class Caller:
    """What a call brings along.

    Attributes:
        token: None: it has none.
        subject: the common name of a client certificate that was verified; None: there is none.
    """

    token: str | None
    subject: str | None


class Access(Protocol):
    """Tells who calls."""

    def identify(self, caller: Caller) -> Identity | None:
        """Whoever it is; None: nobody that is known."""


class OpenAccess:
    """Everybody may do everything."""

    def identify(self, caller: Caller) -> Identity | None:
        """The same for all; a verified certificate still has its name."""
        return Identity(caller.subject, ANONYMOUS.roles) if caller.subject else ANONYMOUS


@dataclass(frozen=True, slots=True)
class _Entry:
    digest: bytes
    identity: Identity


@dataclass(frozen=True, slots=True)
class _Table:
    tokens: tuple[_Entry, ...]
    subjects: Mapping[str, Identity]


def _digest(token: str) -> bytes:
    return hashlib.sha256(token.encode("utf-8", "surrogatepass")).digest()


def read_table(path: Path) -> _Table:
    """What a file of tokens says; of the tokens themselves only digests are kept.

    Raises:
        CredentialsError: names the line.
    """
    tokens: dict[bytes, _Entry] = {}
    subjects: dict[str, Identity] = {}
    lines = secret_lines(path, "the token file")
    for number, fields in lines:
        identity, secret = _entry(path, number, fields)
        known = secret in subjects if secret.startswith(_CERTIFICATE) else _digest(secret) in tokens
        if known:
            raise CredentialsError(f"the token file {path}, line {number}: this token is there twice")
        if secret.startswith(_CERTIFICATE):
            subjects[secret] = identity
        else:
            tokens[_digest(secret)] = _Entry(_digest(secret), identity)
    if not lines:
        raise CredentialsError(f"the token file {path} holds no token: write lines as `reader NAME TOKEN`")
    if len(lines) > _MOST_TOKENS:
        raise CredentialsError(f"the token file {path} holds more than {_MOST_TOKENS} tokens")
    return _Table(tuple(tokens.values()), subjects)


def _entry(path: Path, number: int, fields: Sequence[str]) -> tuple[Identity, str]:
    where = f"the token file {path}, line {number}"
    if not 2 <= len(fields) <= 3:
        # Nothing of the line is shown: any word of it may be the secret.
        raise CredentialsError(f"{where}: {len(fields)} words; write `ROLES NAME TOKEN` or `ROLES TOKEN`")
    try:
        roles = frozenset(Role(name) for name in fields[0].split(","))
    except ValueError:
        raise CredentialsError(
            f"{where}: its first word is no role: reader, writer or admin, or several with commas"
        ) from None
    secret = fields[-1]
    if not is_token(secret):
        raise CredentialsError(f"{where}: its token has characters that no token has, or too many: visible ASCII alone")
    name = fields[1] if len(fields) == 3 else f"{fields[0]}-{number}"
    return Identity(name, roles), secret


class TokenAccess:
    """Tokens and certificates as a file lists them; a file that changes is read again.

    Args:
        path: of the file.

    Raises:
        CredentialsError: it cannot be used.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._seen = _mark(path)
        self._table = read_table(path)
        self._looked = time.monotonic()
        self._lock = threading.Lock()

    def identify(self, caller: Caller) -> Identity | None:
        """Whoever the token belongs to, else the certificate."""
        self._look()
        table = self._table
        if caller.token is not None:
            return _find(table.tokens, caller.token)
        return table.subjects.get(f"{_CERTIFICATE}{caller.subject}") if caller.subject else None

    def reload(self) -> None:
        """Read the file again; where it cannot be used, what was read before stays."""
        with self._lock:
            self._seen = _mark(self._path)
            try:
                self._table = read_table(self._path)
            except CredentialsError as error:
                logger.error("%s; the tokens read before stay", error)
            else:
                logger.info("the token file %s was read again", self._path)

    def _look(self) -> None:
        now = time.monotonic()
        if now < self._looked + _LOOK_S:
            return
        self._looked = now
        if _mark(self._path) != self._seen:
            self.reload()


def _find(entries: Iterable[_Entry], token: str) -> Identity | None:
    """The owner of a token. Each is compared, in the same time whatever is equal: the time tells nothing."""
    found: Identity | None = None
    digest = _digest(token)
    for entry in entries:
        if hmac.compare_digest(entry.digest, digest):
            found = entry.identity
    return found


def _mark(path: Path) -> tuple[int, ...]:
    try:
        status = path.stat()
    except OSError:
        return ()
    return (status.st_ino, status.st_size, status.st_mtime_ns, status.st_mode)


__all__ = [
    "ADMINS",
    "ANONYMOUS",
    "COMMON_ROLES",
    "OPEN",
    "READERS",
    "WRITERS",
    "Access",
    "Caller",
    "Identity",
    "OpenAccess",
    "Role",
    "RoleTable",
    "Roles",
    "TokenAccess",
    "read_table",
]
