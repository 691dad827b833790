"""Text out of a stream of tokens, as soon as it is settled: whole characters, and nothing of a stop string."""

from collections.abc import Callable, Sequence

# What bytes that are no character decode to. One that is not complete yet, of 4 bytes at most, shows as 1 to 3 of them.
_REPLACEMENT = "\N{REPLACEMENT CHARACTER}"
_MOST_PENDING = 3
# Tokens that are decoded again with each new one. What a token means may depend on the one before it: SentencePiece
# drops the space before the first.
_WINDOW = 8


class TextStream:
    """Turns tokens into text piece by piece; the pieces together are the text of all tokens.

    Args:
        decode: the text of some ids.
        context: the tokens before the first one, which are not part of the text.
    """

    def __init__(self, decode: Callable[[Sequence[int]], str], context: Sequence[int] = ()) -> None:
        self._decode = decode
        self._window = list(context[-_WINDOW:])
        self._given = len(decode(self._window))
        self._settled = len(self._window)

    def add(self, token: int) -> str:
        """What is certain now and was not before; empty in the middle of a character."""
        self._window.append(token)
        text = self._decode(self._window)
        pending = len(text) - len(text.rstrip(_REPLACEMENT))
        piece = text[self._given : len(text) - min(pending, _MOST_PENDING)]
        self._given += len(piece)
        if not pending:
            self._forget()
        return piece

    def end(self) -> str:
        """What is left: the beginning of a character that will not be completed."""
        piece = self._decode(self._window)[self._given :]
        self._given += len(piece)
        return piece

    def _forget(self) -> None:
        """Drop tokens up to the last place but one where no character was open."""
        settled, self._settled = self._settled, len(self._window)
        if len(self._window) > _WINDOW and (text := self._decode(self._window[settled:])):
            del self._window[:settled]
            self._settled, self._given = len(self._window), len(text)


class StopScanner:
    """Passes text on up to the first stop string, and holds back what may become one.

    Args:
        stop: strings, none of them empty.
    """

    def __init__(self, stop: Sequence[str]) -> None:
        self._stop = tuple(stop)
        self._held = ""
        self.stopped = False

    def add(self, text: str) -> str:
        """What can be passed on; after a stop string nothing."""
        if self.stopped:
            return ""
        self._held += text
        places = [place for string in self._stop if (place := self._held.find(string)) >= 0]
        self.stopped = bool(places)
        end = min(places) if places else len(self._held) - self._open()
        passed, self._held = self._held[:end], "" if self.stopped else self._held[end:]
        return passed

    def end(self) -> str:
        """What was held back."""
        held, self._held = self._held, ""
        return held

    def _open(self) -> int:
        """How many characters at the end are the beginning of a stop string."""
        longest = min(max(map(len, self._stop), default=1) - 1, len(self._held))
        ends = (self._held[-length:] for length in range(longest, 0, -1))
        return next((len(end) for end in ends if any(string.startswith(end) for string in self._stop)), 0)


__all__ = ["StopScanner", "TextStream"]
