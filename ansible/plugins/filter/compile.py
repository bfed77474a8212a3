# Copyright: the authors of policylang
# Apache-2.0 (see LICENSE of policylang, or https://www.apache.org/licenses/LICENSE-2.0)

"""The filter that turns a policy into rules."""

from __future__ import annotations

DOCUMENTATION = r"""
name: compile
short_description: Turn a firewall policy into rules
version_added: "0.1.0"
description:
  - Compiles the text of a policy, on the controller, and loads nothing.
  - Paths in the policy start at the folder of the playbook run.
positional: target
options:
  _input:
    description: The policy.
    type: str
    required: true
  target:
    description: What it is compiled for.
    type: str
    choices: [nft, iptables]
    default: nft
  parameters:
    description: Values for what the policy declares by C(param), as for M(policylang.firewall.apply).
    type: dict
  host:
    description: Which of the policy's hosts is meant, if it has any.
    type: str
author:
  - The authors of policylang (!UNKNOWN)
"""

EXAMPLES = r"""
- name: Rules for nft, as a file of its own
  ansible.builtin.copy:
    content: "{{ 'allow ssh inbound' | policylang.firewall.compile }}"
    dest: /etc/nftables.d/policy.nft
    mode: "0644"

- name: Rules for iptables-restore
  ansible.builtin.copy:
    content: "{{ (lookup('ansible.builtin.file', 'web.policy') | policylang.firewall.compile('iptables'))['rules.v4'] }}"
    dest: /etc/iptables/rules.v4
    mode: "0644"
"""

RETURN = r"""
_value:
  description:
    - For V(nft) the script, as C(nft -f) takes it.
    - For V(iptables) the texts by the names of their files, among them C(rules.v4) and C(rules.v6) for the restore programs.
  type: raw
"""

from contextlib import suppress
from pathlib import Path

from ansible.errors import AnsibleFilterError
from ansible.utils.display import Display
from ansible_collections.policylang.firewall.plugins.plugin_utils import controlling

with suppress(ImportError):  # `require_policylang` tells it
    from policylang.cli import provisioned
    from policylang.diagnostics import Report
    from policylang.pipeline import Text
    from policylang.provision import controller


def compiled(policy, target="nft", parameters=None, host=None):
    """The text of nft's script, or those of iptables' files by their names."""
    controlling.require_policylang()
    if target not in ("nft", "iptables"):
        raise AnsibleFilterError(f"there is no target `{target}`: nft and iptables are")
    report = Report()
    wanted = controller.Wanted(
        Text(str(policy), "<policy>", Path.cwd()),
        str(target),
        controlling.parameters_of(parameters),
        host=None if host is None else str(host),
    )
    one = controller.compiled(wanted, report)
    for warning in provisioned.warnings(report):
        Display().warning(provisioned.told([warning]))
    if one is None:
        raise AnsibleFilterError(provisioned.told(provisioned.errors(report)))
    texts = {file.name: file.text for file in one.artifact.files}
    return texts.popitem()[1] if target == "nft" else texts


class FilterModule:
    """The filters of this collection."""

    def filters(self):
        """By their names."""
        return {"compile": compiled}
