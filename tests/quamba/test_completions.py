"""Laws of texts that come in pieces: joined they are the whole text, no character is broken, stop strings are found."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import pytest
import tokenizers
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st

from quamba.completions import Completion, complete
from quamba.detokenizer import StopScanner, TextStream
from quamba.errors import RecipeError
from quamba.generation_options import GenerationOptions, Sampling
from tests.quamba.evals_fakes import Fake
from tests.quamba.test_generation import Fixed

LOADED = Fake()
TOKENIZER = LOADED.tokenizer
PROMPTS = [[17, 300, 5], [42], [8, 9, 10, 11, 12, 1000], [17, 300, 5]]
GREEDY = Sampling(temperature=0.0)
TEXTS = st.text(st.characters(exclude_categories=["Cs"]))


def streamed(ids: Sequence[int], context: Sequence[int] = ()) -> list[str]:
    stream = TextStream(TOKENIZER.decode, context)
    return [*(stream.add(token) for token in ids), stream.end()]


@settings(deadline=None, max_examples=200)
@given(st.lists(st.integers(0, TOKENIZER.vocab_size - 1), max_size=40), TEXTS)
@example([0, 0], "")
@example([231] * 12, "世")
def test_pieces_joined_are_the_text(ids: list[int], before: str) -> None:
    """Of any tokens, also where their bytes are no UTF-8, and whatever text stands before them."""
    assert "".join(streamed(ids, TOKENIZER.encode(before))) == TOKENIZER.decode(ids)


@settings(deadline=None, max_examples=200)
@given(st.lists(st.integers(1, 300), max_size=40))
def test_pieces_of_single_bytes_joined_are_the_text(ids: list[int]) -> None:
    """The first tokens of the vocabulary are bytes, most lists of which are no UTF-8."""
    assert "".join(streamed(ids)) == TOKENIZER.decode(ids)


@settings(deadline=None, max_examples=200)
@given(TEXTS.filter(lambda text: "\N{REPLACEMENT CHARACTER}" not in text))
@example("世界 🦬 é naïve — “quoted”")
def test_no_piece_has_a_broken_character(text: str) -> None:
    """A character of several tokens waits for its last one."""
    pieces = streamed(TOKENIZER.encode(text))
    assert not any("\N{REPLACEMENT CHARACTER}" in piece for piece in pieces)


def test_a_piece_is_given_as_soon_as_it_is_whole() -> None:
    """Words come with their tokens; only bytes that may become a character wait."""
    ids = TOKENIZER.encode("The night was dark.")
    assert streamed(ids) == [*(TOKENIZER.decode([token]) for token in ids), ""]
    bison = TOKENIZER.encode("🦬")
    assert len(bison) > 1
    assert streamed(bison) == [*[""] * (len(bison) - 1), "🦬", ""]


def test_bytes_that_become_nothing_do_not_hold_the_text_back() -> None:
    """At most as many wait as may begin a character."""
    lonely = next(token for token in range(300) if TOKENIZER.decode([token]) == "\N{REPLACEMENT CHARACTER}")
    assert [len(piece) for piece in streamed([lonely] * 9)] == [0, 0, 0, 1, 1, 1, 1, 1, 1, 3]


def test_only_the_last_tokens_are_decoded_again() -> None:
    """However long a text becomes, a token costs no more."""
    widths = []

    def decode(ids: Sequence[int]) -> str:
        widths.append(len(ids))
        return TOKENIZER.decode(ids)

    stream = TextStream(decode, TOKENIZER.encode("Once upon a time, " * 50))
    for token in TOKENIZER.encode("It was a bright cold day in April. " * 50):
        stream.add(token)
    assert max(widths) < 20


def sentencepiece_like() -> tokenizers.Tokenizer:
    """Words begin with a space, of which a text's first one loses its own."""
    vocabulary = {"▁once": 0, "▁upon": 1, "▁a": 2, "▁time": 3, "s": 4}
    tokenizer = tokenizers.Tokenizer(tokenizers.models.WordLevel(vocabulary, unk_token="s"))
    tokenizer.decoder = tokenizers.decoders.Metaspace()
    tokenizer.add_special_tokens(["</s>"])
    return tokenizer


@given(st.lists(st.integers(0, 4), max_size=30), st.lists(st.integers(0, 5), max_size=24))
@example([], [0, *[5] * 20, 1])
def test_spaces_between_prompt_and_text_are_kept(before: list[int], ids: list[int]) -> None:
    """The pieces are what tokens add to the prompt's text, which is not the text that they have alone."""
    decode = partial(sentencepiece_like().decode, skip_special_tokens=True)
    stream = TextStream(decode, before)
    text = "".join([*(stream.add(token) for token in ids), stream.end()])
    assert decode(before) + text == decode([*before, *ids])


@settings(max_examples=300)
@given(
    st.text("ab", max_size=40),
    st.lists(st.text("ab", min_size=1, max_size=4), max_size=3),
)
def test_stop_strings_are_found_across_pieces(text: str, stop: list[str]) -> None:
    """Character by character, what is passed on is the text before the stop string that is complete first."""
    scanner = StopScanner(stop)
    passed = ""
    for character in text:
        passed += scanner.add(character)
    passed += scanner.end()
    ended = next((end for end in range(len(text) + 1) if any(string in text[:end] for string in stop)), None)
    assert scanner.stopped == (ended is not None)
    known = text[:ended]
    assert passed == known[: min((known.find(string) for string in stop if string in known), default=len(known))]


@settings(max_examples=300)
@given(
    st.lists(st.text("ab", max_size=5), max_size=12),
    st.lists(st.text("abc", min_size=1, max_size=4), max_size=3),
)
def test_only_what_may_become_a_stop_string_is_held_back(pieces: list[str], stop: list[str]) -> None:
    """After each piece all is passed on but the longest end with which a stop string begins."""
    scanner = StopScanner(stop)
    passed = text = ""
    for piece in pieces:
        passed += scanner.add(piece)
        text += piece
        if scanner.stopped:
            return
        held = text[len(passed) :]
        starts = [text[-n:] for n in range(1, len(text) + 1) if any(s.startswith(text[-n:]) for s in stop)]
        assert held == max(starts, key=len, default="")


def completions(options: GenerationOptions, **how: int) -> list[Completion]:
    """All completions; the law that pieces joined are the text is checked on the way."""
    texts = [""] * len(PROMPTS)
    found: dict[int, Completion] = {}
    for pieces in complete(LOADED.model, TOKENIZER, PROMPTS, options, **how):
        for piece in pieces:
            assert piece.row not in found
            texts[piece.row] += piece.text
            if piece.completion is not None:
                found[piece.row] = piece.completion
                assert piece.completion.text == texts[piece.row]
    return [found[row] for row in range(len(PROMPTS))]


@pytest.mark.parametrize("batch_size", [1, 2, 3, 4, 9])
@pytest.mark.parametrize("sampling", [GREEDY, Sampling(temperature=1.5, top_p=0.95)])
def test_the_batch_size_changes_nothing(batch_size: int, sampling: Sampling) -> None:
    """Texts, tokens and reasons are those of all prompts side by side."""
    whole = completions(GenerationOptions(sampling, max_new_tokens=10), vocab_size=TOKENIZER.vocab_size)
    parts = completions(
        GenerationOptions(sampling, max_new_tokens=10), vocab_size=TOKENIZER.vocab_size, batch_size=batch_size
    )
    assert parts == whole
    assert all(completion.text == TOKENIZER.decode(completion.token_ids) for completion in whole)
    assert [completion.finish_reason for completion in whole] == ["length"] * 4


def test_a_stop_string_across_tokens_ends_its_row_alone() -> None:
    """The text ends before it, its tokens are counted, the other rows are as they were."""
    free = completions(GenerationOptions(GREEDY, max_new_tokens=12))
    pieces = [TOKENIZER.decode([token]) for token in free[0].token_ids]
    start = len("".join(pieces[:3])) - 1
    stop = free[0].text[start : start + 3]  # from the last character of the third token on
    assert stop not in pieces
    stopped = completions(GenerationOptions(GREEDY, max_new_tokens=12, stop=(stop,)))
    for before, after in zip(free, stopped, strict=True):
        if stop in before.text:
            assert after.finish_reason == "stop"
            assert after.text == before.text.partition(stop)[0]
            assert after.token_ids == before.token_ids[: len(after.token_ids)]
            assert stop in TOKENIZER.decode(after.token_ids)
            assert stop not in TOKENIZER.decode(after.token_ids[:-1])
        else:
            assert after == before
    assert {completion.finish_reason for completion in stopped} == {"stop", "length"}


def test_the_end_of_text_is_no_part_of_it() -> None:
    """Neither of the text nor of the tokens; what a stop string's beginning held back is."""
    free = completions(GenerationOptions(GREEDY, max_new_tokens=12))
    tokens = free[0].token_ids
    place = next(place for place in range(4, 12) if tokens[place] not in tokens[:place])
    tokenizer = Fake().tokenizer
    tokenizer.eos_token_id = tokens[place]
    text = tokenizer.decode(tokens[:place])
    steps = complete(
        LOADED.model, tokenizer, PROMPTS[:1], GenerationOptions(GREEDY, max_new_tokens=12, stop=(text[-2:] + "\0",))
    )
    [*_, [last]] = steps
    assert last.completion == Completion(text, tokens[:place], "eos")
    assert last.text.endswith(text[-2:])


@dataclass
class SpacedTokenizer:
    """The one whose first word loses its space."""

    eos_token_id: int = 5

    def decode(self, ids: Sequence[int], *, skip_special_tokens: bool = True) -> str:
        return str(sentencepiece_like().decode(list(ids), skip_special_tokens=skip_special_tokens))


@pytest.mark.parametrize(("alone", "expected"), [(False, " once once"), (True, "once once")])
def test_a_continuation_goes_on_from_its_prompt(alone: bool, expected: str) -> None:
    """With the space after the prompt's last word, unless it is asked for alone."""
    options = GenerationOptions(GREEDY, max_new_tokens=2)
    [_, [last]] = complete(Fixed([1.0, 0.0, 0.0, 0.0, 0.0]), SpacedTokenizer(), [[1]], options, alone=alone)
    assert last.completion == Completion(expected, (0, 0), "length")


def test_a_text_may_end_within_a_character() -> None:
    """What had begun and is not completed is shown as one that is none."""
    bison = TOKENIZER.encode("🦬")
    logits = torch.nn.functional.one_hot(torch.tensor(bison[0]), TOKENIZER.vocab_size).float()
    [[piece]] = complete(Fixed(logits.tolist()), TOKENIZER, [[1]], GenerationOptions(GREEDY, max_new_tokens=1))
    assert piece.completion == Completion("\N{REPLACEMENT CHARACTER}", (bison[0],), "length")


def test_a_batch_size_below_one_is_refused() -> None:
    """No prompt would ever be continued."""
    with pytest.raises(RecipeError, match="batch_size must be at least 1, not 0"):
        list(complete(LOADED.model, TOKENIZER, PROMPTS, GenerationOptions(), batch_size=0))
