"""Stands in for get-pip.py, which ansible-test fetches from a place that is no package registry.

ansible-test runs it in each new virtual environment, with the pip that it wants and options behind.
The first one installs that pip, the others take over what the first one has.
"""

import os
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

site = Path(sysconfig.get_path("purelib"))
kept = Path.home() / ".ansible/test/cache/installed"
if kept.is_dir():
    shutil.copytree(kept, site, copy_function=os.link, dirs_exist_ok=True)
else:
    # A process of its own: ensurepip turns pip's configuration off for all that it is in.
    subprocess.run([sys.executable, "-m", "ensurepip"], check=True, stdout=subprocess.DEVNULL)
    wanted = [argument for argument in sys.argv[1:] if not argument.startswith("--no-")]
    subprocess.run(
        [sys.executable, "-m", "pip", "install", "--quiet", "--upgrade", *wanted], check=True
    )
    shutil.copytree(site, kept, copy_function=os.link)
