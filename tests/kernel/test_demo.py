"""The demonstration shows what it says: it ends with an error where anything is not as shown."""

from __future__ import annotations

import subprocess
import sys

from .ground import REPOSITORY


def test_the_demonstration_succeeds(kernel: None) -> None:
    command = [sys.executable, "examples/ftp-server/demo.py"]
    done = subprocess.run(
        command, cwd=REPOSITORY, capture_output=True, text=True, timeout=180, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
