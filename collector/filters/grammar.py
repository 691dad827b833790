"""The grammar of filters (https://google.aip.dev/160), and the parser that it makes.

Differences: a word keeps its dots, dashes and colons' right side as they stand (names are joined again where a key has
dots itself); `-7d` after an operator is a value; the empty filter is everything.
"""

import re
from functools import cache, lru_cache
from typing import Any

from lark import Lark, Token, Transformer
from lark.exceptions import UnexpectedCharacters, UnexpectedInput, UnexpectedToken, VisitError

from collector import limits
from collector.filters.syntax import FOREIGN, Call, Group, Node, Restriction, Span, Word, wrong

# Quoted texts, and what stands bare in words.
_QUOTED = r"""(?:"(?:[^"\\]|\\.)*"|'(?:[^'\\]|\\.)*')"""
_BARE = r"""[^\s()"'<>=!:,]"""

GRAMMAR = r"""
start: expression?
expression: sequence (AND sequence)*
sequence: factor+
factor: term (OR term)*
term: (NOT | MINUS) simple -> negation
    | simple
?simple: restriction | "(" expression ")"
restriction: comparable [COMPARATOR arg]
?comparable: function | word
function: CALL [argument ("," argument)*] ")"
?argument: function | word | MINUS word -> negative
?arg: function | word | MINUS word -> negative | "(" expression ")"
word: PATH | TEXT | STRING

AND: "AND"
OR: "OR"
NOT: "NOT"
MINUS: "-"
COMPARATOR: "<=" | ">=" | "!=" | "=" | "<" | ">" | ":"
CALL.4: /[A-Za-z_][A-Za-z_0-9]*\(/
PATH.3: /(?:BARE+\.)?QUOTED(?:\.(?:[^\s()"'<>=!:,.]+|QUOTED))+|BARE+\.QUOTED/s
STRING.2: /"(?:[^"\\]|\\.)*"|'(?:[^'\\]|\\.)*'/s
TEXT.1: /(?!(?:AND|OR|NOT)(?![^\s()"'<>=!:,]))[^\s()"'<>=!:,\-](?:[^\s()"'<>=!:,]|,(?=[^\s()"'<>=!:,]))*/
%ignore /\s+/
""".replace("BARE", _BARE).replace("QUOTED", _QUOTED)

_SEGMENT = re.compile(r'"((?:[^"\\]|\\.)*)"|\'((?:[^\'\\]|\\.)*)\'|([^"\']+)', re.DOTALL)
_TIME_AFTER = re.compile(r"\d+(:\d\d)")
_LOWER = {"and": "AND", "or": "OR", "not": "NOT"}


@cache
def _parser() -> Lark:
    return Lark(GRAMMAR, parser="lalr", lexer="contextual", propagate_positions=True, maybe_placeholders=False)


@lru_cache(64)
def parse(text: str) -> Node | None:
    """The syntax of a filter; None where it is empty.

    Raises:
        FilterError: it is none, or too large.
    """
    whole = Span(0, len(text))
    if len(text) > limits.MAX_FILTER_LENGTH:
        raise wrong(
            f"the filter has {len(text)} characters, more than {limits.MAX_FILTER_LENGTH}", text[:40], Span(0, 40)
        )
    _check_depth(text)
    try:
        tree = _parser().parse(text)
        node: Node | None = _Builder(text).transform(tree)
    except UnexpectedInput as error:
        raise _explained(text, error) from None
    except VisitError as error:
        raise error.orig_exc from None
    if node is not None and (count := _terms(node)) > limits.MAX_FILTER_TERMS:
        raise wrong(f"the filter has {count} terms, more than {limits.MAX_FILTER_TERMS}", text, whole)
    return node


def _check_depth(text: str) -> None:
    depth = 0
    quote = ""
    skip = False
    for place, character in enumerate(text):
        if skip:
            skip = False
        elif quote:
            skip = character == "\\"
            quote = "" if character == quote else quote
        elif character in "\"'":
            quote = character
        elif character == "(":
            depth += 1
            if depth > limits.MAX_FILTER_DEPTH:
                raise wrong(
                    f"the filter's parentheses are deeper than {limits.MAX_FILTER_DEPTH}", text, Span(place, place + 1)
                )
        elif character == ")":
            depth -= 1


def _terms(node: Node) -> int:
    if isinstance(node, Group):
        return sum(_terms(part) for part in node.parts)
    return 1 + (_terms(node.right) if isinstance(node.right, Group) else 0)


def _explained(text: str, error: UnexpectedInput) -> Exception:
    end = len(text.rstrip())
    start = error.pos_in_stream if error.pos_in_stream is not None else end
    if isinstance(error, UnexpectedToken) and error.token.type == "$END":
        start = end
    rest = text[start:]
    if isinstance(error, UnexpectedCharacters) and rest[:1] in ("'", '"'):
        return wrong(f"the {rest[0]} is never closed", text, Span(start, start + 1))
    for sign, advice in FOREIGN.items():
        for at in (start, start - 1):
            if at >= 0 and text.startswith(sign, at):
                return wrong(f"{sign} is no operator: {advice}", text, Span(at, at + len(sign)))
    before = text[:start].split()
    if before and before[-1] in _LOWER:
        # Read as a word to look for, which it is not.
        word = before[-1]
        at = text.rindex(word, 0, start)
        return wrong(f"write {_LOWER[word]} in capitals, or {word!r} in quotes", text, Span(at, at + len(word)))
    if not rest.strip():
        return wrong("the filter ends where something has to follow", text, Span(start, start + 1))
    shown = rest.split()[0] if not isinstance(error, UnexpectedToken) else str(error.token)
    if shown.startswith(":") and _TIME_AFTER.search(text[max(0, start - 8) : start + 3]):
        return wrong("put times into quotes", text, Span(start, start + 1))
    length = 1 if shown[:1] in "():<>=!," else len(shown)
    return wrong(f"{shown[:40]!r} cannot stand here", text, Span(start, start + length))


class _Builder(Transformer[Token, Any]):
    """From the tree of the parser to our syntax."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self._text = text

    def start(self, items: list[Any]) -> Node | None:
        return items[0] if items else None

    def expression(self, items: list[Any]) -> Node:
        return _joined("AND", [item for item in items if not isinstance(item, Token)])

    def sequence(self, items: list[Any]) -> Node:
        for item in items:
            if (
                len(items) > 1
                and isinstance(item, Restriction)
                and not item.operator
                and isinstance(item.left, Word)
                and not item.left.quoted
                and item.left.text in _LOWER
            ):
                word = item.left.text
                raise wrong(f"write {_LOWER[word]} in capitals, or {word!r} in quotes", self._text, item.left.span)
        return _joined("AND", items)

    def factor(self, items: list[Any]) -> Node:
        return _joined("OR", [item for item in items if not isinstance(item, Token)])

    def term(self, items: list[Any]) -> Node:
        node: Node = items[0]
        return node

    def negation(self, items: list[Any]) -> Node:
        return Group("NOT", (items[1],))

    def restriction(self, items: list[Any]) -> Restriction:
        if len(items) == 1:
            return Restriction(items[0])
        left, operator, right = items
        return Restriction(left, str(operator), right if not isinstance(right, Restriction) else Group("AND", (right,)))

    def function(self, items: list[Any]) -> Call:
        arguments: list[Word | Call] = []
        for item in items[1:]:
            arguments += _split_at_commas(item) if isinstance(item, Word) else [item]
        start = int(items[0].start_pos)
        end = arguments[-1].span.end if arguments else start + len(items[0])
        return Call(str(items[0])[:-1], tuple(arguments), Span(start, end))

    def negative(self, items: list[Any]) -> Word:
        minus, word = items
        return Word(f"-{word.text}", word.quoted, Span(minus.start_pos, word.span.end))

    def word(self, items: list[Any]) -> Word:
        token = items[0]
        span = Span(token.start_pos, token.end_pos)
        if token.type == "TEXT":
            return Word(str(token).replace("\\*", "*") if "\\" in token else str(token), quoted=False, span=span)
        parts = []
        for double, single, bare in _SEGMENT.findall(token):
            parts.append(bare or _unescaped(double or single))
        return Word("".join(parts), token.type == "STRING", span)


def _split_at_commas(word: Word) -> list[Word]:
    if word.quoted or "," not in word.text:
        return [word]
    return [Word(part, quoted=False, span=word.span) for part in word.text.split(",")]


def _unescaped(text: str) -> str:
    if "\\" not in text:
        return text
    # An escaped star stays marked: it is no wildcard.
    return re.sub(r"\\(.)", lambda match: match[0] if match[1] == "*" else match[1], text, flags=re.DOTALL)


def _joined(by: str, parts: list[Any]) -> Node:
    if len(parts) == 1:
        only: Node = parts[0]
        return only
    return Group(by, tuple(parts))


__all__ = ["GRAMMAR", "parse"]
