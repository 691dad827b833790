"""How texts are continued, as values that cannot hold what is impossible; no torch is needed to refuse it."""

import math
from dataclasses import dataclass

from quamba.errors import RecipeError


@dataclass(frozen=True, slots=True)
class Sampling:
    """How the next token is chosen.

    Attributes:
        temperature: tokens are drawn from softmax(logits / temperature); 0: the likeliest one each time, whatever
            top_k, top_p and min_p are.
        top_k: only among the k likeliest; 0: all.
        top_p: only among the fewest whose probabilities reach top_p; 1: all.
        min_p: only among those at least min_p times as likely as the likeliest; 0: all.
        repetition_penalty: above 1 makes tokens less likely that the text has already; 1: leaves them as they are.

    Raises:
        RecipeError: a value that nothing can be chosen with; says what can.
    """

    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0
    min_p: float = 0.0
    repetition_penalty: float = 1.0

    def __post_init__(self) -> None:
        if not (math.isfinite(self.temperature) and self.temperature >= 0.0):
            raise RecipeError(
                f"temperature must be at least 0 and finite, not {self.temperature}; 0 takes the likeliest token"
            )
        if self.top_k < 0:
            raise RecipeError(f"top_k must be at least 0, not {self.top_k}; 0 keeps all tokens")
        if not 0.0 < self.top_p <= 1.0:
            raise RecipeError(f"top_p must be in (0, 1], not {self.top_p}; 1 keeps all tokens")
        if not 0.0 <= self.min_p <= 1.0:
            raise RecipeError(f"min_p must be in [0, 1], not {self.min_p}; 0 keeps all tokens")
        if not (math.isfinite(self.repetition_penalty) and self.repetition_penalty > 0.0):
            raise RecipeError(
                f"repetition_penalty must be above 0 and finite, not {self.repetition_penalty}; 1 penalizes nothing"
            )

    @property
    def greedy(self) -> bool:
        """Whether nothing is left to chance."""
        return self.temperature == 0.0


@dataclass(frozen=True, slots=True)
class GenerationOptions:
    """How texts are continued, and until when.

    Attributes:
        sampling: how tokens are chosen.
        max_new_tokens: a continuation's length at most.
        stop: strings that end a continuation; they are not part of it.
        seed: of everything drawn.

    Raises:
        RecipeError: a value that cannot be obeyed; says what can.
    """

    sampling: Sampling = Sampling()
    max_new_tokens: int = 64
    stop: tuple[str, ...] = ()
    seed: int = 0

    def __post_init__(self) -> None:
        if self.max_new_tokens < 1:
            raise RecipeError(f"max_new_tokens must be at least 1, not {self.max_new_tokens}")
        if not all(self.stop):
            raise RecipeError("an empty stop string would end every text at once: leave it out")
        if self.seed < 0:
            raise RecipeError(f"seed must be at least 0, not {self.seed}")


__all__ = ["GenerationOptions", "Sampling"]
