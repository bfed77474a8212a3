"""`policylang trace` of a policy of several hosts: one conversation, by the rules of each host.

Each host on the way is asked in its turn, under the addresses that packets have when they come to
it. How a conversation is played, and how a story is told, is known elsewhere.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from policylang.analysis.conversation import staging
from policylang.analysis.conversation.casting import Cast
from policylang.analysis.conversation.wire import Wire
from policylang.analysis.conversation.world import Host
from policylang.analysis.diagram import TooLargeError
from policylang.analysis.naming import names_of
from policylang.analysis.site import Site
from policylang.analysis.site_hosts import OneHost, beyond, by_its_way, seen_from
from policylang.cli import stories
from policylang.cli.sites import DOES, PATHS, hosts_of, questions_of
from policylang.cli.subjects import SeveralHosts
from policylang.cli.teller import wants_color
from policylang.cli.tracing import (
    Traced,
    Words,
    helper_of,
    refuse_what_does_not_fit,
    wanted_of,
)
from policylang.diagnostics import Report
from policylang.ir.stages import Path
from policylang.lower.asked import asking
from policylang.model.scope import told_hosts
from policylang.model.types import AddressEnd, End, EndList, PolicyRule
from policylang.packets.fields import FAMILY_ADDRESSES
from policylang.packets.values import Ranges, format_address


@dataclass(frozen=True, slots=True)
class Step:
    """What a host that sends, passes on or receives (`path`) does with a conversation."""

    host: OneHost
    path: Path
    traced: Traced


@dataclass(frozen=True, slots=True)
class Followed:
    """A conversation on its way: a step for each host that it comes to, in their order."""

    words: Words
    steps: tuple[Step, ...]

    @property
    def stop(self) -> Step | None:
        """Where it ends: of the packets that hosts stop the first one ends it; None if it works."""
        stops = [(died.number, step) for step in self.steps if (died := step.traced.story.died)]
        return min(stops, key=lambda one: one[0])[1] if stops else None


def follow(
    site: SeveralHosts, chosen: argparse.Namespace, words: Words, report: Report
) -> Followed | None:
    """What becomes of a conversation; None, with errors in the report, where there is none.

    What is asked is the last of the policy's tests. Reports `bad-trace` and `too-large`.
    """
    try:
        return _followed(site, chosen, words, report)
    except TooLargeError:
        message = f"the hosts of `{site.name}` make too many different packets to be told apart"
        report.add("too-large", message, None, help="`--host NAME` asks one of them")
        return None


def _followed(
    site: SeveralHosts, chosen: argparse.Namespace, words: Words, report: Report
) -> Followed | None:
    if words.interface is not None:
        help_ = "`--host NAME` says whose interface is meant"
        report.add("bad-trace", "`interface` is said of one host", None, help=help_)
    if chosen.format == "svg" or (chosen.output or "").endswith(".svg"):
        help_ = "`--host NAME` draws what one of them sees"
        report.add("bad-trace", "what several hosts see is not drawn", None, help=help_)
    hosts = hosts_of(site.loaded, report)
    if report.has_errors:
        return None
    asked = {host.name: questions_of(host.policy)[-1] for host in hosts}
    whole = Site(hosts, lambda host: (asked[host.name],), report)
    way = whole.way(asked)
    if report.has_errors:
        return None
    # What comes by a gateway has more to tell than what goes from one neighbour to the other.
    asked_about = (part for part in way.parts if not part.is_sent_on)
    parts = sorted(asked_about, key=lambda part: part.path is not Path.FORWARD)
    packet = whole.some_packet(parts[0]) if parts else None
    if packet is None:
        message = f"no packet between hosts, or by a gateway, is what `{words.question}` says"
        help_ = "say both ends; hosts need addresses, and others come by a `gateway`"
        report.add("bad-trace", message, None, help=help_)
        return None
    steps = _Following(site.name, whole, asked, words, chosen.reply, report).steps(*packet)
    found = tuple(steps)
    return None if report.has_errors else Followed(words, found)


@dataclass(frozen=True, slots=True)
class _Following:
    called: str
    site: Site
    asked: dict[str, PolicyRule]
    words: Words
    is_answered: bool
    report: Report

    def steps(self, source: int, destination: int) -> Iterator[Step]:
        """The hosts that packets between two addresses come to, until one stops the first."""
        left = list(self.site.hosts)
        port: int | None = None
        is_on_its_way = True
        while is_on_its_way:
            is_on_its_way = False
            for host, path in self.site.met_by(source, destination, left):
                left.remove(host)
                step = self._step(host, path, source, destination, port)
                if step is None:
                    return
                yield step
                sent = step.traced.story.packets[0]
                arrived = sent.arrived
                if arrived is None:
                    return
                source, destination = arrived.source, arrived.destination
                port = _new_port(sent.wire, arrived, port)
                if (source, destination) != (sent.wire.source, sent.wire.destination):
                    is_on_its_way = True  # and may come by others than it would have
                    break

    def _step(
        self, host: OneHost, path: Path, source: int, destination: int, port: int | None
    ) -> Step | None:
        rule = self.asked[host.name]
        if port is not None:
            ports = Ranges.of(port)
            what = (t if t.ports is None else replace(t, ports=ports) for t in rule.what)
            rule = replace(rule, what=tuple(what))
        rule = replace(rule, source=_end(source), destination=_end(destination))
        rule = by_its_way(host, seen_from(host, rule))
        asker = asking(host.policy, [rule], self.report)
        wanted = wanted_of(self.words, rule, self.report, is_answered=self.is_answered)
        if wanted is None or self.report.has_errors:
            return None
        found = staging.casts(asker.asked(rule), wanted, host.policy.zones)
        cast = next((one for one in found if one.path is path), None)
        if cast is None:
            ends = f"{format_address(source)} to {format_address(destination)}"
            message = f"no such conversation goes from {ends} by `{host.name}`"
            self.report.add("bad-trace", message, None, help="name other ends")
            return None
        refuse_what_does_not_fit(self.words, wanted, cast, self.report)
        if self.report.has_errors:
            return None
        cast = _as_it_is(cast, host, self.site.hosts)
        story = staging.play(host.machine, cast, wanted, rule, address_tests=asker.tests)
        names = names_of(host.policy, asker.tests, (rule,))
        name = f"{self.called} on {host.name}"
        traced = Traced(name, self.words, wanted, cast, story, (), helper_of(wanted), names)
        return Step(host, path, traced)


def _end(address: int) -> End:
    return End((EndList((AddressEnd(Ranges.of(address)),)),))


def _new_port(wire: Wire, arrived: Wire, port: int | None) -> int | None:
    """The port to which packets go from here on, where it is not the one that was asked about."""
    if arrived.ports is None or wire.ports is None or arrived.ports[1] == wire.ports[1]:
        return port
    return arrived.ports[1]


def _as_it_is(cast: Cast, host: OneHost, hosts: Sequence[OneHost]) -> Cast:
    """A cast with the addresses that a host has, and the names of those who are hosts."""
    own: dict[int, tuple[int, ...]] = {}
    for interface, plausible in cast.world.own.items():
        own[interface] = tuple(
            _address_at(host, interface, family) or made_up
            for family, made_up in zip(FAMILY_ADDRESSES, plausible, strict=True)
        )
    if own:
        first = next(iter(own))
        own[first] += tuple(a for low, high in host.addresses for a in range(low, high + 1))

    def named(one: Host) -> Host:
        if one is cast.firewall:
            return replace(one, name=host.name)
        name = next((h.name for h in hosts if one.address in h.addresses), one.name)
        return replace(one, name=name)

    client, server = named(cast.client), named(cast.server)
    world = replace(cast.world, own=own, hosts=(client, server))
    firewall = {Path.INPUT: server, Path.OUTPUT: client}.get(cast.path)
    if firewall is None:
        family = 4 if client.address in FAMILY_ADDRESSES[4] else 6
        address = world.own_address(client.interface, family)
        firewall = replace(cast.firewall, name=host.name, address=address or cast.firewall.address)
    return replace(cast, world=world, client=client, server=server, firewall=firewall)


def _address_at(host: OneHost, interface: int, family: int) -> int | None:
    """The address of a host at an interface, as far as the networks of its zones tell."""
    own = host.addresses & FAMILY_ADDRESSES[family]
    near = Ranges.merged(
        pair for names, there in beyond(host) if interface in names for pair in there
    )
    return next((low for some in (own & near, own) for low, _ in some), None)


# --- telling --------------------------------------------------------------------------------------


def as_text(followed: Followed, *, color: bool, is_verbose: bool) -> str:
    """The stories for people, host by host."""
    texts = [
        f"{step.host.name} {DOES[step.path]}:\n\n"
        + stories.as_text(step.traced, color=color, is_verbose=is_verbose)
        for step in followed.steps
    ]
    return "\n".join((*texts, f"{_end_in_words(followed)}\n"))


def _end_in_words(followed: Followed) -> str:
    names = told_hosts([step.host.name for step in followed.steps])
    stop = followed.stop
    if stop is None:
        return f"On the whole way, by {names}, it works."
    died = stop.traced.story.died
    assert died is not None
    return f"On the whole way it does not work: `{stop.host.name}` stops packet {died.number}."


def as_json(followed: Followed) -> dict[str, object]:
    """`version` 1, `asked`, `works`, `stopped_by` (a host or null), and `steps`.

    Each step has `host`, `path` (`inbound`, `forward`, `outbound`) and `story`, which is as of one
    firewall.
    """
    stop = followed.stop
    return {
        "version": 1,
        "asked": followed.words.question,
        "works": stop is None,
        "stopped_by": None if stop is None else stop.host.name,
        "steps": [
            {
                "host": step.host.name,
                "path": PATHS[step.path],
                "story": stories.as_json(step.traced),
            }
            for step in followed.steps
        ],
    }


def text_of(followed: Followed, chosen: argparse.Namespace) -> str:
    """The stories in the form that is wanted."""
    if chosen.format == "json":
        return json.dumps(as_json(followed), indent=2) + "\n"
    is_shown = chosen.output in (None, "-")
    color = is_shown and wants_color(chosen.color, sys.stdout)
    return as_text(followed, color=color, is_verbose=chosen.verbose)
