"""Actions as nft statements; knows no matches."""

from __future__ import annotations

from collections.abc import Iterator
from typing import assert_never

from policylang.backends.nft import alterations, guards, spell
from policylang.backends.nft.sets import Sets, dynamic_set_name
from policylang.ir import actions as ir
from policylang.ir.origin import Origin, joined
from policylang.ir.ruleset import Chain, Rule, Ruleset
from policylang.optimise.reading import actions
from policylang.packets.values import name_range

# One for all: the kernel takes no device that is in another of the same table.
FLOWTABLE = "offloaded"

FOREVER_S = 36500 * 24 * 60 * 60  # a hundred years

ANSWERS = {
    ir.Answer.TCP_RESET: "reject with tcp reset",
    ir.Answer.PORT_UNREACHABLE: "reject",
    ir.Answer.HOST_UNREACHABLE: "reject with icmpx type host-unreachable",
    ir.Answer.NET_UNREACHABLE: "reject with icmpx type no-route",
    ir.Answer.ADMIN_PROHIBITED: "reject with icmpx type admin-prohibited",
}


class Statements:
    """Spells the actions of a ruleset.

    `answers` collects the chains that a verdict map needs for verdicts that are statements in
    nft, `helpers` the objects that assignments name, `devices` those of the flowtable.
    """

    def __init__(self, sets: Sets, ruleset: Ruleset) -> None:
        self.sets = sets
        self.chains = {chain.name: chain for chain in ruleset.chains}
        self.times, self.lasting = _times(ruleset)
        self.counter = "counter" if ruleset.has_counters else ""
        self.answers: dict[str, str] = {}
        self.helpers: dict[str, tuple[ir.AssignHelper, tuple[Origin, ...]]] = {}
        self.devices: dict[str, tuple[Origin, ...]] = {}

    def counted(self, action: ir.Action, family: int = 0) -> str:
        """The statement of an action, behind a counter where rules are counted."""
        return f"{self.counter} {self.spell(action, family)}".strip()

    def spell(self, action: ir.Action, family: int = 0) -> str:
        """The statement of an action; `family` for those that keep addresses or are said in
        other words for each family.

        Raises InexpressibleError.
        """
        match action:
            case ir.Accept() | ir.Leave():
                return "accept"
            case ir.Drop():
                return "drop"
            case ir.Reject():
                return ANSWERS[action.answer]
            case ir.Jump():
                return f"jump {action.chain}"
            case ir.Log():
                where = f" level {action.level}" if action.level else ""
                if action.group is not None:
                    where = f" group {action.group}"
                return f'log prefix "{action.prefix}"{where}'
            case ir.AddToSet():
                name = dynamic_set_name(action.set, family)
                address = f"{spell.HEADERS[family]} {guards.ADDRESS_WORDS[action.end]}"
                if action.timeout_s is None and action.set in self.lasting:
                    return f"add @{name} {{ {address} }}"
                return _update(name, address, action.timeout_s or self.times.get(action.set))
            case ir.RememberQuestion():
                name, ip = self.sets.questions(family), spell.HEADERS[family]
                return " ".join(
                    _update(name, f"{ip} {word} . udp sport . oifname", action.timeout_s)
                    for word in guards.ADDRESS_WORDS.values()
                )
            case ir.RememberAsker():
                return _update(self.sets.askers(), "udp sport", action.timeout_s)
            case ir.Native():
                return action.text
            case ir.AssignHelper():
                return f'ct helper set "{helper_object(action)}" accept'
            case ir.Masquerade():
                return alterations.masquerade(action)
            case ir.SourceNat():
                return alterations.source_nat(action)
            case ir.DestinationNat():
                return alterations.destination_nat(action)
            case ir.RedirectToSelf():
                return f"redirect to :{action.port}"
            case ir.MapPrefix():
                return alterations.map_prefix(action)
            case ir.SetMark():
                return alterations.mark("meta mark", action.value, action.mask)
            case ir.SetConnectionMark():
                return alterations.mark("ct mark", action.value, action.mask)
            case ir.SetDscp():
                return alterations.dscp(action, family)
            case ir.ClampMss():
                return alterations.clamp_mss(action)
            case ir.Untrack():
                return "notrack accept"
            case ir.TransparentProxy():
                marked = alterations.mark("meta mark", action.value, action.mask)
                return f"tproxy to :{action.port} {marked} accept"
            case ir.Queue():
                return alterations.queue(action)
            case ir.Offload():
                return f"flow add @{FLOWTABLE}"
            case _:
                assert_never(action)

    def verdict(self, action: ir.Action) -> str:
        """An action as a verdict map takes it: what is a statement goes into a chain."""
        if isinstance(action, ir.Reject):
            name = f"reject-{action.answer.value}"
            self.answers[name] = ANSWERS[action.answer]
            return f"goto {name}"
        return self.spell(action)

    def closes(self, action: ir.Action) -> bool:
        """Whether an action lets no packet pass, and takes some off their way."""
        if not isinstance(action, ir.Jump):
            return isinstance(action, (ir.Drop, ir.Reject))
        verdicts = list(self._verdicts(self.chains[action.chain]))
        return bool(verdicts) and all(isinstance(a, (ir.Drop, ir.Reject)) for a in verdicts)

    def object_of(self, action: ir.AssignHelper, origins: tuple[Origin, ...]) -> None:
        """Make the helper's object, for one more rule."""
        name = helper_object(action)
        earlier = self.helpers.get(name, (action, ()))[1]
        self.helpers[name] = (action, joined(earlier, origins))

    def offloaded_between(self, action: ir.Offload, origins: tuple[Origin, ...]) -> None:
        """Put the devices into the flowtable, for one more rule; raises InexpressibleError."""
        for device in action.devices:
            low, high = name_range(device)
            if low != high:
                raise spell.InexpressibleError(
                    f"offload connections of interfaces that it knows by a pattern (`{device}`)",
                    help="name each interface of the zones",
                )
            self.devices[device] = joined(self.devices.get(device, ()), origins)

    def _verdicts(self, chain: Chain) -> Iterator[ir.Action]:
        """The actions by which a packet can end in a chain and those behind it."""
        for item in chain.items:
            for action in actions(item):
                if isinstance(action, ir.Jump):
                    yield from self._verdicts(self.chains[action.chain])
                elif ir.is_terminal(action) or isinstance(action, ir.Native):
                    yield action


def helper_object(action: ir.AssignHelper) -> str:
    """The name of the helper object: the kernel's name and the protocol."""
    safe = "".join(c if c.isalnum() else "-" for c in action.helper.lower())
    return f"{safe}-{spell.PORTED_WORDS[action.protocol]}"


def _times(ruleset: Ruleset) -> tuple[dict[str, int], frozenset[str]]:
    """For dynamic sets, the time of an element that a rule gives none, and the sets of which no
    element has any.

    A set's own time need not be said. One without has FOREVER where some rule gives a time: an
    update without a time would take away an element that has one, and `delete` before `add`
    loses a place of the set each time (as seen on Linux 6.18).
    """
    timed = {
        item.action.set
        for chain in ruleset.chains
        for item in chain.items
        if isinstance(item, Rule)
        and isinstance(item.action, ir.AddToSet)
        and item.action.timeout_s is not None
    }
    endless = {declared.name for declared in ruleset.dynamic_sets if declared.timeout_s is None}
    return dict.fromkeys(endless & timed, FOREVER_S), frozenset(endless - timed)


def _update(name: str, key: str, timeout_s: int | None) -> str:
    """The statement that puts an element into a set, or gives it its whole time again."""
    timeout = "" if timeout_s is None else f" timeout {guards.duration(timeout_s)}"
    return f"update @{name} {{ {key}{timeout} }}"
