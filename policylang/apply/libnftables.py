"""The only module that imports nftables: a script of its own that hands one file to libnftables.

`python -I libnftables.py FILE` behaves as `nft -a -f FILE` does (same output, same status), with
`json` behind it as `nft -j -f FILE`, and ends with `UNAVAILABLE`, with nothing done, where
libnftables or its Python module is missing.

It is a process of its own because libnftables may call exit(), and because a context crashes
when it is shared between threads or across a fork: whatever becomes of it, the program that
asked lives on, and so a daemon may ask as well as the command line. It takes a file because a
buffer's error messages name the wrong line. It imports nothing of policylang, so that `-I`
(no current folder, no PYTHONPATH: this runs as root) does not get in its way.
"""

from __future__ import annotations

import importlib.machinery
import importlib.util
import os
import sys
from types import ModuleType

UNAVAILABLE = 69  # EX_UNAVAILABLE, sysexits.h; nft itself ends with 0 or 1

# Debian's python3-nftables is pure Python and stands where a virtual environment does not look.
DISTRIBUTION = "/usr/lib/python3/dist-packages"


JSON = "json"


def main(file: str, *, as_json: bool = False) -> int:
    """Carry out the commands in `file`; the exit status."""
    module = _library()
    if module is None:
        return UNAVAILABLE
    try:
        nft = module.Nftables()
        nft.set_handle_output(True)
        nft.set_json_output(as_json)
        carry_out = nft.cmd_from_file
    except (
        OSError,
        AttributeError,
    ):  # no libnftables.so.1, or a module of 2022 or before
        return UNAVAILABLE
    status, output, error = carry_out(os.fsencode(file))
    sys.stdout.buffer.write(output)
    sys.stderr.buffer.write(error)
    return 0 if status == 0 else 1


def _library() -> ModuleType | None:
    try:
        import nftables
    except ImportError:
        return _distribution()
    return nftables if hasattr(nftables, "Nftables") else _distribution()


def _distribution() -> ModuleType | None:
    found = importlib.machinery.PathFinder.find_spec("nftables", [DISTRIBUTION])
    if found is None or found.loader is None:
        return None
    module = importlib.util.module_from_spec(found)
    sys.modules[found.name] = module  # the package imports its own parts by this name
    try:
        found.loader.exec_module(module)
    except ImportError:
        return None
    return module


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], as_json=sys.argv[2:] == [JSON]))
