"""Files with secrets: tokens and private keys. What is in them never gets into a message."""

import os
import re
import stat
from pathlib import Path

# What an HTTP header can carry, without the blank that separates fields.
_TOKEN = re.compile(r"[\x21-\x7e]{1,512}")
_MOST_BYTES = 1 << 20
ROLE_NAMES = ("reader", "writer", "admin")


class CredentialsError(Exception):
    """A file of tokens, keys or certificates cannot be used, or may not be used so. One line, without the secret."""


def read_secret(path: Path, what: str) -> bytes:
    """The content of a file that only its owner, and at most its group, can read.

    Args:
        path: the file.
        what: it is, for messages: "the token file".

    Raises:
        CredentialsError: it cannot be read, or everybody can read it.
    """
    try:
        with path.open("rb") as file:
            status = os.fstat(file.fileno())
            if not stat.S_ISREG(status.st_mode) and not stat.S_ISFIFO(status.st_mode):
                raise CredentialsError(f"{what} {path} is no file")
            mode = stat.S_IMODE(status.st_mode)
            if stat.S_ISREG(status.st_mode) and mode & (stat.S_IRWXO | stat.S_IWGRP):
                raise CredentialsError(
                    f"{what} {path} is open to others (mode {mode:04o}): run `chmod 600 {path}`, and change the "
                    "secret where they may have read it"
                )
            content = file.read(_MOST_BYTES + 1)
    except OSError as error:
        raise CredentialsError(f"{what} {path} cannot be read: {error.strerror or error}") from None
    except ValueError:
        raise CredentialsError(f"{what} {str(path)!r} is no path") from None
    if len(content) > _MOST_BYTES:
        raise CredentialsError(f"{what} {path} is larger than {_MOST_BYTES} bytes")
    return content


def secret_lines(path: Path, what: str) -> list[tuple[int, list[str]]]:
    """The lines of a file of tokens as fields, with their numbers from 1; comments and empty lines left out.

    Raises:
        CredentialsError: see `read_secret`, and where it is no text.
    """
    try:
        text = read_secret(path, what).decode()
    except UnicodeDecodeError:
        raise CredentialsError(f"{what} {path} is no text in UTF-8") from None
    lines = ((number, line.split()) for number, line in enumerate(text.splitlines(), 1))
    return [(number, fields) for number, fields in lines if fields and not fields[0].startswith("#")]


def is_token(text: str) -> bool:
    """Whether a text can be sent as a bearer token."""
    return _TOKEN.fullmatch(text) is not None


def read_token(path: Path) -> str:
    """The one token of a client's file: alone, or as it stands in a server's file (ROLE [NAME] TOKEN).

    Raises:
        CredentialsError: the file cannot be used.
    """
    lines = secret_lines(path, "the token file")
    if len(lines) != 1:
        held = "no token" if not lines else f"{len(lines)} lines"
        raise CredentialsError(f"the token file {path} holds {held}: a client's has one line, its token")
    [(_, fields)] = lines
    roles = fields[0].split(",")
    plain = len(fields) == 1
    if not (plain or (len(fields) <= 3 and all(role in ROLE_NAMES for role in roles))):
        raise CredentialsError(f"the token file {path} holds {len(fields)} words: a client's has one line, its token")
    if not is_token(fields[-1]):
        raise CredentialsError(f"the token file {path} holds characters that no token has: visible ASCII alone")
    return fields[-1]


__all__ = ["ROLE_NAMES", "CredentialsError", "is_token", "read_secret", "read_token", "secret_lines"]
