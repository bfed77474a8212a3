#!/usr/bin/python
# Copyright: the authors of policylang
# Apache-2.0 (see LICENSE of policylang, or https://www.apache.org/licenses/LICENSE-2.0)

from __future__ import annotations

DOCUMENTATION = r"""
module: info
short_description: Tell which firewall policy is in force
version_added: "0.1.0"
description:
  - Tells what is in force on a target, what was, and whether another program changed it since.
requirements:
  - policylang in the Python that runs Ansible on the controller.
  - On the target Python 3.11 or later with its standard library, and C(nft), or C(iptables) and C(ipset).
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
- name: What is in force
  policylang.firewall.info:
  register: firewall

- name: Nobody else changed it
  ansible.builtin.assert:
    that: not firewall.drifted
"""

RETURN = r"""
in_force:
  description: The generation that is in force, null if none is. C(host) is the policy's, null if it has none.
  returned: always
  type: dict
  sample:
    generation: 4
    policy: site.policy on web1
    host: web1
    way: nft
    made_at: "2026-01-02T03:04:05+00:00"
    made_by: alice
    parameters: {admins: 192.0.2.0/24}
pending:
  description: The generation that waits to be confirmed, with the seconds that it has left as C(left_s), or null.
  returned: always
  type: dict
drifted:
  description: Whether the rules differ from those of the generation that is in force.
  returned: always
  type: bool
drift:
  description: How they differ. C(before) is what was loaded, C(after) what is there now.
  returned: always
  type: list
  elements: dict
ways:
  description: The ways by which rules of policylang are loaded.
  returned: always
  type: list
  elements: str
generations:
  description: All that the record of the target has, the newest first.
  returned: always
  type: list
  elements: dict
at_boot:
  description: What a boot loads, C(generation), and whether the service for that is installed, C(installed).
  returned: always
  type: dict
"""
