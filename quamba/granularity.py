"""How many weights share a scale, and which combinations of bits can be built.

    >>> WeightScheme.of(4, 8)
    WeightScheme(num_bits=4, granularity=PerGroup(size=128), activation_bits=8)

For a weight [out, in] the scales are: `PerTensor` one; `PerChannel` [out]; `PerGroup(128)` [out, ceil(in / 128)].
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from quamba.errors import RecipeError


@dataclass(frozen=True, slots=True)
class PerTensor:
    """One scale for the weight, or for each block of its rows where a layer is several fused (Mamba-2's in_proj)."""


@dataclass(frozen=True, slots=True)
class PerChannel:
    """A scale for each output channel."""


@dataclass(frozen=True, slots=True)
class PerGroup:
    """A scale for each output channel and group of consecutive input channels; the last group may be shorter.

    Attributes:
        size: input channels of a group.

    Raises:
        RecipeError: a size below 1.
    """

    size: int = 128

    def __post_init__(self) -> None:
        if self.size < 1:
            raise RecipeError(f"a group needs at least 1 input channel, not {self.size}; use 128")


Granularity = PerTensor | PerChannel | PerGroup
_KINDS: dict[str, type[Granularity]] = {"per_tensor": PerTensor, "per_channel": PerChannel, "per_group": PerGroup}


@dataclass(frozen=True, slots=True)
class WeightScheme:
    """What a linear layer's weight becomes, and what it is multiplied with: one row of the table of what can be built.

    Attributes:
        num_bits: of the weight's codes.
        granularity: of the weight's scales.
        activation_bits: 8: integer products; 16: activations stay float.

    Raises:
        RecipeError: a combination that cannot be built; says what can.
    """

    num_bits: int
    granularity: Granularity
    activation_bits: int = 8

    def __post_init__(self) -> None:
        possible = _granularities(self.num_bits, self.activation_bits)
        if not isinstance(self.granularity, possible):
            names = " or ".join(kind.__name__ for kind in possible)
            raise RecipeError(f"{self.name} takes scales {names}, not {type(self.granularity).__name__}")

    @classmethod
    def of(cls, w_bits: int, a_bits: int) -> "WeightScheme":
        """The combination with its usual granularity.

        Raises:
            RecipeError: it cannot be built.
        """
        return cls(w_bits, _granularities(w_bits, a_bits)[0](), a_bits)

    @property
    def name(self) -> str:
        """As papers write it: "W4A8"."""
        return _name(self.num_bits, self.activation_bits)

    @property
    def group_size(self) -> int | None:
        """Input channels that share a scale; None: all of a row do."""
        return self.granularity.size if isinstance(self.granularity, PerGroup) else None

    def facts(self) -> dict[str, Any]:
        """As plain values, for a `quantization_config`."""
        return {
            "w_bits": self.num_bits,
            "a_bits": self.activation_bits,
            "granularity": next(name for name, kind in _KINDS.items() if isinstance(self.granularity, kind)),
            "group_size": self.group_size,
            "symmetric": True,
        }

    @classmethod
    def from_facts(cls, facts: Mapping[str, Any]) -> "WeightScheme":
        """The inverse of `facts`.

        Raises:
            KeyError: a fact is missing, or the granularity is unknown.
            RecipeError: the combination cannot be built.
        """
        kind, size = _KINDS[facts["granularity"]], facts["group_size"]
        return cls(facts["w_bits"], PerGroup(size) if kind is PerGroup else kind(), facts["a_bits"])

    @property
    def has_two_levels(self) -> bool:
        """Codes of groups become 8-bit integers of a channel: 4 bits with 8-bit activations."""
        return self.num_bits == 4 and self.activation_bits == 8


# Bits of weight and activation, with the granularities that can be had; the first is the usual one.
_BUILDABLE: dict[tuple[int, int], tuple[type[Granularity], ...]] = {
    (8, 8): (PerChannel, PerTensor),
    (4, 8): (PerGroup,),
    (4, 16): (PerGroup,),
}


def _name(w_bits: int, a_bits: int) -> str:
    return f"W{w_bits}A{a_bits}"


def _granularities(w_bits: int, a_bits: int) -> tuple[type[Granularity], ...]:
    possible = _BUILDABLE.get((w_bits, a_bits))
    if possible is None:
        names = ", ".join(_name(*bits) for bits in _BUILDABLE)
        raise RecipeError(f"{_name(w_bits, a_bits)} cannot be built; use one of {names}")
    return possible


SCHEMES: dict[str, WeightScheme] = {_name(*bits): WeightScheme.of(*bits) for bits in _BUILDABLE}

__all__ = ["SCHEMES", "Granularity", "PerChannel", "PerGroup", "PerTensor", "WeightScheme"]
