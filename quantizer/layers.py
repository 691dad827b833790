"""Which layers' statistics are recorded, as `--stats_layers` says it."""

from dataclasses import dataclass

MOST_LAYERS = 100_000


@dataclass(frozen=True, slots=True)
class LayerSelection:
    """The first `count` layers, all (`count` None and no list), or those listed.

    Attributes:
        text: as the user gave it.
        count: how many from the first.
        listed: indices, ascending.
    """

    text: str
    count: int | None = None
    listed: tuple[int, ...] | None = None

    @classmethod
    def parse(cls, text: str) -> "LayerSelection":
        """Read "3", "all", "0,5,10-12" or "5,".

        Raises:
            ValueError: something else; the message says what is wrong.
        """
        stripped = text.strip()
        if stripped == "all":
            return cls(stripped)
        if stripped.isascii() and stripped.isdecimal():
            return cls(stripped, count=_number(stripped))
        parts = stripped.split(",")
        if parts[-1].strip() == "":
            parts.pop()
        if not parts:
            raise ValueError("nothing is listed")
        layers: set[int] = set()
        for part in parts:
            first, dash, last = part.strip().partition("-")
            low = _number(first)
            high = _number(last) if dash else low
            if high < low:
                raise ValueError(f"the range {part.strip()} runs backwards")
            layers.update(range(low, high + 1))
        return cls(stripped, listed=tuple(sorted(layers)))

    def of(self, n_layer: int) -> tuple[int, ...]:
        """The indices in a model of `n_layer` layers.

        Raises:
            ValueError: a listed layer is not there.
        """
        if self.listed is not None:
            if self.listed[-1] >= n_layer:
                raise ValueError(f"layer {self.listed[-1]} is not there: the model has layers 0 to {n_layer - 1}")
            return self.listed
        return tuple(range(n_layer if self.count is None else min(self.count, n_layer)))


def _number(text: str) -> int:
    if not (text.isascii() and text.isdecimal() and len(text) <= 6 and int(text) < MOST_LAYERS):
        raise ValueError(f"{text!r} is no layer number")
    return int(text)


__all__ = ["LayerSelection"]
