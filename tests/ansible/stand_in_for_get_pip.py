"""Stands in for get-pip.py, which ansible-test fetches from a place that is no package registry.

ansible-test runs it in a new virtual environment, with the pip that it wants and options behind.
"""

import subprocess
import sys

# A process of its own: ensurepip turns pip's configuration off for all that it is in.
subprocess.run([sys.executable, "-m", "ensurepip"], check=True, stdout=subprocess.DEVNULL)
wanted = [argument for argument in sys.argv[1:] if not argument.startswith("--no-")]
subprocess.run(
    [sys.executable, "-m", "pip", "install", "--quiet", "--upgrade", *wanted], check=True
)
