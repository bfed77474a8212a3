"""What `--help` says of each command."""

from __future__ import annotations

DESCRIPTION = """\
Say what a Linux firewall should allow; get the nftables or iptables rules for it.
"""

EXAMPLES = """\
examples:
  policylang check web.policy
      say what is wrong with a policy, for both targets
  policylang compile web.policy
      print the nftables script that the policy compiles to
  policylang compile web.policy --target iptables -o out/
      write out/rules.v4, out/rules.v6 and what they need beside themselves
  sudo policylang plan web.policy
      say which rules would change
  sudo policylang apply web.policy --confirm 60s
      load it, and take it back by itself unless it is confirmed
  sudo policylang confirm
      keep it; `rollback` goes back, `status` says what is in force
  sudo policylang set add banned 192.0.2.7
      put an address into a dynamic set of the policy that is in force
  policylang refresh web.policy
      ask again for the addresses of names and lists from elsewhere
  policylang fmt web.policy
      lay a policy out in the canonical way
  policylang test web.policy
      prove what the policy's tests expect, for every packet
  policylang query web.policy "ssh from any to self"
      say who can reach what
  policylang lint web.policy
      say what no packet reaches, what changes nothing, and what is hardly meant
  sudo policylang verify web.policy
      prove that the rules of both targets do what the policy says, for every packet
  policylang diff old.policy new.policy
      say which packets fare otherwise; `review` comments on that, `golden` keeps rules for it
  policylang services mail
      list the services that are built in, all or those of a name, a topic or a port
  policylang groups private
      list or explain the groups of addresses that are built in
  policylang explain unknown-service
      explain a message

exit status:
  0  done
  1  the command line is wrong; the policy has errors, or could not be read, written or loaded; or
     is not canonical (`fmt --check`, `fmt --diff`); or nothing is found (`services`, `groups`)
  2  the answer is no: something differs (`plan --detailed-exitcode`, `apply --check`, `drift`,
     `diff`, `golden`, `review`, `verify --live`), fails (`test`, `trace`, `query`), is odd (`lint`)
  3  a mistake in policylang itself
"""

COMPILE = """\
Compile a policy. Nothing is written where the policy has an error.

For nft the output is one script for `nft -f`, for iptables a folder with rules.v4, rules.v6
and, where sets are used, sets.ipset. `ir` shows the rules before they become a target's.

What the rules need beside themselves at boot is written beside them into a folder, where there is
something: modules-load.conf (for /etc/modules-load.d), sysctl.conf (for /etc/sysctl.d), and
proxy-routes.v4 and .v6 (for `ip -4 -batch` and `ip -6 -batch`). `policylang apply` sees to it by
itself.
"""

COMPILE_EXAMPLES = """\
examples:
  policylang compile web.policy > web.nft
  policylang compile web.policy -o /etc/nftables.conf
  policylang compile web.policy -o out/
  policylang compile web.policy --target iptables -o out/
  policylang compile web.policy -D wan=ens3 -D 'admins=192.0.2.7, 2001:db8::/32'
  generate-policy | policylang compile - --target nft

Files are written aside and moved into place once all of them are complete. With `--format
json` errors and warnings go to standard error as one JSON array.
"""

CHECK = """\
Say everything that is wrong with a policy, for both targets unless one is named.
"""

CHECK_EXAMPLES = """\
examples:
  policylang check web.policy
  policylang check web.policy --target nft
  policylang check web.policy --format json

With `--format json` standard output is one JSON array, empty where all is well. Each entry has
the keys code, severity (error or warning), message, file, line, column, end_line, end_column
(counted from 1, in characters, the end exclusive; null where no file is at fault), help (or
null) and labels: an array of other places with message, file, line, column, end_line and
end_column.
"""

PLAN = """\
Say what an apply would change, rule by rule, with the lines of the policy behind them.

The policy is loaded in a scratch network namespace and listed there by the same tool that lists
what is in force: where the two are equal, nothing would change. Kernel modules that the rules rely
on are loaded for it; nothing else is changed.
"""

PLAN_EXAMPLES = """\
examples:
  sudo policylang plan web.policy
  sudo policylang plan web.policy --detailed-exitcode    0: none, 1: error, 2: changes

With `--json` standard output is one object with the keys schema (1), way, add, change, remove and
recommented (counts), changes (each with kind, place, before, after and statement), sets (each with
set, added and removed), removes (ways by which something of an earlier apply is in force) and ends
(open connections that are cut).
"""

APPLY = """\
Compile a policy, load it in a scratch network namespace, and then for real.

It shows what changes and asks; `--yes` does not. It takes the place of what was applied before,
whichever target that was for; rules of other programs are left alone. Where anything fails, what
was in force stays in force.

With `--confirm` the change is taken back by the kernel itself when the time is over, whatever
became of this program or of the connection it was started over; `policylang confirm` keeps it. On a
terminal over SSH that is so unless `--no-confirm` is given. Forwarding is switched on, routes are
laid and open connections are cut when it is confirmed.

Kernel modules that the rules rely on are loaded before them. Where the policy lets packets through
this host, forwarding is switched on after them, and never off. The last line says so.
"""

APPLY_EXAMPLES = """\
examples:
  sudo policylang apply web.policy
  sudo policylang apply web.policy --yes --confirm 2m
  sudo policylang apply web.policy --target iptables --flavour legacy
  sudo policylang apply web.policy --check --json    0: nothing would change, 1: error, 2: it would

With `--json` (as of `confirm`, `rollback`) nothing is asked, and standard output is an object of
schema (1), changed, check, way, generation, confirm_s, diff, beside, diagnostics and error.
"""

CONFIRM = """\
Keep the change that was applied with `--confirm`, and load it at the next boot.

Run it from a new connection: that one can be made is what it confirms.
"""

ROLLBACK = """\
Go back: end a change that waits to be confirmed, or else load the generation that was in force
before, or the one of that number. What is loaded is what was kept of it, never what the kernel
lists. Who works over SSH is warned where it would not let them in again, as by `apply`.
"""

PANIC = """\
Close everything, in both directions, but loopback, the SSH connection that this is run over, and
new ones from where it came. Open connections end. `policylang rollback` goes back.
"""

STOP = """\
Take everything away that was applied, and say so. Nothing is filtered then, unless other programs'
rules do; forwarding stays as it is.
"""

STATUS = """\
Say what is in force: which policy, since when and by whom, whether it waits to be confirmed,
whether it is still as it was loaded, what each statement has counted, and which chains of other
programs stand on the same hooks.
"""

DRIFT = """\
Say what differs from what was loaded: `+` is there and was not loaded, `-` was loaded and is gone.
The exit status is 2 where anything differs.
"""

INSTALL_SERVICE = """\
Write systemd units that load at boot, before the network is up, what was confirmed last, by nft or
iptables-restore alone; a closed ruleset where that fails; and a timer that refreshes lists from
elsewhere. Modules and settings that the rules rely on come with it.
"""

UNINSTALL_SERVICE = """\
Remove what `install-service` wrote. What is in force and what was kept stays.
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
"""

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
"""

TRACE = """\
Tell a conversation packet by packet: who sends what, the conntrack state that it has and why, and
the statement that lets it pass or not.

WHAT is worded like a rule without its verb; behind the service may stand how it goes (`ftp
passive`, `ftp active`, `tftp write`, `sip tcp`; elsewhere `too-big` or `unreachable`, for an ICMP
error about it). An end that is left out is this host, and what is not said is filled in with
plausible addresses. The exit status is 0 where the conversation works as a whole, 2 where some of
it does not pass, and 1 where something could not be read.
"""

TRACE_EXAMPLES = """\
examples:
  policylang trace web.policy ftp passive inbound from wan
  policylang trace web.policy ftp active from 203.0.113.9
  policylang trace web.policy ping from lan to 192.0.2.1 --verbose
      with each line of the rules that a packet meets
  policylang trace web.policy sip from lan to wan -o call.svg
      draw it
  policylang trace web.policy packet tcp 22 from 203.0.113.9 flags syn,fin interface eth0
  policylang trace web.policy packet tcp 22 inbound from wan state invalid
      one packet; a state is `new`, `established`, `related`, `invalid` or `untracked`
  nft -j list ruleset | policylang trace - ssh from 203.0.113.9 interface eth0

Played are FTP, TFTP, SIP, H.323, IRC, PPTP, SANE, Amanda, NetBIOS and SNMP with what their
conntrack helpers predict; any other service is a plain exchange. Each packet is taken to be within
all rates, and sets that are filled at run time to be empty.
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
services, zones and cells).
"""

GENERATIONS = "List what was applied and is kept, the newest first.\n"

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

SET = """\
List and change the dynamic sets of the policy that is in force, whichever target it was for.

A policy declares them (`set banned = dynamic timeout 1h`), rules fill them (`add source to
banned`), and what is in them stays when a changed policy is applied.
"""

SET_EXAMPLES = """\
examples:
  sudo policylang set list
  sudo policylang set list banned --format json
  sudo policylang set add banned 192.0.2.7 2001:db8::7
  sudo policylang set add banned 192.0.2.7 --timeout 1h30m
  sudo policylang set delete banned 192.0.2.7
  sudo policylang set flush banned --netns router1

Several addresses are added or deleted all together or not at all. With `list --format json`
standard output is an array, empty where no set is loaded. Each entry has the keys name, timeout_s
(null: elements stay for ever), size (of each family) and elements: an array with address, family
(4 or 6) and left_s, the seconds that are left (or null).
"""

REFRESH = """\
Ask for the addresses of a policy's lists from elsewhere (`set cdn = resolve "cdn.example"`,
`set drop = url "https://…"`).

What the sources answer is written to the lock file beside the policy, FILE.lock, which `compile`,
`check` and `apply` read; sets of these sources that are in force get the elements that came and
lose those that went, without an apply. A source that fails keeps what it had; the exit status is
then 1.
"""

REFRESH_EXAMPLES = """\
examples:
  policylang refresh web.policy
      ask all sources of a policy
  policylang refresh web.policy --check
      say what would change; the exit status is 1 where something would
  sudo policylang refresh --all
      ask the sources of what is in force whose time has come, as the timer does
"""

SET_LIST = "Show what is in the dynamic sets, or in one of them, and for how long.\n"
SET_ADD = """\
Put addresses into a dynamic set; those that are in it stay anew for the whole time.
"""
SET_DELETE = "Take addresses out of a dynamic set.\n"
SET_FLUSH = "Empty a dynamic set.\n"

FMT = """\
Lay policies out in the one canonical way: rewrite them in place, where that changes anything.

White space and line ends change, and nothing else: no word, no comment, no order. A file with
mistakes is left alone, and they are told; the other files are formatted.
"""

FMT_EXAMPLES = """\
examples:
  policylang fmt web.policy site/*.policy
  policylang fmt --check *.policy        name what would change; for CI
  policylang fmt --diff web.policy       show what would change
  policylang fmt - < web.policy          from standard input to standard output

Files are written aside and moved into place; included files are formatted if they are named. With
`--check` and `--diff` nothing is written, and the exit status is 1 if anything would change.
"""

SERVICES = """\
List the services that are built in, search among them, or explain one.

A pattern is a name, a part of a name or of a description, a glob (`kube-*`), or a port (`443`,
`tcp/443`). What it matches is listed; one service alone is explained: what it opens, its other
names, and how it is written. A policy may have a service of its own by any of these names.
"""

SERVICES_EXAMPLES = """\
examples:
  policylang services                    all of them
  policylang services ftp                what the service ftp is
  policylang services mail               those that speak of mail
  policylang services tcp/8080           those that have this port

With `--format json` standard output is an array, empty where nothing matches. Each entry has the
keys name, description, opens, members, same_as, notes and text; each of `opens` has protocols,
ports, icmp_types and data_ports (pairs of first and last, or null), helper and answers_from_any.
"""

GROUPS = """\
List the groups of addresses that are built in, search among them, or explain one.

They are the sets of the IANA special-purpose registries, to be named in a policy like sets of its
own. A pattern is a name, a part of a name or of a description, a glob, or an address: the groups
that hold all of it.
"""

GROUPS_EXAMPLES = """\
examples:
  policylang groups                      all of them
  policylang groups bogons               what the group bogons holds
  policylang groups 100.64.3.7           those that hold this address

With `--format json` standard output is an array, empty where nothing matches. Each entry has the
keys name, description, addresses and text.
"""

EXPLAIN = """\
Explain a message by its id (the word in brackets), or list all of them.
"""
