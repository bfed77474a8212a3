"""What differs between two listings is told rule by rule, and nothing that does not."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from policylang.apply.difference import Change, ElementsChange, Kind, difference
from policylang.apply.loaded import NOTHING, Chain, Count, KernelSet, Loaded, Rule

HEAD = "type filter hook input priority filter; policy drop;"


def chain(*rules: Rule | str, place: str = "input", head: str = HEAD) -> Loaded:
    made = tuple(rule if isinstance(rule, Rule) else Rule(rule) for rule in rules)
    return Loaded((Chain(place, head, made),))


def test_equal_listings_do_not_differ() -> None:
    """What rules counted is no difference."""
    one = chain(Rule("drop", "", Count(1, 60)))
    other = chain(Rule("drop", "", Count(9, 540)))
    assert difference(one, other).is_empty
    assert one == other


def test_a_rule_comes_and_goes() -> None:
    """With the statement behind it."""
    new = Rule("tcp dport 22 accept", "web.policy:3 allow ssh inbound")
    assert difference(chain("drop"), chain(new, "drop")).changes == (
        Change(Kind.ADD, "input", None, new.text, new.comment),
    )
    assert difference(chain(new, "drop"), chain("drop")).changes == (
        Change(Kind.REMOVE, "input", new.text, None, new.comment),
    )


def test_a_rule_of_the_same_statement_changes_in_place() -> None:
    """The line in front of the statement does not count."""
    old = Rule("tcp dport 22 accept", "web.policy:3 allow web inbound")
    new = Rule("tcp dport 2222 accept", "web.policy:7 allow web inbound")
    other = Rule("udp dport 53 accept", "web.policy:4 allow dns inbound")
    found = difference(chain(old, "drop"), chain(other, new, "drop"))
    assert found.changes == (
        Change(Kind.ADD, "input", None, other.text, other.comment),
        Change(Kind.CHANGE, "input", old.text, new.text, new.comment),
    )
    assert [found.count(kind) for kind in Kind] == [1, 0, 1]


def test_an_order_is_a_difference() -> None:
    """Two rules that change places are one that goes and comes."""
    found = difference(chain("a", "b"), chain("b", "a"))
    assert sorted(change.kind for change in found.changes) == [Kind.ADD, Kind.REMOVE]


def test_comments_alone_are_counted() -> None:
    """A line more at the top of a policy is told in one number."""
    old = chain(Rule("a", "web.policy:3 x"), Rule("b", "web.policy:4 y"))
    new = chain(Rule("a", "web.policy:4 x"), Rule("b", "web.policy:5 y"))
    found = difference(old, new)
    assert (found.changes, found.elements, found.recommented) == ((), (), 2)
    assert not found.is_empty


def test_chains_and_other_things_come_and_go() -> None:
    """A chain with its rules; another hook or policy; what is neither chain nor set."""
    found = difference(NOTHING, chain("drop"))
    assert [change.after for change in found.changes] == [HEAD, "drop"]
    found = difference(chain("drop"), NOTHING)
    assert [change.before for change in found.changes] == ["drop", HEAD]
    found = difference(chain("drop"), chain("drop", head="other"))
    assert found.changes == (Change(Kind.CHANGE, "input", HEAD, "other"),)
    found = difference(Loaded(others=("ct helper a", "b")), Loaded(others=("b", "c")))
    assert found.changes == (
        Change(Kind.REMOVE, "", "ct helper a", None),
        Change(Kind.ADD, "", None, "c"),
    )


def test_elements_change_by_themselves() -> None:
    """Of a set that stays; what packets put into one is no difference."""
    old = Loaded(sets=(KernelSet("x", "type ipv4_addr", frozenset("ab")),))
    new = Loaded(sets=(KernelSet("x", "type ipv4_addr", frozenset("bc")),))
    assert difference(old, new).elements == (ElementsChange("x", ("c",), ("a",)),)
    other = Loaded(sets=(KernelSet("x", "type ipv6_addr", frozenset("bc")),))
    found = difference(old, other)
    assert not found.elements
    assert [change.kind for change in found.changes] == [Kind.CHANGE]
    dynamic = Loaded(sets=(KernelSet("x", "type ipv4_addr", None),))
    assert difference(dynamic, dynamic).is_empty


LISTINGS = st.lists(
    st.builds(Rule, st.sampled_from("abc"), st.sampled_from(["", "p:1 s", "p:2 s", "p:1 t"])),
    max_size=6,
).map(lambda rules: chain(*rules))


@given(LISTINGS, LISTINGS)
def test_nothing_is_passed_over(old: Loaded, new: Loaded) -> None:
    """It is empty exactly where both are equal, and counts every rule that is on one side alone."""
    found = difference(old, new)
    assert found.is_empty == (old == new)
    before, after = ([rule.text for rule in one.chains[0].rules] for one in (old, new))
    added = sum(change.before is None for change in found.changes)
    removed = sum(change.after is None for change in found.changes)
    assert len(after) - len(before) == added - removed
