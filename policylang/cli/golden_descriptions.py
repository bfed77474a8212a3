"""What `--help` says of the commands that reviews are made of."""

from __future__ import annotations

GOLDEN = """\
Keep what policies compile to beside them, so that a review shows which rules a change makes; and
say where what is kept is not what they compile to any more.

Each `*.policy` in the folders, and below them, that no other one includes has a folder of its name
beside it: `web.policy` has `web.golden/` with nft.nft, iptables/rules.v4 and so on, and boot/ for
what the rules need at boot; a policy of several hosts has these in a folder for each host. A file
`web.params` gives parameters values, a line `NAME = VALUE` for each, and `web.targets` names the
targets that the policy is for, where these are not all. Links to folders are not followed.

Errors of one policy never stop the others: all are told, and what is kept of a policy with errors
stays. The exit status is 2 where something differs (never with `--update`), and 1 where a policy
has errors.
"""

GOLDEN_EXAMPLES = """\
examples:
  policylang golden site/                 say what differs, with a diff
  policylang golden site/ --update        rewrite what differs, remove what nothing compiles to
  policylang golden site/ --target nft    for one target alone
  policylang golden site/ --format github
                                          for a workflow: shown at the policy of a change
  policylang textconv web.golden/nft.nft  say what such a file means, for `git diff`

With `--format json` standard output is an object with version (1), policies (each with policy,
folder, state: kept, differs, updated or failed, gone, and files, each with file, how and diff) and
diagnostics.
"""

REVIEW = """\
Write a comment on a change of policies, in Markdown: what it opens and closes first, with the
statements behind it, then what changed in the policies' text, then, folded away, in the rules.

OLD and NEW are policies or revisions of them in git (`main:web.policy`); with `--rev` any number of
FILEs are compared, and one that is new is compared with a firewall that lets nothing pass. Of a
folder these are the policies of which `golden` keeps outputs, on whichever side they are. A policy
of several hosts is told host by host.
"""

REVIEW_EXAMPLES = """\
examples:
  policylang review old.policy new.policy
  policylang review --rev main..HEAD site/ > comment.md
  policylang review --rev "$BASE..$HEAD" web.policy --fail-on opened

A comment has at most 65,536 characters, as GitHub wants it (`--limit`): what does not fit is left
out from its end, and it says so. The exit status is 2 where packets fare otherwise (with `--fail-on
opened` only where something is allowed that was not), and 1 where a policy cannot be read.
"""

TEXTCONV = """\
Say what compiled rules mean: which packets pass, are refused, logged and translated, by which
statement. It is for git, which shows the difference of two such texts instead of that of rules.

FILE is a script for nft or a file for iptables-restore, compiled by policylang or of any origin.
The same rules are told in the same words, however they are laid out. A script for nft is read by
nft itself, in a network namespace of its own: as root, or where users may make namespaces. What
cannot be read is shown as it is, under a line that says why.
"""

TEXTCONV_EXAMPLES = """\
examples:
  policylang textconv web.golden/nft.nft
  git config diff.policylang.textconv 'policylang textconv'
  printf '%s diff=policylang\\n' '*.nft' 'rules.v4' 'rules.v6' >> .gitattributes
      from then on `git diff` and `git log -p` show meaning; `--no-textconv` shows the rules
"""
