"""Conversations that need a helper: real ones and told ones come to the same end, everywhere.

Both ends are programs that talk as the helper's protocol has it (`helpers_proved`). What conntrack
says of the packets that open connections is compared with the story that `policylang trace` tells
of the same policy, in each role that the firewall can have.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from policylang.analysis.conversation.story import Story
from policylang.packets.fields import TCP, UDP, FlowDirection, State
from tests.analysis.conversations import briefly, story_of

from .ground import Family, Ground, Loader
from .helpers_proved.places import CLOSED, Place
from .helpers_proved.proof import MUST_FAIL_S, MUST_PASS_S, act, battleground, load
from .helpers_proved.subjects import OTHERS, TELEPHONY, TRANSFER, Subject

GRE = 47
PROTOCOLS = {"tcp": TCP, "udp": UDP, "gre": GRE}

# The rows of a subject by the mode in which the story is told.
MODES: dict[str, tuple[tuple[str | None, int], ...]] = {
    "ftp": (("passive", 0), ("active", 1)),
    "tftp": (("read", 0), ("write", 1)),
    "sip": (("udp", 0), ("tcp", 2)),
}
SUBJECTS = [
    subject
    for subject in (*TRANSFER, *TELEPHONY, *OTHERS)
    if subject.port != 1719  # RAS is not played
]
CASES = [
    pytest.param(subject, place, id=f"{subject.service}-{place.name.lower()}")
    for subject in SUBJECTS
    for place in Place
    if subject.tried(place)
]
PLACES = {
    Place.INBOUND: "inbound from wan",
    Place.OUTBOUND: "outbound to wan",
    Place.FORWARDED: "from lan to wan",
    Place.MASQUERADED: "from lan to wan",
    Place.DNAT: "inbound from wan",
    Place.DNAT_PORT: "inbound from wan",
}

WATCH = (
    "table inet watch {\n"
    "set expected { typeof meta l4proto . ct state . ct direction; flags dynamic; }\n"
    "set plain { typeof meta l4proto . ct state . ct direction; flags dynamic; }\n"
    + "".join(
        f"chain {hook} {{ type filter hook {hook} priority -190;\n"
        "meta l4proto != { tcp, udp, gre } accept\n"
        "ct status expected add @expected { meta l4proto . ct state . ct direction }\n"
        "ct status ! expected add @plain { meta l4proto . ct state . ct direction }\n}\n"
        for hook in ("prerouting", "output")
    )
    + "}\n"
)

Opening = tuple[int, str, bool]  # a protocol, a state, and whether a helper predicted it


@pytest.fixture(scope="module")
def laid(kernel: None) -> Iterator[Ground]:
    """One router for all of them: each policy takes the place of the one before."""
    with battleground() as laid:
        laid.firewall.run(["nft", "-f", "-"], stdin=WATCH)
        yield laid


@dataclass(frozen=True, slots=True)
class Told:
    """What came of a conversation, and which packets opened connections in it."""

    works: bool
    openings: frozenset[Opening]


def _in_kernel(laid: Ground) -> frozenset[Opening]:
    found: set[Opening] = set()
    for name in ("expected", "plain"):
        listing = laid.firewall.run(["nft", "-j", "list", "set", "inet", "watch", name]).stdout
        for item in json.loads(listing)["nftables"]:
            for element in item.get("set", {}).get("elem", ()):
                protocol, state, direction = element["concat"]
                if direction == "original" and state != "established":
                    found.add((PROTOCOLS[protocol], state, name == "expected"))
    return frozenset(found)


def _in_story(story: Story) -> Told:
    found: set[Opening] = set()
    for event in story.packets:
        tracked = event.carried.tracked
        is_opening = tracked.direction is FlowDirection.ORIGINAL
        if is_opening and tracked.state in (State.NEW, State.RELATED):
            is_expected = tracked.connection is not None and tracked.connection.is_expected
            state = State(tracked.state).name.lower()
            found.add((event.wire.protocol, state, is_expected))
    return Told(story.works, frozenset(found))


@pytest.mark.parametrize(("subject", "place"), CASES)
def test_a_real_conversation_goes_as_it_is_told(
    laid: Ground, tmp_path: Path, subject: Subject, place: Place
) -> None:
    """Whether it works as a whole, and what conntrack calls the packets that open connections."""
    statements = subject.definitions(place, has_helper=True) + subject.statements(place)
    load(statements, Loader.NFT, laid, tmp_path)
    service = subject.other if place is Place.DNAT_PORT else subject.service
    problems: list[str] = []
    for mode, row in MODES.get(subject.helper, ((None, 0),)):
        for family in subject.tried(place):
            laid.firewall.run(
                ["nft", "-f", "-"],
                stdin="flush set inet watch expected\nflush set inet watch plain\n",
            )
            is_impossible = subject.gap(place, family) is not None
            patience_s = MUST_FAIL_S if is_impossible else MUST_PASS_S
            outcome = act(subject.rows[row], subject, place, family, laid, patience_s)
            real = Told(outcome.is_whole, _in_kernel(laid))
            condition = "ipv4" if family is Family.IPV4 else "ipv6"
            question = f"{service} {PLACES[place]} {condition}"
            story = story_of(CLOSED + statements, question, kind=subject.helper, mode=mode)
            told = _in_story(story)
            if told != real:
                lines = "\n".join(briefly(story))
                problems.append(f"{question} {mode}: the kernel {real}, told {told}\n{lines}")
    assert not problems, "\n".join([statements, *problems])
