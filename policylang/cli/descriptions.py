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

With `--json` (as of `confirm`, `rollback`, `panic` and `stop`) nothing is asked, and standard
output is an object of schema (1), changed, check, way, generation, confirm_s, diff, beside,
diagnostics and error.
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

GENERATIONS = "List what was applied and is kept, the newest first.\n"

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
