"""The first file of an archive that runs on a target: it is read by old versions of Python, too."""

from __future__ import annotations

import sys

OLDEST = (3, 11)


def main() -> int:
    """Hand the job over to what does it, or say that this Python is too old."""
    if sys.version_info < OLDEST:
        wanted, this = ".".join(map(str, OLDEST)), ".".join(map(str, sys.version_info[:3]))
        where = f"{this} ({sys.executable})"
        sys.stderr.write(f"a target needs Python {wanted} or later, and this is {where}\n")
        return 78  # EX_CONFIG, sysexits.h
    from policylang.provision import target

    return target.main()


if __name__ == "__main__":
    sys.exit(main())
