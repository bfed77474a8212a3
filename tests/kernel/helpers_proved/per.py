"""The aligned packed encoding of ASN.1 (X.691), as far as the messages of H.323 here need it.

It knows no message: what is written in which order is for H.225 and H.245 to say.
"""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(slots=True)
class Packed:
    """A value being written. Every method returns the writer, so that fields follow each other."""

    _bits: list[int] = field(default_factory=list)

    def encoded(self) -> bytes:
        """The whole octets of what was written."""
        padded = self._bits + [0] * (-len(self._bits) % 8)
        return bytes(int("".join(map(str, padded[i : i + 8])), 2) for i in range(0, len(padded), 8))

    def flags(self, *flags: bool) -> Packed:
        """The bits of a sequence in front of its fields, or booleans."""
        self._bits += map(int, flags)
        return self

    def small(self, number: int, bits: int) -> Packed:
        """A number of so few bits that it is not aligned, such as which choice was taken."""
        self._bits += (int(bit) for bit in f"{number:0{bits}b}")
        return self

    def octets(self, content: bytes) -> Packed:
        """Octets, from the next whole one on."""
        self._bits += [0] * (-len(self._bits) % 8)
        for octet in content:
            self.small(octet, 8)
        return self

    def byte(self, number: int) -> Packed:
        """A number of 256 possible ones (X.691 section 10.5.7.2)."""
        return self.octets(number.to_bytes(1))

    def word(self, number: int) -> Packed:
        """A number of up to 65536 possible ones (X.691 section 10.5.7.3)."""
        return self.octets(number.to_bytes(2))

    def counted(self, content: bytes) -> Packed:
        """Octets behind their number: an open type, an object identifier."""
        assert len(content) < 128  # one octet of length, X.691 section 10.9.3.6
        return self.byte(len(content)).octets(content)
