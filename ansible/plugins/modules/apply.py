#!/usr/bin/python
# Copyright: the authors of policylang
# Apache-2.0 (see LICENSE of policylang, or https://www.apache.org/licenses/LICENSE-2.0)

from __future__ import annotations

DOCUMENTATION = r"""
module: apply
short_description: Put a firewall policy in force
version_added: "0.1.0"
description:
  - Compiles a policy on the controller, has the target load it in a scratch network namespace, proves on the controller
    that what is listed there does to every packet what the policy says, and only then loads it.
  - The change is armed. If it is not confirmed over a B(new) connection in O(confirm) seconds, the target's kernel takes
    it back by itself, whatever became of the controller.
  - A task is C(changed) exactly when the rules of the target's kernel are. A second run changes nothing.
  - Lists from elsewhere have the elements of the lock file beside the policy on the controller. Targets ask for none.
requirements:
  - policylang in the Python that runs Ansible on the controller.
  - On the target Python 3.11 or later with its standard library, and C(nft), or C(iptables) and C(ipset).
  - The right to change rules there, for example by C(become).
options:
  policy:
    description:
      - The policy, a file on the controller. It is looked for as V(src) of M(ansible.builtin.copy) is.
      - One of O(policy) and O(content) is needed.
    type: path
  content:
    description: The policy itself, as text. Paths in it start at the folder of the playbook, and it has no lock file.
    type: str
  parameters:
    description:
      - Values for what the policy declares by C(param).
      - A list becomes elements with commas between. Everything else is text of the language.
      - Windows of time stand in quotes, for YAML takes 22:30 for a number.
    type: dict
    default: {}
  target:
    description: What the policy is compiled for.
    type: str
    choices: [nft, iptables]
    default: nft
  flavour:
    description: Which iptables it is, for O(target=iptables). What the target calls C(iptables) if this is not said.
    type: str
    choices: [nft, legacy]
  host:
    description:
      - Which of the policy's hosts the target is.
      - If the policy has hosts and this is not said, C(policylang_name) of the target, or else C(inventory_hostname).
    type: str
  inventory:
    description:
      - Whether the machines and groups of the inventory are hosts and sets of the policy.
      - A machine's addresses are those of its variable C(policylang_addresses), or that of C(ansible_host), or its name if
        that is an address. Machines without any are left out; the task fails where the policy names a group of theirs.
      - A machine whose name is no name of the language (it has dots, say) is called by its variable C(policylang_name).
      - What the policy declares itself is left to it. A group is no set where the policy uses its name for something
        else, a service say.
    type: bool
    default: false
  confirm:
    description:
      - In how many seconds the change has to be confirmed over a new connection, 3600 at most. The action does that by
        itself.
      - V(0) loads for good at once, and nothing takes it back.
    type: int
    default: 60
  flows:
    description:
      - Whether open connections that the new rules would not let begin are ended. As the policy says if this is not said.
    type: str
    choices: [keep, cut]
attributes:
  check_mode:
    support: full
    description: Nothing is changed on the target, but that kernel modules are loaded which the rules rely on.
  diff_mode:
    support: full
    description: What is opened and closed first, as C(policylang diff) tells it, and then the rules.
author:
  - The authors of policylang (!UNKNOWN)
seealso:
  - module: policylang.firewall.info
  - module: policylang.firewall.boot
"""

EXAMPLES = r"""
- name: The same policy for every web server, with who may administer it
  policylang.firewall.apply:
    policy: web.policy
    parameters:
      admins: "{{ admin_networks }}"

- name: One policy for a fleet, whose hosts and groups are those of the inventory
  policylang.firewall.apply:
    policy: site.policy
    inventory: true

- name: A policy in the playbook, on an old machine with iptables
  policylang.firewall.apply:
    content: |
      allow ssh inbound from 192.0.2.0/24
    target: iptables
    flavour: legacy
    confirm: 30
"""

RETURN = r"""
way:
  description: By what rules are loaded.
  returned: always
  type: str
  sample: iptables-nft
generation:
  description: The number of what is in force, in the target's record.
  returned: when it was loaded
  type: int
  sample: 4
rolled_back:
  description: Whether a change was loaded, could not be confirmed over a new connection, and is in force no longer.
  returned: always
  type: bool
ends:
  description: The open connections that a change would end.
  returned: in check mode
  type: list
  elements: str
words:
  description: What was done beside the rules.
  returned: when it was loaded
  type: list
  elements: str
  sample: ["switched on `net.ipv4.ip_forward`"]
"""
