"""What the help says of the commands that answer, and how they are used."""

from __future__ import annotations

LINT = """\
Say what is right in policies and yet hardly meant: statements that no packet reaches or that change
nothing, allows that something else undoes, services for the whole world beside those for some,
zones that share packets, helpers that face the Internet, IPv6 open where IPv4 is closed, untracked
traffic without answers, sets never asked, and what nothing uses. Each is proved over all packets.

What `check` warns of is said as well. The exit status is 2 where something is found, and 1 where a
policy has errors. A comment silences one place:
  allow ssh inbound  # policylang: allow wider-than-neighbours a honeypot
"""

LINT_EXAMPLES = """\
examples:
  policylang lint web.policy
      say what is found in a policy
  policylang lint site/*.policy --allow unused-declaration --format json
      the same of several for programs, but for what nothing uses
  policylang lint web.policy --deny unreachable
      fail (1) where a statement is never reached
  policylang explain unreachable
      say what a finding means

With `--format json` standard output is an array, as that of `check --format json`.
"""

TEST = """\
Prove the tests of policies: each `expect` for every packet that it describes, not with one.

What does not hold is shown with a packet for which it does not, and the statement that decided.
Packets are the first ones of connections, as honest senders send them. The exit status is 2 where
an expectation does not hold, and 1 where a policy has errors.

With `--kernel` they are played instead: the rules are loaded as `apply` would, by each way whose
programs are here, into a firewall in a network namespace, with a machine behind each of its
interfaces. Packets from both sides of every border that the rules draw, and random ones, are thrown
at it; sessions are held in earnest, with bytes over each connection. Nothing leaves the
namespaces, and they are gone afterwards, however it ends. It needs root.
"""

TEST_EXAMPLES = """\
examples:
  policylang test web.policy
      prove all of its tests
  policylang test site/*.policy --name '*ftp*'
      prove the tests that are named so
  policylang test web.policy --format json
      the same for programs
  sudo policylang test web.policy --kernel
      play them on the real kernel, on nft and on iptables

A test stands in a policy, and means nothing to its rules:
  test "the world reaches ftp, and only admins ssh" {
    expect allow ftp inbound from wan
    expect deny ssh inbound from any except admins
    expect some allow https from lan to wan
  }

With `--format json` standard output is an object with version (1), passed and failed (how many
tests), and policies: objects with policy and tests, each with name, passed and expectations, each
with text, its place, holds and failure (null, or message, packet, why, help and labels).
"""

QUERY = """\
Say who can reach what: yes, no or partly, with the addresses, ports and statements of each part.

A question is worded like a rule without its verb: `ssh from any to self`. It is about every first
packet that an `allow` of these words would be about; what is sent elsewhere on the way is
followed. The exit status is 0 where every answer is yes (and with `--matrix`), 2 where one is no or
partly, and 1 where something could not be read.

Of several hosts each that packets come by is asked, from the sender by the gateways to the
receiver, and those that stop them are named. `--host` asks one alone.
"""

QUERY_EXAMPLES = """\
examples:
  policylang query web.policy "ssh from any to self"
  policylang query web.policy "https from lan to wan" "all from wan to lan except 192.168.1.5"
  policylang query web.policy --matrix
      from each zone to each, by the services that the policy names
  policylang query web.policy --matrix --services ssh,http,https
  policylang query rules.v4,rules.v6 'ssh from "eth0" to self'
  nft -j list ruleset | policylang query - "ssh from any to self"

Rules that are no policy have no zones: ends are addresses, `any`, `self` and interfaces in quotes
(`ssh from "eth0" to self`). Where something in them is not understood, the answer says what passes
at most and at least.

With `--format json` standard output is an object with version (1) and answers (with `--matrix`:
services, zones and cells). Of several hosts an answer has hosts, each with parts of its own.
"""

TRACE = """\
Tell a conversation packet by packet: who sends what, the conntrack state that it has and why, and
the statement that lets it pass or not.

WHAT is worded like a rule without its verb; behind the service may stand how it goes (`ftp
passive`, `ftp active`, `tftp write`, `sip tcp`; elsewhere `too-big` or `unreachable`, for an ICMP
error about it). An end that is left out is this host, and what is not said is filled in with
plausible addresses. The exit status is 0 where the conversation works as a whole, 2 where some of
it does not pass, and 1 where something could not be read.

Of several hosts each on the way tells its part in turn, under the addresses that packets have by
then, up to one that stops the first; an end that is left out is each of them. With `--format json`
standard output is then an object with version (1), asked, works, stopped_by (a host, or null) and
steps (host, path, and story, as of one firewall).
"""

TRACE_EXAMPLES = """\
examples:
  policylang trace web.policy ftp passive inbound from wan
  policylang trace web.policy ftp active from 203.0.113.9
  policylang trace web.policy ping from lan to 192.0.2.1 --verbose
      with each line of the rules that a packet meets
  policylang trace web.policy sip from lan to wan -o call.svg
      draw it
  policylang trace site.policy postgresql from web1 to db1
      from host to host, where the policy has several
  policylang trace web.policy packet tcp 22 from 203.0.113.9 flags syn,fin interface eth0
  policylang trace web.policy packet tcp 22 inbound from wan state invalid
      one packet; a state is `new`, `established`, `related`, `invalid` or `untracked`
  nft -j list ruleset | policylang trace - ssh from 203.0.113.9 interface eth0

Played are FTP, TFTP, SIP, H.323, IRC, PPTP, SANE, Amanda, NetBIOS and SNMP with what their
conntrack helpers predict; any other service is a plain exchange. Each packet is taken to be within
all rates, and sets that are filled at run time to be empty.
"""

DIFF = """\
Say what NEW does otherwise than OLD: not in which lines they differ, but with which packets.

What is newly allowed, newly denied, answered, translated, logged or marked otherwise is told in a
few ranges, each with one packet and the statements behind it on both sides. It holds for every
packet: what is not told fares as before. What was renamed, reordered or laid out anew is no
difference.

OLD and NEW are policies, revisions of policies in git (`HEAD~1:web.policy`; includes and lists are
read as they were), `live` (all rules in the kernel), `generation:N` (what an apply kept; without
the number what is in force), scripts for nft, folders of `compile --target iptables`, or rules of
any origin: what `nft -j list ruleset` or `iptables-save` wrote (`RULES.V4,RULES.V6,SETS`). Where
such rules have something that is not understood, a difference that depends on it is told as one
that may be.
"""

DIFF_EXAMPLES = """\
examples:
  policylang diff old.policy new.policy
  policylang diff --rev main..HEAD web.policy
  policylang diff --rev HEAD web.policy              what was changed since the last commit
  policylang diff --rev main..HEAD web.policy --format markdown --fail-on opened
                                                     for a comment on a change, and for CI
  sudo policylang diff live web.policy               what an apply would change in meaning
  policylang diff rules.v4,rules.v6 web.policy       what a policy changes of an old firewall

The exit status is 0 where there is no difference in meaning, 2 where there is one (with `--fail-on
opened` only where something is allowed that was not, or sent on to somewhere else), and 1 where
something cannot be read.

With `--format json` standard output is an object with version (1), old, new, differs, opens and
changes: objects with kind, way, first, sure, packets, except, complete, was, becomes and example.
"""

WHY = """\
Find the statement behind something that the kernel shows, with its file and line.

It may be a rule as `nft list ruleset` or `iptables -S` shows it, `handle 12`, a chain and the
number of a rule in it (`input 5`), a line of the kernel's log (what logged it, and what became of
the packet), a line of `policylang status`, an address or a set (which sets hold it, and which
statements name it), or FILE:LINE of the policy, whose rules are shown then.

It is looked for in what is in force, in another generation, or in a policy.
"""

WHY_EXAMPLES = """\
examples:
  sudo policylang why handle 12
  sudo policylang why -- '-A policylang-input -i eth0 -p tcp --dport 22 -j ACCEPT'
  journalctl -k -g IN= -n 20 | sudo policylang why -
  policylang why 198.51.100.7 --policy web.policy
  policylang why web.policy:7 --policy web.policy --target iptables

The exit status is 2 where nothing is known of what was asked. With `--format json` standard output
is an object with version (1), of and answers: objects with asked, kind, known, notes and because,
an array with words, rule and statements.
"""

VERIFY = """\
Prove that the rules that a policy becomes do with every packet what it says.

The rules are loaded in a scratch network namespace. What the kernel lists there is read back, and
followed from all packets in all states at once, as the policy's own rules are: what is dropped,
rejected, logged, translated, marked and put into sets must be the same, and must stand where the
kernel acts on it. Where a packet would fare otherwise it is shown, and the exit status is 1.
`plan` and `apply` do the same by themselves, and load nothing that is not proved.

With `--live` what is in force is compared too, and what other programs' rules beside it change is
told. Only what happens to packets counts: rules that are written otherwise are no difference. The
exit status is 2 where what is in force differs, or where there is too much to be proved.

Of several hosts the rules of each are proved; what is in force is that of one, named by `--host`.
"""

VERIFY_EXAMPLES = """\
examples:
  sudo policylang verify web.policy
      prove the rules for each target whose programs are here
  sudo policylang verify web.policy --target iptables --flavour legacy
      prove those of one way to load
  sudo policylang verify web.policy --live
      prove them, and compare what is in force here
  sudo policylang verify web.policy --live --netns branch --format json
      the same in another network namespace, for programs

With `--format json` standard output is an object with version (1), agrees, ways (way, seconds and
proved), left_out (target and why), live (null, or way, agrees, differences, beside), diagnostics.
Where a policy has several hosts and no `--host` is given, it has version, agrees, hosts (such an
object for each by its name) and diagnostics.
"""
