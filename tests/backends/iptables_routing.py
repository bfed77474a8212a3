"""A router that one flavour of iptables rules, and words for what goes through it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import pytest

from policylang.ir.ruleset import Ruleset
from policylang.packets.cube import Cube
from policylang.packets.fields import Field
from policylang.packets.values import Range, Ranges, name_range, parse_address
from tests.backends.iptables_station import FLAVOURS, Bench
from tests.backends.nft_router import WORLD, Router, Seen, host, router
from tests.backends.nft_station import Packet


@dataclass(frozen=True)
class Routing:
    """A router that one flavour of iptables rules in turn."""

    router: Router
    bench: Bench
    flavour: str

    def load(self, rules: Ruleset) -> None:
        self.bench.load(self.flavour, rules)
        self.router.forget()

    def carry(self, *packets: Packet) -> list[Seen]:
        """What left for each of these packets, all of which must leave, and sound."""
        found = self.router.carried(*packets)
        assert all(seen is not None and seen.is_sound for seen in found), list(
            zip(packets, found, strict=True)
        )
        return [seen for seen in found if seen is not None]


@pytest.fixture(scope="module")
def laid(kernel: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Router, Bench]]:
    with router() as made:
        yield made, Bench(made.station, tmp_path_factory.mktemp("iptables") / "lock")


@pytest.fixture(params=FLAVOURS)
def routing(laid: tuple[Router, Bench], request: pytest.FixtureRequest) -> Iterator[Routing]:
    made, bench = laid
    bench.clear()
    yield Routing(made, bench, request.param)
    bench.clear()


# --- words -----------------------------------------------------------------------------------


def span(first: str, last: str | None = None) -> Range:
    low, high = parse_address(first), parse_address(last or first)
    assert low is not None and high is not None
    return low[0], high[1]


def only(*texts: str) -> Ranges:
    return Ranges.merged(span(text) for text in texts)


def by(wire: str) -> Ranges:
    return Ranges((name_range(wire),))


def to_world(family: int, number: int = 5, **other: object) -> Packet:
    """A packet of a host behind eth0 for one that is far behind eth1."""
    made = Packet(host("eth0", family, number), WORLD[family], ports=(40000, 53))
    return replace(made, **other)  # type: ignore[arg-type]


def of_family(family: int) -> Cube:
    return Cube.of({Field.FAMILY: Ranges.of(family)})
