"""Switches forwarding on in this thread's namespace, and says what follows; never off."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from policylang.backends.boot import FORWARDING
from policylang.diagnostics import Report
from policylang.ir.ruleset import Forwarding

SYSCTLS = Path("/proc/sys")  # of the namespace of the thread that opens a file in it

# /proc/net/ipv6_route: the destination and its length come first, flags and interface last.
ROUTES = Path("/proc/thread-self/net/ipv6_route")
EVERYWHERE = ["0" * 32, "00"]
RTF_DEFAULT, RTF_ADDRCONF = 0x00010000, 0x00040000  # linux/ipv6_route.h

# net/ipv6: 1 hears router advertisements unless it forwards, 2 also then.
ACCEPT_RA, ALSO_WHERE_FORWARDING = "1", "2"


def switch_on(forwards: Sequence[Forwarding], report: Report) -> tuple[str, ...]:
    """Switch on what the rules forward and is off; the settings that were changed.

    Reports `not-forwarding` at the statement where that fails, and `advertisements-ignored` for
    interfaces that got their way out from a router. A family that the kernel does not speak is
    left out: no packet of it can be forwarded.
    """
    changed: list[str] = []
    for wanted in forwards:
        name = FORWARDING[wanted.family]
        path = SYSCTLS.joinpath(*name.split("."))
        try:
            if path.read_text().strip() != "0":
                continue
            losing = _told_by_routers() if wanted.family == 6 else ()
            path.write_text("1\n")
        except FileNotFoundError:
            continue
        except OSError as error:
            span = next((o.span for o in wanted.origins if o.span is not None), None)
            report.add(
                "not-forwarding",
                f"cannot switch IPv{wanted.family} forwarding on: {error.strerror}",
                span,
                help=f"the rules are in force; set `{name}` to 1 where it can be written (for a"
                " container: from outside)",
            )
            continue
        changed.append(name)
        for interface in losing:
            _warn(interface, report)
    return tuple(changed)


def _told_by_routers() -> tuple[str, ...]:
    """The interfaces with a default route that is forgotten when forwarding is switched on.

    addrconf_fixup_forwarding in net/ipv6/addrconf.c: those that `accept_ra` 1 lets in.
    """
    found: dict[str, None] = {}
    for line in ROUTES.read_text().splitlines():
        fields = line.split()
        flags = int(fields[-2], 16)
        if fields[:2] == EVERYWHERE and flags & RTF_DEFAULT and flags & RTF_ADDRCONF:
            found[fields[-1]] = None
    return tuple(name for name in found if _setting(name).read_text().strip() == ACCEPT_RA)


def _setting(interface: str) -> Path:
    return SYSCTLS / "net" / "ipv6" / "conf" / interface / "accept_ra"


def _warn(interface: str, report: Report) -> None:
    name = f"net.ipv6.conf.{interface.replace('.', '/')}.accept_ra"
    report.add(
        "advertisements-ignored",
        f"with IPv6 forwarding on, `{interface}` has lost the default route that a router told it",
        None,
        help=f"`sysctl -w {name}={ALSO_WHERE_FORWARDING}` takes such routes all the same, from the"
        " router's next advertisement on",
    )
