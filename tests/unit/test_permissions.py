"""Permissions: what a grant covers, and what the language of requirements means."""

from __future__ import annotations

import ast
from contextlib import suppress
from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from latchgate_server.core import bounds
from latchgate_server.core.permissions import (
    Grants,
    MalformedRequirement,
    is_grant,
    is_permission,
    parse_requirement,
    render_requirement,
)
from tests.unit.strategies import ANY_TEXT

# Names.


@pytest.mark.parametrize(
    "text", ["orders", "orders.read", "a.b.c.d", "A-1_x.9", "and", "AND.OR", "x" * bounds.PERMISSION_LENGTH]
)
def test_a_permission_is_a_dotted_name_and_itself_a_grant(text: str) -> None:
    assert is_permission(text)
    assert is_grant(text)


@pytest.mark.parametrize("text", ["*", "orders.*", "orders.lines.*", "latchgate.*"])
def test_a_pattern_is_a_grant_but_no_permission(text: str) -> None:
    assert is_grant(text)
    assert not is_permission(text)


@pytest.mark.parametrize(
    "text",
    [
        *("", ".", "a.", ".a", "a..b", "a b", "a\n", "a\0", "\u0430", "AND", "OR", "NOT", "a/b", "(a)", "\ud800"),
        *("**", "a*", "*.a", "a.*.b", ".*", "a.**", "a.*.*", "AND.*", "*\n", "x" * (bounds.PERMISSION_LENGTH + 1)),
    ],
)
def test_anything_else_is_neither_permission_nor_grant(text: str) -> None:
    assert not is_permission(text)
    assert not is_grant(text)


@given(ANY_TEXT)
def test_any_text_can_be_asked_about(text: str) -> None:
    assert is_grant(text) >= is_permission(text)


# What a grant covers. `fresh` is a name that no grant spells out, so that no enumeration passes for a pattern.


def _names(segments: tuple[str, ...], depth: int) -> list[str]:
    return [".".join(name) for length in range(1, depth + 1) for name in product(segments, repeat=length)]


def _rule(grant: str, permission: str) -> bool:
    """The documented rule for one grant and one permission, word for word."""
    if permission.startswith("latchgate.") and not grant.startswith("latchgate."):
        return False
    return permission.startswith(grant[:-1]) if grant.endswith("*") else permission == grant


PERMISSIONS = _names(("orders", "keys", "latchgate", "fresh"), 3)
SPELT = ("orders", "keys", "latchgate")
GRANTS = ["*", *(f"{stem}.*" for stem in _names(SPELT, 2)), *_names(SPELT, 3)]
STANDS_FOR = {grant: {p for p in PERMISSIONS if _rule(grant, p)} for grant in [*GRANTS, *PERMISSIONS]}


@given(st.lists(st.sampled_from(GRANTS), max_size=5))
def test_grants_cover_what_the_rule_says_and_a_pattern_only_where_they_cover_all_it_stands_for(held: list[str]) -> None:
    granted = {p for p in PERMISSIONS if any(_rule(grant, p) for grant in held)}
    grants = Grants(held)
    assert {asked for asked in STANDS_FOR if grants.covers(asked)} == {
        asked for asked, permissions in STANDS_FOR.items() if permissions <= granted
    }


def test_a_business_key_with_star_is_no_administrator() -> None:
    everything = Grants(["*"])
    assert everything.covers("orders.delete")
    assert everything.covers("*")
    assert not everything.covers("latchgate.keys.create")
    assert not everything.covers("latchgate.*")


def test_an_administrator_of_everything_has_no_business_permission() -> None:
    administrator = Grants(["latchgate.*"])
    assert administrator.covers("latchgate.keys.create")
    assert not administrator.covers("orders.read")
    assert not administrator.covers("*")


def test_a_pattern_covers_what_is_below_it_but_not_itself_nor_a_longer_name() -> None:
    orders = Grants(["orders.*"])
    assert orders.covers("orders.read")
    assert orders.covers("orders.lines.read")
    assert not orders.covers("orders")
    assert not orders.covers("orders-archive.read")


def test_no_grants_cover_nothing() -> None:
    assert not any(Grants([]).covers(asked) for asked in STANDS_FOR)


def test_grants_are_listed_sorted_and_once() -> None:
    assert Grants(["b", "a.*", "b", "*"]).listed == ("*", "a.*", "b")


# What a requirement means. Python's own grammar of `and`, `or`, `not` is the same as ours, and so the judge.

HELD_OR_NOT = ("orders.read", "orders.write", "stock-1")
IN_PYTHON = {"AND": "and", "OR": "or", "NOT": "not", "(": "(", ")": ")"} | {
    name: f"p{number}" for number, name in enumerate(HELD_OR_NOT)
}
HELD = st.sets(st.sampled_from(HELD_OR_NOT))


def _python_says(tokens: list[str], held: set[str]) -> bool:
    """Whether these permissions satisfy the expression, by Python. Raises SyntaxError."""
    expression = ast.parse(" ".join(IN_PYTHON[token] for token in tokens), mode="eval").body
    return _evaluated(expression, {IN_PYTHON[name] for name in held})


def _evaluated(node: ast.expr, held: set[str]) -> bool:
    match node:
        case ast.Name(id=name):
            return name in held
        case ast.UnaryOp(op=ast.Not(), operand=term):
            return not _evaluated(term, held)
        case ast.BoolOp(op=operator, values=terms):
            outcomes = [_evaluated(term, held) for term in terms]
            return all(outcomes) if isinstance(operator, ast.And) else any(outcomes)
    raise SyntaxError("Python, but no expression of ours")


def _expressions(depth: int) -> st.SearchStrategy[list[str]]:
    """Tokens of well-formed expressions, with parentheses wherever the grammar takes them."""
    name = st.sampled_from(HELD_OR_NOT).map(lambda text: [text])
    if depth == 0:
        return name
    inner = _expressions(depth - 1)
    return st.one_of(
        name,
        inner.map(lambda term: ["NOT", *term]),
        inner.map(lambda term: ["(", *term, ")"]),
        st.builds(lambda a, word, b: [*a, word, *b], inner, st.sampled_from(["AND", "OR"]), inner),
    )


@st.composite
def _spaced(draw: st.DrawFn, tokens: list[str]) -> str:
    """The tokens as text, with any white space between them and none where a parenthesis parts them."""
    text = draw(st.sampled_from(["", " "]))
    for token, following in zip(tokens, [*tokens[1:], ")"], strict=True):
        parted = {token, following} & {"(", ")"}
        text += token + draw(st.sampled_from(["", " ", "\t\n "] if parted else [" ", "  ", "\r\n"]))
    return text


@given(_expressions(4), HELD, st.data())
def test_a_requirement_means_what_its_words_mean(tokens: list[str], held: set[str], data: st.DataObject) -> None:
    text = data.draw(_spaced(tokens))
    assert parse_requirement(text).satisfied_by(Grants(held)) == _python_says(tokens, held)


@given(st.lists(st.sampled_from(sorted(IN_PYTHON)), max_size=7), HELD)
def test_every_sequence_of_words_is_either_a_requirement_or_malformed(tokens: list[str], held: set[str]) -> None:
    try:
        expected = _python_says(tokens, held)
    except SyntaxError:
        with pytest.raises(MalformedRequirement):
            parse_requirement(" ".join(tokens))
    else:
        assert parse_requirement(" ".join(tokens)).satisfied_by(Grants(held)) == expected


@given(ANY_TEXT | st.text("aAND OR.NT()*\t"))
def test_no_text_makes_the_parser_fail_in_another_way(text: str) -> None:
    with suppress(MalformedRequirement):
        parse_requirement(text)


@pytest.mark.parametrize(
    ("text", "held", "satisfied"),
    [
        ("a OR b AND c", "a", True),
        ("(a OR b) AND c", "a", False),
        ("NOT a AND b", "b", True),
        ("NOT (a AND b)", "b", True),
        ("NOT a OR b", "ab", True),
        ("NOT NOT a", "a", True),
    ],
)
def test_not_binds_tighter_than_and_and_and_tighter_than_or(text: str, held: str, satisfied: bool) -> None:
    assert parse_requirement(text).satisfied_by(Grants(held)) is satisfied


def test_a_requirement_is_satisfied_by_a_pattern_that_covers_it() -> None:
    requirement = parse_requirement("orders.read AND NOT orders.frozen")
    assert requirement.satisfied_by(Grants(["orders.read"]))
    assert not requirement.satisfied_by(Grants(["orders.*"]))


@pytest.mark.parametrize(
    "text",
    [
        *("", " ", "()", "AND", "NOT", "a AND", "OR a", "a b", "(a", "a)", "a (b)", "a AND OR b", "a NOT b", "a and b"),
        *("*", "orders.*", "a..b", ".a", "a.", "a,b", "a & b", "a\0", "\u0430", "\ud800"),
        "x" * (bounds.PERMISSION_LENGTH + 1),
    ],
)
def test_what_is_outside_the_grammar_is_malformed(text: str) -> None:
    with pytest.raises(MalformedRequirement):
        parse_requirement(text)


# Bounds.


@pytest.mark.parametrize("wrapped", [("NOT ", ""), ("(", ")")])
def test_terms_may_nest_as_deep_as_the_bound_and_no_deeper(wrapped: tuple[str, str]) -> None:
    """The permission in the middle is the deepest term."""
    before, after = (part * (bounds.REQUIREMENT_DEPTH - 1) for part in wrapped)
    parse_requirement(f"{before}a{after}")
    with pytest.raises(MalformedRequirement, match="nested"):
        parse_requirement(f"{wrapped[0]}{before}a{after}{wrapped[1]}")


def test_terms_side_by_side_are_no_nesting() -> None:
    text = " OR ".join(["(NOT a AND b)"] * 200)
    assert parse_requirement(text).satisfied_by(Grants(["b"]))


def test_a_requirement_may_be_as_long_as_its_bound_and_no_longer() -> None:
    longest = "a".ljust(bounds.REQUIREMENT_LENGTH)
    assert render_requirement(parse_requirement(longest)) == "a"
    with pytest.raises(MalformedRequirement, match="longer"):
        parse_requirement(longest + " ")


@pytest.mark.parametrize("text", ["(", "NOT ", "a.", "a", " ", "a AND ", "()", ")"])
def test_repetition_up_to_the_bound_is_refused_and_no_hang_or_overflow(text: str) -> None:
    with pytest.raises(MalformedRequirement):
        parse_requirement((text * bounds.REQUIREMENT_LENGTH)[: bounds.REQUIREMENT_LENGTH - 1] + "!")
