"""Rules in variants, of which each has one nft statement: by family, and with ports or without."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from policylang.backends.listed import FAMILIES
from policylang.backends.nft.alterations import family_of
from policylang.backends.nft.spell import PORTED_WORDS
from policylang.ir import actions as ir
from policylang.packets.cube import Cube
from policylang.packets.fields import TCP, UDP, Field
from policylang.packets.values import Ranges

PORTED = Ranges.of(*PORTED_WORDS)
OF_PORTED = Cube.of({Field.L4PROTO: PORTED})
BOTH = (0,)


def variants(
    cube: Cube, action: ir.Action, is_measured: bool
) -> Iterator[tuple[int, Cube, ir.Action]]:
    """The family (0: any), the packets, and what they meet; together all packets of the cube.

    But those that the action is not for: of the other family than the addresses it gives, or of
    another protocol than it is about.
    """
    cube = cube & _meant(action)
    assert not (is_measured and isinstance(action, ir.Translation)), "a measure holds for one line"
    for family in _families(action, is_measured):
        half = cube if family == 0 else cube & Cube.of({Field.FAMILY: Ranges.of(family)})
        for part, what in _by_ports(half, action):
            if not part.is_empty:
                yield family, part, what


def _meant(action: ir.Action) -> Cube:
    """The packets that an action is for."""
    protocols = Ranges()
    match action:
        case ir.RememberQuestion() | ir.RememberAsker():
            protocols = Ranges.of(UDP)
        case ir.ClampMss():
            protocols = Ranges.of(TCP)
        case ir.TransparentProxy(protocol=protocol):
            protocols = Ranges.of(protocol)
    return Cube.of({Field.L4PROTO: protocols}) if protocols else Cube()


def _families(action: ir.Action, is_measured: bool) -> tuple[int, ...]:
    match action:
        case ir.SourceNat(addresses=pair) | ir.MapPrefix(prefix=pair):
            return (family_of(pair),)
        case ir.DestinationNat():
            families = {family_of(pair) for pair in action.targets}
            assert len(families) == 1, "targets of one family"
            return (*families,)
        case ir.AddToSet() | ir.RememberQuestion() | ir.SetDscp():
            return FAMILIES
        case _:
            return FAMILIES if is_measured else BOTH


def _by_ports(cube: Cube, action: ir.Action) -> Iterator[tuple[Cube, ir.Action]]:
    match action:
        case ir.Masquerade(ports=ports) | ir.SourceNat(ports=ports) if ports is not None:
            yield cube & OF_PORTED, action
            for rest in cube - OF_PORTED:
                yield rest, replace(action, ports=None)
        case ir.DestinationNat(port=port) | ir.RedirectToSelf(port=port) if port is not None:
            assert PORTED.covers(cube[Field.L4PROTO]), "packets that have ports"
            yield cube, action
        case _:
            yield cube, action
