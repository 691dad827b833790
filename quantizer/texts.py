"""Texts as the collector takes them: valid UTF-8 and bounded, whatever a path or an environment holds."""

NAME_BYTES = 256
TEXT_BYTES = 60_000


def text_of(text: str) -> str:
    """A text of at most TEXT_BYTES; bytes that were no UTF-8 (a file's name) are shown as escapes."""
    encoded = text.encode("utf-8", "backslashreplace")
    return encoded[:TEXT_BYTES].decode("utf-8", "ignore")


def name_of(text: str) -> str:
    """A name of at most NAME_BYTES; of longer ones (a path) the end is what tells them apart."""
    encoded = text.encode("utf-8", "backslashreplace")
    if len(encoded) <= NAME_BYTES:
        return encoded.decode()
    return "..." + encoded[3 - NAME_BYTES :].decode("utf-8", "ignore")


__all__ = ["name_of", "text_of"]
