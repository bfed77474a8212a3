"""A container behind the firewall, with ports that a container engine publishes.

The rulesets have the shape that the engines give them, by iptables or in nft: Docker's as its own
documentation shows it (integration/network/bridge in moby), Podman's as netavark's tests do. No
engine is run; what is left out (isolation between networks, name service) meets no packet here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from types import MappingProxyType

from policylang.apply.restore import Flavour

from .ground import Addresses, Family, Ground, Namespace

BRIDGE = "docker0"
GATEWAY = Addresses("172.17.0.1", "fd00:17::1")
CONTAINER = Addresses("172.17.0.2", "fd00:17::2")
NETWORK = Addresses("172.17.0.0/16", "fd00:17::/64")

# What is dialled at the host → where it comes out in the container. The last one is dialled by
# another port than 80 and comes out there.
PUBLISHED = MappingProxyType({80: 8000, 8443: 443, 8081: 80})


@dataclass(frozen=True, slots=True)
class Engine:
    """A way in which an engine publishes ports; `flavour` None is nft."""

    name: str
    flavour: Flavour | None
    rules: Callable[[Family], str]

    def start(self, firewall: Namespace) -> None:
        """Load the rules for both families."""
        for family in Family:
            if self.flavour is None:
                firewall.run(["nft", "-f", "-"], stdin=self.rules(family))
            else:
                program = "iptables" if family is Family.IPV4 else "ip6tables"
                argv = [f"{program}-{self.flavour}-restore", "--noflush"]
                firewall.run(argv, stdin=self.rules(family))


@contextmanager
def container(net: Ground, engine: Engine) -> Iterator[Namespace]:
    """A container that listens on the ports that are published, and on 22, which is not."""
    firewall = net.firewall
    with ExitStack() as stack:
        inside = Namespace.create("container")
        stack.callback(inside.delete)
        stack.callback(firewall.ip, f"link del {BRIDGE}")
        firewall.ip(
            f"link add {BRIDGE} type bridge",
            f"link add veth0 type veth peer name eth0 netns {inside.name}",
            f"link set veth0 master {BRIDGE}",
            "link set veth0 up",
            f"link set {BRIDGE} up",
            f"addr add {GATEWAY.ipv4}/16 dev {BRIDGE}",
            f"addr add {GATEWAY.ipv6}/64 dev {BRIDGE} nodad",
        )
        inside.ip(
            "link set eth0 up",
            f"addr add {CONTAINER.ipv4}/16 dev eth0",
            f"addr add {CONTAINER.ipv6}/64 dev eth0 nodad",
            f"route add default via {GATEWAY.ipv4}",
            f"route add ::/0 via {GATEWAY.ipv6}",
        )
        engine.start(firewall)
        for family in Family:
            for port in (*PUBLISHED.values(), 22):
                stack.enter_context(inside.listen(family, port))
        yield inside


def target(family: Family, port: int) -> str:
    address = CONTAINER.of(family)
    return f"{address}:{port}" if family is Family.IPV4 else f"[{address}]:{port}"


def docker_iptables(family: Family) -> str:
    container, network = CONTAINER.of(family), NETWORK.of(family)
    loopback = "127.0.0.0/8" if family is Family.IPV4 else "::1/128"
    nat = [
        f"-A DOCKER ! -i {BRIDGE} -p tcp -m tcp --dport {outer} -j DNAT"
        f" --to-destination {target(family, inner)}"
        for outer, inner in PUBLISHED.items()
    ]
    accepted = [
        f"-A DOCKER -d {container} ! -i {BRIDGE} -o {BRIDGE} -p tcp -m tcp --dport {inner}"
        " -j ACCEPT"
        for inner in PUBLISHED.values()
    ]
    return "\n".join(
        (
            "*raw",
            f"-A PREROUTING -d {container} ! -i {BRIDGE} -j DROP",
            "COMMIT",
            "*nat",
            ":DOCKER - [0:0]",
            "-A PREROUTING -m addrtype --dst-type LOCAL -j DOCKER",
            f"-A OUTPUT ! -d {loopback} -m addrtype --dst-type LOCAL -j DOCKER",
            f"-A POSTROUTING -s {network} ! -o {BRIDGE} -j MASQUERADE",
            *nat,
            "COMMIT",
            "*filter",
            ":FORWARD DROP [0:0]",
            ":DOCKER - [0:0]",
            ":DOCKER-BRIDGE - [0:0]",
            ":DOCKER-CT - [0:0]",
            ":DOCKER-FORWARD - [0:0]",
            ":DOCKER-INTERNAL - [0:0]",
            ":DOCKER-USER - [0:0]",
            "-A FORWARD -j DOCKER-USER",
            "-A FORWARD -j DOCKER-FORWARD",
            *accepted,
            f"-A DOCKER ! -i {BRIDGE} -o {BRIDGE} -j DROP",
            f"-A DOCKER-BRIDGE -o {BRIDGE} -j DOCKER",
            f"-A DOCKER-CT -o {BRIDGE} -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT",
            "-A DOCKER-FORWARD -j DOCKER-CT",
            "-A DOCKER-FORWARD -j DOCKER-INTERNAL",
            "-A DOCKER-FORWARD -j DOCKER-BRIDGE",
            f"-A DOCKER-FORWARD -i {BRIDGE} -j ACCEPT",
            "COMMIT",
            "",
        )
    )


def docker_nft(family: Family) -> str:
    ip = "ip" if family is Family.IPV4 else "ip6"
    loopback = "127.0.0.0/8" if family is Family.IPV4 else "::1"
    container, network = CONTAINER.of(family), NETWORK.of(family)
    nat = "\n".join(
        f'iifname != "{BRIDGE}" tcp dport {outer} counter dnat to {target(family, inner)}'
        ' comment "DNAT"'
        for outer, inner in PUBLISHED.items()
    )
    accepted = "\n".join(
        f"{ip} daddr {container} tcp dport {inner} counter accept" for inner in PUBLISHED.values()
    )
    return f"""
        table {ip} docker-bridges {{
            map filter-forward-in-jumps {{
                type ifname : verdict
                elements = {{ "{BRIDGE}" : jump filter-forward-in__{BRIDGE} }}
            }}
            map filter-forward-out-jumps {{
                type ifname : verdict
                elements = {{ "{BRIDGE}" : jump filter-forward-out__{BRIDGE} }}
            }}
            map nat-postrouting-out-jumps {{
                type ifname : verdict
                elements = {{ "{BRIDGE}" : jump nat-postrouting-out__{BRIDGE} }}
            }}
            chain filter-FORWARD {{
                type filter hook forward priority filter; policy accept;
                oifname vmap @filter-forward-in-jumps
                iifname vmap @filter-forward-out-jumps
            }}
            chain nat-OUTPUT {{
                type nat hook output priority -100; policy accept;
                {ip} daddr != {loopback} fib daddr type local counter jump nat-prerouting-and-output
            }}
            chain nat-POSTROUTING {{
                type nat hook postrouting priority srcnat; policy accept;
                iifname vmap @nat-postrouting-out-jumps
            }}
            chain nat-PREROUTING {{
                type nat hook prerouting priority dstnat; policy accept;
                fib daddr type local counter jump nat-prerouting-and-output
            }}
            chain nat-prerouting-and-output {{
                {nat}
            }}
            chain raw-PREROUTING {{
                type filter hook prerouting priority raw; policy accept;
                {ip} daddr {container} iifname != "{BRIDGE}" counter drop comment "DROP DIRECT"
            }}
            chain filter-forward-in__{BRIDGE} {{
                ct state established,related counter accept
                iifname "{BRIDGE}" counter accept comment "ICC"
                {accepted}
                counter drop comment "UNPUBLISHED PORT DROP"
            }}
            chain filter-forward-out__{BRIDGE} {{
                ct state established,related counter accept
                counter accept comment "OUTGOING"
            }}
            chain nat-postrouting-out__{BRIDGE} {{
                oifname != "{BRIDGE}" {ip} saddr {network} counter masquerade comment "MASQUERADE"
            }}
        }}
        """


def podman_iptables(family: Family) -> str:
    network, gateway = NETWORK.of(family), GATEWAY.of(family)
    loopback = "127.0.0.1" if family is Family.IPV4 else "::1"
    chain, dnat = "NETAVARK-1D8721804F16F", "NETAVARK-DN-1D8721804F16F"
    multicast = "224.0.0.0/4" if family is Family.IPV4 else "ff00::/8"
    comment = '-m comment --comment "dnat name: podman id: 5f2a"'
    return "\n".join(
        (
            "*nat",
            f":{chain} - [0:0]",
            f":{dnat} - [0:0]",
            ":NETAVARK-HOSTPORT-DNAT - [0:0]",
            ":NETAVARK-HOSTPORT-MASQ - [0:0]",
            ":NETAVARK-HOSTPORT-SETMARK - [0:0]",
            "-A PREROUTING -m addrtype --dst-type LOCAL -j NETAVARK-HOSTPORT-DNAT",
            "-A OUTPUT -m addrtype --dst-type LOCAL -j NETAVARK-HOSTPORT-DNAT",
            "-A POSTROUTING -j NETAVARK-HOSTPORT-MASQ",
            f"-A POSTROUTING -s {network} -j {chain}",
            f"-A {chain} -d {network} -j ACCEPT",
            f"-A {chain} ! -d {multicast} -j MASQUERADE",
            # The name service of the network: published to nobody outside it.
            f"-A NETAVARK-HOSTPORT-DNAT -d {gateway} -p udp -m udp --dport 53 -j DNAT"
            f" --to-destination {gateway if family is Family.IPV4 else f'[{gateway}]'}:1153",
            *(
                line
                for outer, inner in PUBLISHED.items()
                for line in (
                    f"-A {dnat} -s {network} -p tcp -m tcp --dport {outer}"
                    " -j NETAVARK-HOSTPORT-SETMARK",
                    f"-A {dnat} -s {loopback} -p tcp -m tcp --dport {outer}"
                    " -j NETAVARK-HOSTPORT-SETMARK",
                    f"-A {dnat} -p tcp -m tcp --dport {outer} -j DNAT"
                    f" --to-destination {target(family, inner)}",
                    f"-A NETAVARK-HOSTPORT-DNAT -p tcp -m tcp --dport {outer} {comment} -j {dnat}",
                )
            ),
            "-A NETAVARK-HOSTPORT-MASQ -m mark --mark 0x2000/0x2000 -j MASQUERADE",
            "-A NETAVARK-HOSTPORT-SETMARK -j MARK --set-xmark 0x2000/0x2000",
            "COMMIT",
            "*filter",
            ":NETAVARK_FORWARD - [0:0]",
            '-A FORWARD -m comment --comment "netavark firewall rules" -j NETAVARK_FORWARD',
            "-A NETAVARK_FORWARD -m conntrack --ctstate INVALID -j DROP",
            f"-A NETAVARK_FORWARD -d {network} -m conntrack --ctstate RELATED,ESTABLISHED"
            " -j ACCEPT",
            f"-A NETAVARK_FORWARD -s {network} -j ACCEPT",
            "COMMIT",
            "",
        )
    )


def podman_nft(family: Family) -> str:
    """One table holds both families: it is made with the first and added to with the second."""
    ip = "ip" if family is Family.IPV4 else "ip6"
    network, gateway = NETWORK.of(family), GATEWAY.of(family)
    loopback = "127.0.0.1" if family is Family.IPV4 else "::1"
    shown = gateway if family is Family.IPV4 else f"[{gateway}]"
    name_service = f"dnat {ip} to {shown}:1153"
    chain = f"nv_2f259bab_{family.value}"
    forwards = "\n".join(
        f"{ip} saddr {network} tcp dport {outer} jump NETAVARK-HOSTPORT-SETMARK\n"
        f"{ip} saddr {loopback} tcp dport {outer} jump NETAVARK-HOSTPORT-SETMARK\n"
        f"tcp dport {outer} dnat {ip} to {target(family, inner)}"
        for outer, inner in PUBLISHED.items()
    )
    jumps = "\n".join(f"tcp dport {outer} jump {chain}_dnat" for outer in PUBLISHED)
    once = """
        table inet netavark {
            chain NETAVARK-HOSTPORT-SETMARK { meta mark set meta mark | 0x00002000; }
            chain NETAVARK-HOSTPORT-DNAT { }
            chain INPUT { type filter hook input priority filter; policy accept; }
            chain FORWARD {
                type filter hook forward priority filter; policy accept;
                ct state invalid drop
            }
            chain POSTROUTING {
                type nat hook postrouting priority srcnat; policy accept;
                meta mark & 0x00002000 == 0x00002000 masquerade
            }
            chain PREROUTING {
                type nat hook prerouting priority dstnat; policy accept;
                fib daddr type local jump NETAVARK-HOSTPORT-DNAT
            }
            chain OUTPUT {
                type nat hook output priority -100; policy accept;
                fib daddr type local jump NETAVARK-HOSTPORT-DNAT
            }
        }
        """
    return (
        (once if family is Family.IPV4 else "")
        + f"""
        table inet netavark {{
            chain {chain}_dnat {{
                {forwards}
            }}
            chain NETAVARK-HOSTPORT-DNAT {{
                {ip} daddr {gateway} meta l4proto {{ tcp, udp }} th dport 53 {name_service}
                {jumps}
            }}
            chain {chain} {{
                {ip} daddr {network} accept
                {ip} daddr != {"224.0.0.0/4" if ip == "ip" else "ff00::/8"} masquerade
            }}
            chain POSTROUTING {{ {ip} saddr {network} jump {chain}; }}
            chain FORWARD {{
                {ip} daddr {network} ct state established,related accept
                {ip} saddr {network} accept
            }}
        }}
        """
    )


ENGINES = (
    Engine("docker-iptables-nft", Flavour.NFT, docker_iptables),
    Engine("docker-iptables-legacy", Flavour.LEGACY, docker_iptables),
    Engine("docker-nft", None, docker_nft),
    Engine("podman-iptables-nft", Flavour.NFT, podman_iptables),
    Engine("podman-iptables-legacy", Flavour.LEGACY, podman_iptables),
    Engine("podman-nft", None, podman_nft),
)
