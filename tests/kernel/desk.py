"""Where commands are typed for a firewall of the test ground, and what they said.

It knows no policy and nothing of what commands do.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from policylang.cli import main

from .ground import Family, Ground, Loader, Reach, probe_tcp


class Desk:
    """`said` is what the last command wrote, to both its streams."""

    def __init__(
        self, net: Ground, loader: Loader, folder: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        self.net, self.loader, self.folder, self.capsys = net, loader, folder, capsys

    def policy(self, text: str) -> str:
        """The file of a policy; there is one at a time."""
        path = self.folder / "web.policy"
        path.write_text(text)
        return str(path)

    def run(self, command: str, *arguments: str, status: int = 0, loads: bool = False) -> str:
        """Standard output of a command that ends with that status."""
        options = self.loader.options if loads else ()
        self.capsys.readouterr()
        ended = main([command, *arguments, "--netns", self.net.firewall.name, *options])
        self.said = self.capsys.readouterr()
        assert ended == status, self.said.out + self.said.err
        return self.said.out

    def apply(self, text: str, *options: str) -> str:
        return self.run("apply", self.policy(text), "--yes", *options, loads=True)

    def reaches(self, port: int) -> Reach:
        """Whether the neighbour reaches a port on which something listens."""
        wire = self.net["wan"]
        with self.net.firewall.listen(Family.IPV4, port):
            return probe_tcp(wire.neighbour, wire.near.ipv4, port)

    def rules(self) -> list[str]:
        """Every rule of ours, as the target's own program lists it."""
        inside = self.net.firewall
        if self.loader is Loader.NFT:
            listed = inside.run(["nft", "list", "table", "inet", "policylang"]).stdout
            lines = [line.strip() for line in listed.splitlines()]
            words = ("accept", "drop", "reject", "jump ", "log prefix")
            return [
                line for line in lines if any(w in line for w in words) and " hook " not in line
            ]
        flavour = self.loader.value.removeprefix("iptables-")
        listed = inside.run([f"iptables-{flavour}", "-S"]).stdout
        return [line for line in listed.splitlines() if line.startswith("-A policylang")]
