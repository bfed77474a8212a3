#!/usr/bin/python
# Copyright: the authors of policylang
# Apache-2.0 (see LICENSE of policylang, or https://www.apache.org/licenses/LICENSE-2.0)

from __future__ import annotations

DOCUMENTATION = r"""
module: boot
short_description: Load at boot what was confirmed
version_added: "0.1.0"
description:
  - Installs a service of systemd on the target that loads the policy that was confirmed last before the network is up,
    and closes everything if that cannot be loaded.
  - The service needs neither Python nor policylang. Lists from elsewhere are what they were when the policy was applied,
    and no timer refreshes them; one that C(policylang install-service) installed is removed.
requirements:
  - policylang in the Python that runs Ansible on the controller.
  - On the target Python 3.11 or later with its standard library, and systemd.
options: {}
attributes:
  check_mode:
    support: full
    description: Nothing is changed on the target.
  diff_mode:
    support: none
    description: There is none.
author:
  - The authors of policylang (!UNKNOWN)
seealso:
  - module: policylang.firewall.apply
"""

EXAMPLES = r"""
- name: The firewall is there before the network is
  policylang.firewall.boot:
"""

RETURN = r"""
files:
  description: The files that were or would be changed.
  returned: always
  type: list
  elements: str
words:
  description: What was done.
  returned: always
  type: list
  elements: str
"""
