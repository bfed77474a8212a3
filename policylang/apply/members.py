"""Reads and changes the dynamic sets that are loaded, whichever target they were loaded for.

It compiles nothing and needs no policy. Nothing of a name that is asked for comes into a command:
it is looked for among the sets that are there.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

from policylang.apply import ipsets, kernel, live_ipsets, nft, nft_text, programs
from policylang.apply.generation import PENDING
from policylang.apply.livesets import FAMILIES, Element, LiveSet, family_of
from policylang.apply.nft_pending import PENDING_TABLE
from policylang.backends.iptables.names import PREFIX, dynamic_set_name
from policylang.backends.nft import TABLE
from policylang.diagnostics import Report, did_you_mean
from policylang.packets.values import format_address

T = TypeVar("T")

TO_LOAD = "`policylang apply` loads the dynamic sets that a policy declares"


@dataclass(frozen=True, slots=True)
class Loaded:
    """The dynamic sets of a namespace by what holds them: one of both, as a rule."""

    of_nft: tuple[LiveSet, ...] = ()
    of_ipset: tuple[LiveSet, ...] = ()

    @property
    def all(self) -> tuple[LiveSet, ...]:
        return (*self.of_nft, *self.of_ipset)

    @property
    def addresses(self) -> frozenset[int]:
        return frozenset[int]().union(*(live.addresses for live in self.all))

    def called(self, name: str) -> Loaded:
        """Both families' parts of one set."""
        wanted = {dynamic_set_name(name, family) for family in FAMILIES}
        return Loaded(
            tuple(live for live in self.of_nft if live.identity in wanted),
            tuple(live for live in self.of_ipset if live.identity in wanted),
        )


def listed(name: str | None, report: Report, *, netns: str | None) -> tuple[LiveSet, ...] | None:
    """The set of that name, a part for each family, or all sets; None where there is none.

    Reports `no-such-set`, and what keeps this from being read.
    """
    found = _alone(name, lambda loaded: loaded, report, netns)
    return None if found is None else found.all


def add(
    name: str,
    addresses: Sequence[int],
    timeout_s: int | None,
    report: Report,
    *,
    netns: str | None,
) -> int | None:
    """Put addresses into a set, each for so long from now; those that are in it, too.

    All of them or, reported, none: `set-full`, `no-such-set`, `loading-failed`. Returns how many
    were not in it before.
    """
    left_ms = None if timeout_s is None else timeout_s * 1000
    elements = [Element(address, left_ms) for address in dict.fromkeys(addresses)]

    def work(loaded: Loaded) -> int | None:
        new = {element.address for element in elements} - loaded.addresses
        if _is_full(loaded, new, report):
            return None
        of_nft: list[str] = []
        of_ipset: list[str] = []
        for live in loaded.of_nft:
            of_nft += _renewed_in_nft(live, _of_family(live, elements))
        for live in loaded.of_ipset:
            of_ipset += live_ipsets.adding(live, _of_family(live, elements))
        done = _carried_out(of_nft, of_ipset, f"cannot add to `{name}`", report)
        if done:
            _in_what_is_pending(
                loaded,
                lambda live: _renewed_in_nft(live, _of_family(live, elements), PENDING_TABLE),
                lambda live: live_ipsets.adding(live, _of_family(live, elements)),
            )
        return len(new) if done else None

    return _alone(name, work, report, netns)


def delete(name: str, addresses: Sequence[int], report: Report, *, netns: str | None) -> int | None:
    """Take addresses out of a set, all of them or, reported, none; how many there were.

    Reports `no-such-element`, `no-such-set`, `loading-failed`.
    """

    def work(loaded: Loaded) -> int | None:
        wanted = dict.fromkeys(addresses)
        absent = [address for address in wanted if address not in loaded.addresses]
        for address in absent:
            message = f"`{format_address(address)}` is not in the dynamic set `{name}`"
            report.add("no-such-element", message, None, help=f"`policylang set list {name}`")
        if absent:
            return None
        of_nft = [
            nft_text.deleting(live, own)
            for live in loaded.of_nft
            if (own := [address for address in wanted if address in live.addresses])
        ]
        of_ipset = [
            line
            for live in loaded.of_ipset
            for line in live_ipsets.deleting(live, live.addresses & wanted.keys())
        ]
        done = _carried_out(of_nft, of_ipset, f"cannot delete from `{name}`", report)
        if done:
            elements = [Element(address) for address in wanted]
            _in_what_is_pending(
                loaded,
                # There or not, it is gone then.
                lambda live: _renewed_in_nft(live, _of_family(live, elements), PENDING_TABLE)[:2],
                lambda live: live_ipsets.deleting(live, live.addresses & wanted.keys()),
            )
        return len(wanted) if done else None

    return _alone(name, work, report, netns)


def flush(name: str, report: Report, *, netns: str | None) -> int | None:
    """Empty a set; how many elements there were. Reports `no-such-set`, `loading-failed`."""

    def work(loaded: Loaded) -> int | None:
        of_nft = [nft_text.flushing(live) for live in loaded.of_nft]
        of_ipset = [live_ipsets.flushing(live) for live in loaded.of_ipset]
        done = _carried_out(of_nft, of_ipset, f"cannot empty `{name}`", report)
        if done:
            _in_what_is_pending(
                loaded,
                lambda live: (nft_text.flushing(live, PENDING_TABLE),),
                lambda live: (live_ipsets.flushing(live),),
            )
        return len(loaded.addresses) if done else None

    return _alone(name, work, report, netns)


def _renewed_in_nft(
    live: LiveSet, elements: Sequence[Element], table: str = TABLE
) -> tuple[str, ...]:
    return nft_text.renewing(live, elements, table) if elements else ()


def _in_what_is_pending(
    loaded: Loaded,
    of_nft: Callable[[LiveSet], Sequence[str]],
    of_ipset: Callable[[LiveSet], Sequence[str]],
) -> None:
    """The same in the generation that waits for its confirmation, as far as it has such sets."""
    for live in loaded.of_nft:
        if commands := of_nft(live):
            nft.carry_out(commands, "", Report())
    for live in loaded.of_ipset:
        pending = PENDING + live.identity.removeprefix(PREFIX)
        if lines := [line.replace(live.identity, pending, 1) for line in of_ipset(live)]:
            live_ipsets.restored(lines, "", Report())


def _alone(
    name: str | None, work: Callable[[Loaded], T | None], report: Report, netns: str | None
) -> T | None:
    """What `work` makes of the set of that name, or of all sets; None, reported, without any."""

    def inside() -> T | None:
        with kernel.alone(report) as is_alone:
            loaded = _loaded(report) if is_alone else None
            found = None if loaded is None else _found(loaded, name, report)
            return None if found is None else work(found)

    return kernel.in_netns(netns, inside, report) if kernel.may_change(report) else None


def _loaded(report: Report) -> Loaded | None:
    has_ipset = programs.find("ipset") is not None
    of_nft = nft.live_sets(report)
    saved = ipsets.saved(report) if has_ipset else {}
    if of_nft is None or saved is None:
        return None
    if not of_nft and not has_ipset and programs.find("nft") is None:
        programs.report_missing("nft", report)
        return None
    return Loaded(of_nft, ipsets.live_sets(saved))


def _found(loaded: Loaded, name: str | None, report: Report) -> Loaded | None:
    found = loaded if name is None else loaded.called(name)
    if found.all:
        return found
    names = sorted({live.name for live in loaded.all})
    if not names or name is None:
        report.add("no-such-set", "no dynamic set is loaded", None, help=TO_LOAD)
        return None
    there = "there " + ("are " if len(names) > 1 else "is ") + ", ".join(f"`{n}`" for n in names)
    close = did_you_mean(name, names)
    report.add(
        "no-such-set",
        f"no dynamic set `{name}` is loaded",
        None,
        help=f"{close}; {there}" if close and len(names) > 1 else close or there,
    )
    return None


def _is_full(loaded: Loaded, new: set[int], report: Report) -> bool:
    for live in loaded.all:
        count = sum(family_of(address) == live.family for address in new)
        if count and len(live.elements) + count > live.size:
            message = (
                f"the dynamic set `{live.name}` has no room for {count} more of IPv{live.family}"
            )
            help_ = f"it holds {live.size} of each family: give it a larger `size` in the policy"
            report.add("set-full", message, None, help=help_)
            return True
    return False


def _of_family(live: LiveSet, elements: Sequence[Element]) -> list[Element]:
    return [element for element in elements if family_of(element.address) == live.family]


def _carried_out(of_nft: Sequence[str], of_ipset: Sequence[str], what: str, report: Report) -> bool:
    return (not of_nft or nft.carry_out(of_nft, what, report)) and (
        not of_ipset or live_ipsets.restored(of_ipset, what, report)
    )
