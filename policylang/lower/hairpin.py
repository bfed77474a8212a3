"""`hairpin`: who else may use a port forward, under the public address; knows no rule's form."""

from __future__ import annotations

from dataclasses import replace

from policylang.model.translations import PortForward
from policylang.model.types import (
    AddressEnd,
    AnyEnd,
    End,
    EndElement,
    HostEnd,
    SelfEnd,
    Zone,
    ZoneEnd,
)


def clients(forward: PortForward, zones: tuple[Zone, ...]) -> End:
    """The end that a port forward is for: with `hairpin`, the other zones beside its own source.

    A zone of which the source names a part is none of the others: what is open to some of it is
    not opened to all of it.
    """
    if not forward.is_hairpin:
        return forward.source
    (named,) = forward.source.lists  # the statement stands in no block
    others = [ZoneEnd(z) for z in zones if not any(_is_part(e, z) for e in named.elements)]
    return End((replace(named, elements=(*named.elements, *others)),))


def _is_part(element: EndElement, zone: Zone) -> bool:
    """Whether an element may name some machines of a zone and leave others out."""
    match element:
        case AnyEnd() | SelfEnd():
            return False
        case ZoneEnd():
            return zone in element.within
        case HostEnd() if not element.within:
            return zone.networks is None or zone.networks.meets(element.others)
        case AddressEnd() if not element.within:
            return zone.networks is None or zone.networks.meets(element.addresses)
        case _:
            return not element.within or zone in element.within
