"""Files for what rules need beside themselves when a machine starts; the same for every target.

`apply` sees to it by itself. Who loads the rules otherwise, at boot, puts these files where the
system looks for such things. A policy that needs nothing has none.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from policylang.backends import proxying
from policylang.backends.base import Line, OutputFile, comment_text
from policylang.backends.templating import render
from policylang.ir.origin import Origin, describe
from policylang.ir.ruleset import Needs

MODULES, SYSCTLS = "modules-load.conf", "sysctl.conf"
ROUTES = {4: "proxy-routes.v4", 6: "proxy-routes.v6"}
FILES = (MODULES, SYSCTLS, *ROUTES.values())

# What switches forwarding on, by family: the names of sysctl(8).
FORWARDING = {4: "net.ipv4.ip_forward", 6: "net.ipv6.conf.all.forwarding"}

ROUTERS_NOTE = (
    "An interface that gets its IPv6 default route from a router also needs its accept_ra = 2."
)

COMMENT_BYTES = 255  # as long as comments of rules may be; the formats have no limit

Section = tuple[tuple[Origin, ...], tuple[str, ...]]


def boot_files(needs: Needs) -> tuple[OutputFile, ...]:
    """The files that hold something, each with the statements behind its lines."""
    files: list[OutputFile] = []
    if needs.modules:
        modules = ((module.origins, (module.name,)) for module in needs.modules)
        purpose = "for /etc/modules-load.d: kernel modules that the rules rely on."
        files.append(_file(MODULES, purpose, _joined(modules)))
    if needs.forwards:
        settings = ((f.origins, (f"{FORWARDING[f.family]} = 1",)) for f in needs.forwards)
        purpose = "for /etc/sysctl.d: packets are forwarded where the rules let them."
        note = ROUTERS_NOTE if any(f.family == 6 for f in needs.forwards) else ""
        files.append(_file(SYSCTLS, purpose, _joined(settings), note))
    if needs.proxy_route is not None:
        route = needs.proxy_route
        for family in route.families:
            purpose = f"for `ip -{family} -batch`: the way of packets to the proxy."
            section = (route.origins, proxying.commands(route))
            files.append(_file(ROUTES[family], purpose, (section,)))
    return tuple(files)


def _joined(sections: Iterable[Section]) -> tuple[Section, ...]:
    """Sections, those next to each other that have the same reason as one."""
    made: list[Section] = []
    for origins, lines in sections:
        if made and describe(made[-1][0]) == describe(origins):
            made[-1] = (origins, (*made[-1][1], *lines))
        else:
            made.append((origins, lines))
    return tuple(made)


def _file(name: str, purpose: str, sections: Sequence[Section], note: str = "") -> OutputFile:
    laid_out = [
        {
            "why": comment_text(describe(origins), COMMENT_BYTES),
            "lines": [Line(line, origins) for line in lines],
        }
        for origins, lines in sections
    ]
    return render("boot/list.j2", name, {"purpose": purpose, "note": note, "sections": laid_out})
