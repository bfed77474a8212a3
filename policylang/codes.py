"""Every diagnostic id with its severity and explanation; knows nothing of where they occur.

`policylang explain CODE` prints these texts. Each id has a policy in `tests/diagnostics/` that
triggers it.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Code:
    """`severity` is error or warning; `explanation` is one paragraph."""

    severity: str
    title: str
    explanation: str


CODES: dict[str, Code] = {}


def _error(code: str, title: str, explanation: str) -> None:
    CODES[code] = Code("error", title, " ".join(explanation.split()))


def _warning(code: str, title: str, explanation: str) -> None:
    CODES[code] = Code("warning", title, " ".join(explanation.split()))


# --- reading --------------------------------------------------------------------------------
_error(
    "syntax",
    "the text does not follow the grammar",
    """A statement starts with a keyword (`allow`, `zone`, `set`, …) and goes on to the next one;
    lists are separated by commas, texts stand in double quotes. The message names what was
    expected at the place that is marked. The rest of the file is still read, so that all the
    mistakes are told in one run; nothing is compiled from a file that has one.""",
)
_error(
    "reserved-word",
    "a word of the language is used as a name",
    """The words of the language cannot be names of zones, sets, services or groups of rules,
    so that a policy keeps its meaning. A name in quotes is
    never taken for a word of the language: `zone "host" { … }`.""",
)
_error(
    "unterminated-string",
    "a string has no closing quote",
    """A string starts and ends with a double quote on the same line. There is no way to write a
    double quote inside one.""",
)
_error(
    "unclosed-block",
    "a block has no closing brace",
    """A `{` opens a block that the matching `}` closes. Where a statement follows that cannot
    stand in the block, the brace is missing before it at the latest.""",
)
_error(
    "misplaced",
    "a statement stands in a block that it cannot stand in",
    """Blocks of rules (`traffic`, `rules`) hold rules, `use` and further `traffic` blocks. What
    translates or treats packets stands outside of blocks, and so do zones, sets, services, groups
    of rules, defaults, settings and includes. A `test` holds what it `expect`s, and nothing else
    does.""",
)
_error(
    "empty-test",
    "a test that expects nothing",
    """A test proves what it expects. One without an `expect` proves nothing, and would pass for
    ever.""",
)
_error(
    "stray-brace",
    "a closing brace closes nothing",
    """There is no block open where the `}` stands: there is one too many, or the `{` that it
    belongs to is missing.""",
)
_error(
    "nested-too-deep",
    "blocks stand too deep in one another, or files include one another too deep",
    """Each block inside a `traffic` block narrows the place of the rules in it, and each included
    file may include others. Fifty in one another is more than any policy needs, and the compiler
    refuses to go deeper.""",
)
_error(
    "catalogue-only",
    "a policy describes a conntrack helper",
    """`helper NAME { … }` as a statement of its own describes what a conntrack helper of the
    kernel does. Such statements are part of policylang's catalogue; a policy only names the
    helper, inside a service: `service ftp-alt { tcp 2121 helper ftp }`.""",
)
_error(
    "unreadable-file",
    "a file cannot be read",
    """The policy, a file that it includes or a list that it names does not exist, is a folder,
    or may not be read. Paths are relative to the file that names them.""",
)
_error(
    "not-utf8",
    "a file is not text in UTF-8",
    """Policies and list files are text in UTF-8, with or without a byte order mark, and hold no
    NUL character. The place that is marked is the first that is not text.""",
)
_error(
    "include-cycle",
    "files include each other",
    """A file cannot include itself, neither directly nor by way of others: what it includes is
    read as if it stood in its place, and would never end. A pattern such as `*.policy` includes
    the file that it stands in, if that matches too.""",
)
_warning(
    "include-nothing",
    "the pattern of an include matches no file",
    """`include "site/*.policy"` reads all files that match. That none does may be meant (a folder
    that is still empty), so it is a warning; a path without `*`, `?` or `[` that names no file
    is an error.""",
)
_error(
    "bad-list-line",
    "a line of a list file is not an element",
    """A file that a set reads with `file` holds one element a line: an address, a prefix, a range
    of addresses, a port, a range of ports or a MAC address. Empty lines are skipped, and `#` and
    `;` start comments. JSON, what `ipset save` writes and, with `column`, CSV are known as well;
    there, too, whatever is not an element is an error. After twenty of them in a file the others
    are counted and not shown.""",
)
_error(
    "bad-list-format",
    "a list file is of a format that is not read",
    """Lists are text of one element a line, JSON (an object a line as of Spamhaus DROP, an array,
    or the forms of Amazon, Google and Fastly), what `ipset save` writes, or CSV with `column`.
    What a file holds tells its format, never its name. Packed files have to be unpacked, and what
    is meant of another form has to be picked out of it first.""",
)
_error(
    "bad-column",
    "a column that the list does not have",
    """`file "feed.csv" column 2` reads the second column of a CSV file, `column "ip"` the one that
    its header calls so. Other formats have no columns.""",
)
_error(
    "mixed-list",
    "a list file holds elements of two kinds",
    """A set holds addresses, ports or MAC addresses, never two of them, and so does a list file.
    The kind of the first element is the kind of the list.""",
)
# --- parameters -----------------------------------------------------------------------------

_error(
    "unknown-parameter",
    "a parameter that nothing declares",
    """`$NAME` stands for the value of a parameter, which `param NAME = VALUE` declares, or `param
    NAME` where the value has to come from outside. The declaration stands before the use, in the
    order in which the files are read. `-D NAME=VALUE` sets what the policy declares, and nothing
    else.""",
)
_error(
    "parameter-unset",
    "a parameter without a value",
    """`param NAME` alone declares a parameter that whoever compiles the policy sets by
    `-D NAME=VALUE`. It was not set.""",
)
_error(
    "duplicate-parameter",
    "a parameter is declared twice",
    """A parameter is declared once, in one of the files. To change its value, set it from outside
    by `-D NAME=VALUE`.""",
)
_error(
    "bad-parameter",
    "a value from outside that cannot be one",
    """What stands behind `-D NAME=` is a name, a number, a range, an address, a prefix, a MAC
    address, a time or a string in double quotes, or several of them between commas. It takes the
    place of `$NAME` as it is; words of the language, braces and comments cannot stand in it, so
    that no value changes what the statements around it are.""",
)
# --- names ----------------------------------------------------------------------------------

_error(
    "bad-name",
    "a name that cannot be one",
    """
    What a policy declares is called by letters, digits, `_` and `-`, starting with a
    letter. Names end up in the names of chains and sets, where nothing else is safe.
    """,
)
_error(
    "duplicate-name",
    "one name for two things",
    """
    Zones, sets, services and groups of rules share one name space, so that a name means
    the same wherever it stands. The second label shows the first declaration.
    """,
)
_warning(
    "shadows-catalogue",
    "a built-in service or group of addresses is defined anew",
    """
    The policy declares a service or a set by a name that the catalogue has as well. The policy
    wins, everywhere in the policy; choose another name if both are wanted.
    """,
)
_error(
    "wrong-kind",
    "a name of the wrong kind",
    """
    The name is declared, but as something that cannot stand here: a set of ports where
    addresses are expected, a zone where a service is.
    """,
)
_error(
    "unknown-name",
    "a name that nothing declares",
    """
    No zone or set of this name is declared in the policy or in a file that it includes.
    """,
)
_error(
    "which-host",
    "a policy of several hosts, and none is chosen",
    """A policy that declares hosts means something else on each of them, and `self` is another
    machine. `--host NAME` says which one is meant; `compile --all-hosts -o DIR` compiles for all of
    them, and `check`, `lint`, `test`, `query`, `trace`, `diff` and `verify` look at all of them
    where none is named. What is in force somewhere is what one of them does.""",
)
_error(
    "no-such-host",
    "no host of that name",
    """`--host` names a host that neither the policy nor an `--inventory` declares, or every host
    is meant and there is none.""",
)
_error(
    "host-address",
    "more than one address where a host has one",
    """A host is known by single addresses, as others see them: `host web1 { address 10.0.2.10,
    2001:db8::10 }`. Networks stand in zones.""",
)
_error(
    "host-without-address",
    "a host without an address as an end",
    """The name of a host stands for its addresses wherever a rule or a set names it. A host without
    any can have zones and rules of its own (`on HOST { … }`), and nobody else can name it.""",
)
_warning(
    "block-for-nobody",
    "a block that is for no host",
    """What stands behind `on` leaves no host: `except` takes all of them away, or a set of hosts is
    empty. Empty means none: what the block says holds nowhere.""",
)
_error(
    "zone-elsewhere",
    "a zone of another host in a rule that holds here, too",
    """A zone that is written in a host is known to that host. On other hosts it means its networks;
    where it has none, and is told by an interface alone, nobody else can tell who is in it. A rule
    that names such a zone and is about other hosts as well would lose that condition there, so it
    is refused: say it `on HOST { … }`, where the zone is.""",
)
_error(
    "unknown-zone",
    "no such zone",
    """
    After `in` stands the name of a zone, and none of this name is declared.
    """,
)
_error(
    "unknown-service",
    "no such service",
    """
    The name is neither a service of the policy nor one of the catalogue. Ports can be
    written as they are (`tcp 8443`), and services can be declared: `service backup {
    tcp 8730 }`.
    """,
)
_error(
    "unknown-rules",
    "no such group of rules",
    """
    `use` names a group that `rules NAME { … }` declares, and none of this name is
    declared.
    """,
)
_error(
    "unknown-helper",
    "no such conntrack helper",
    """
    `helper` names one of the conntrack helpers of the Linux kernel. A protocol without
    a helper needs its ports allowed.
    """,
)
_error(
    "unknown-protocol",
    "no such IP protocol",
    """
    `protocol` takes the name of an IP protocol (as `gre` or `esp`) or its number, 0 to
    255.
    """,
)
_error(
    "unknown-icmp-type",
    "no such ICMP type",
    """
    `icmp` and `icmpv6` take the name of a type (as `echo-request`) or its number, 0 to
    255. The two protocols have types of their own.
    """,
)
_error(
    "set-cycle",
    "a set that contains itself",
    """
    A set names itself, directly or by way of other sets, so that it has no value.
    """,
)
_error(
    "service-cycle",
    "a service that contains itself",
    """
    A group of services names itself, directly or by way of other groups.
    """,
)
_error(
    "rules-cycle",
    "a group of rules that uses itself",
    """
    A group of rules uses itself, directly or by way of other groups, so that it has no
    end.
    """,
)

# --- values ---------------------------------------------------------------------------------

_error(
    "bad-address",
    "not an address",
    """
    An address is IPv4 or IPv6, alone, with a prefix length (`192.0.2.0/24`) or as a
    range of two of one family (`192.0.2.10-192.0.2.20`).
    """,
)
_warning(
    "host-bits",
    "a prefix with host bits",
    """
    The address has bits set beyond its prefix length. The network that holds it is
    meant; to mean the one host, write it without a length.
    """,
)
_error(
    "bad-port",
    "not a port",
    """
    Ports are numbers from 0 to 65535.
    """,
)
_error(
    "bad-range",
    "a range that ends before it starts",
    """
    A range is written from its lowest to its highest value.
    """,
)
_error(
    "bad-interface",
    "not the name of an interface",
    """
    Interface names have at most 15 bytes, no white space and no `/`. A `*` may stand at
    the end and means every name that starts so.
    """,
)
_error(
    "mixed-set",
    "a set of two kinds",
    """
    A set holds elements of one kind: addresses (of both families), ports or MAC addresses.
    Use a set for each.
    """,
)
_warning(
    "empty-set",
    "a set without elements",
    """
    Empty means none: what names the set matches nothing, never everything. An `except`
    may have taken all elements away, or a list file may be empty.
    """,
)
_warning(
    "empty-service",
    "a service without content",
    """
    Empty means none: a rule that names the service matches nothing.
    """,
)
_error(
    "empty-zone",
    "a zone that says nothing",
    """
    A zone is packets on its interfaces, with addresses of its networks. One that names
    neither would be everything, which is written `any`.
    """,
)
_error(
    "dynamic-set",
    "a set that changes at run time as a part of something else",
    """
    What a dynamic set or a list from elsewhere (`resolve`, `url`) holds is known at run time
    alone, so nothing can be computed from it: neither another set nor a zone's networks. Rules
    name it as an end (`from banned`, `from any except banned`), and `add source to banned`
    fills a dynamic one.
    """,
)
_error(
    "bad-source",
    "no place where a list can come from",
    """
    `set cdn = resolve "cdn.example"` takes names of hosts, `set drop = url "https://…"` URLs of
    https and http. Both are asked by `policylang refresh`, not when a policy is compiled. What is
    known beforehand is written out or read from a file of this machine with `file`.
    """,
)
_warning(
    "plain-http",
    "a list that comes unprotected",
    """
    Over plain http, whoever is on the way can put addresses into the list or keep some out, and
    with it into the rules. With https the server's certificate is checked.
    """,
)
_error(
    "not-locked",
    "addresses from elsewhere that were never asked for",
    """
    A policy compiles to the same on every machine and without a network: what names and URLs
    stand for is read in the lock file beside it, `web.policy.lock`, which `policylang refresh
    web.policy` writes. Keep it with the policy.
    """,
)
_error(
    "damaged-lock",
    "a lock file that cannot be read",
    """
    The lock file is JSON that `policylang refresh` writes. A merge of two versions may have left
    marks in it, or a hand a mistake. Nothing of a damaged one is used: put back an earlier version
    or delete it and run `policylang refresh`.
    """,
)
_error(
    "not-dynamic",
    "an address is put into a set that is written out",
    """
    `add source to SET` puts addresses into a set at run time, so the set must be declared for
    that: `set banned = dynamic timeout 1h`. What a set that is written out holds is settled
    when the policy is compiled.
    """,
)
_error(
    "bad-suffix",
    "not the end of an IPv6 address",
    """
    `::10/-64` is every IPv6 address that ends in `::10`, whatever its first 64 bits are: a
    machine behind a prefix that the provider changes. The number behind `/-` is from 1 to 127,
    no bit is set among those that do not matter, and it stands as an end of a rule alone.
    """,
)
_error(
    "bad-duration",
    "a time for which no set keeps an element",
    """
    A duration is numbers with units, `s`, `m`, `h`, `d` and `w`, without blanks: `90s`,
    `1h30m`. Sets of the kernel keep elements for at most 2147483 seconds, which is 24 days, or,
    without a time, for ever.
    """,
)
_error(
    "bad-size",
    "a size out of bounds",
    """
    A dynamic set holds from 1 to 16777216 elements. The size of a packet, the IP header
    included, is from 0 to 65535 bytes.
    """,
)
_error(
    "bad-rate",
    "a rate out of bounds",
    """
    Both targets count at most 10000 a unit, and a burst of at least one.
    """,
)
_error(
    "bad-prefix",
    "a prefix length that no address has",
    """
    `per source/24` counts each network of that length for itself. A length from 1 to 32 is for
    IPv4, where IPv6 goes by its /64 networks; one from 33 to 128 is for IPv6, where IPv4 goes by
    the address.
    """,
)
_error(
    "bad-count",
    "a number of connections out of bounds",
    """
    `max N connections` and `over N connections` take from 1 to 1000000. No connection at all is
    what `deny` says.
    """,
)
_error(
    "bad-owner",
    "not a user or a group of the system",
    """
    `user` and `group` take names as the system has them (letters, digits, `_`, `-` and dots, at
    most 32 of them) and numbers up to 4294967294. The machine that loads the rules looks names
    up; whether they exist there is found out then.
    """,
)
_error(
    "bad-cgroup",
    "not the path of a control group",
    """
    `cgroup` takes the path of a control group below the mount of version 2, /sys/fs/cgroup:
    `cgroup "system.slice/nginx.service"`. It has no `.` or `..` in it, nor characters that the
    rulesets give a meaning.
    """,
)
_error(
    "bad-time",
    "not a time of the day",
    """
    `during` takes hours and minutes, without blanks: `during 08:00-18:00`. They go from
    00:00 to 23:59, with 24:00 as an end. A window whose end comes before its start spans
    midnight; one that ends when it starts would be no time or all of it, so it is refused.
    """,
)
_error(
    "bad-day",
    "not a day of the week",
    """
    Days are `mon`, `tue`, `wed`, `thu`, `fri`, `sat` and `sun`, ranges of them (`mon-fri`,
    `fri-mon`) and lists.
    """,
)
_error(
    "bad-date",
    "not a day of the calendar",
    """
    `until` takes year, month and day with hyphens: `until 2027-01-31`. The rule holds to the end
    of that day.
    """,
)
_warning(
    "local-time",
    "hours in local time",
    """
    The kernel knows UTC alone. With `settings { time local }` the machine that loads the rules
    turns hours into UTC by the offset that holds at that moment; when daylight saving time
    starts or ends, they are an hour off until the policy is loaded again.
    """,
)
_error(
    "bad-mark",
    "a packet mark that no packet has",
    """
    A mark is 32 bits; `mark 0x10/0xff` looks at those of the mask alone. A value with bits
    outside of its mask matches no packet, and a mask of 0 matches all. `mark … answers` leaves
    the mark at the connection for its answers to find, where 0 is what every connection has.
    """,
)
_error(
    "bad-dscp",
    "not a DSCP code point",
    """
    `dscp` takes the names of the registry (`ef`, `cs0` to `cs7`, `af11` to `af43`, `be`, `le`,
    `va`) and numbers from 0 to 63.
    """,
)
_error(
    "bad-native",
    "a line that is not one rule of a target's chain",
    """
    `native nft input "LINE"` puts a line of the target's own language among the rules: for nft
    into `input`, `forward` or `output`, for iptables into `INPUT`, `FORWARD` or `OUTPUT`. It is
    one rule: it is not empty, it cannot end the chain that it stands in, and the target checks
    what it says.
    """,
)
_error(
    "bad-text",
    "a text that cannot be written into a ruleset",
    """
    Names and log prefixes are copied into the ruleset. Neither target has a way to
    escape control characters, quotes and backslashes, or a `$` in a log prefix, so such
    texts are refused and not altered.
    """,
)
_error(
    "bad-log",
    "a log option that does not hold",
    """
    A log line has a level of syslog or goes to a netlink group from 0 to 65535, not
    both.
    """,
)

# --- rules ----------------------------------------------------------------------------------

_error(
    "missing-end",
    "a rule with an end unsaid",
    """
    Every rule says both ends, so that nothing is opened by silence: `inbound` (to this
    host), `outbound` (from it), or `from X to Y`. A block around the rule may say an
    end for it. What translates or treats packets says both as well.
    """,
)
_error(
    "bad-answer",
    "an answer that does not fit",
    """
    `reject` answers TCP with one answer and the rest with another, chosen by `with`;
    `allow` and `deny` send none.
    """,
)
_error(
    "duplicate-option",
    "the same option twice",
    """
    Each option stands at most once on a statement; the first would be lost.
    """,
)
_error(
    "duplicate-condition",
    "the same condition twice",
    """
    Each condition stands at most once on a rule; several values of one are a list: `user alice,
    bob`. Two rates on one kind of traffic are two rules.
    """,
)
_error(
    "misplaced-condition",
    "a condition that no packet on the rule's way can meet",
    """
    The user, the group and the control group of a process are known where this host itself
    sends: `outbound`, or `from self`. A sender's MAC address, and whether IPsec protected a
    packet, are known where it arrives. Rates and numbers of connections belong to rules that
    allow, deny or reject; a statement that translates or marks has none. What holds in both
    directions (`netmap`, `clamp mss`, `offload`, `untracked`) takes no condition on one of them.
    """,
)
_error(
    "misplaced-option",
    "an option where it has no meaning",
    """
    `also established` makes a rule that denies or rejects hold for connections that are open
    already. Where a rule allows, they pass anyway; a default decides on new connections alone;
    and what counts new connections (`limit`, `max`, `over`) says nothing of those that are open.
    `add` belongs to rules, `log` to rules and translations, `answers` to marks that are no
    code points.
    """,
)
_error(
    "duplicate-test",
    "two tests of one name",
    """
    Tests are told apart by their names: in what `policylang test` prints, and by `--name`.
    """,
)
_error(
    "expectation-failed",
    "an expectation does not hold",
    """
    What a test expects is proved for every packet that it describes, or with `some` for one at
    least. The message shows a packet for which it is not so, and what decided. Packets are the
    first ones of connections, as honest senders send them, and each comes alone: rates are kept
    to. What passes at some times only is neither allowed nor denied for certain. An expectation
    that describes no packet at all does not hold either, for it would prove nothing.
    """,
)
_error(
    "no-such-test",
    "no test of that name",
    """
    `policylang test --name` names a test, or several by a pattern in which `*` stands for anything.
    """,
)
_error(
    "bad-trace",
    "words from which no conversation can be told",
    """
    `policylang trace` takes words like those of a rule: a service or ports, behind a service how it
    goes (`ftp passive`), and the ends. `interface NAME` says by which interface the first packet
    comes. Of a single packet (`packet tcp 22 inbound`) there may be `flags syn,ack` and a
    `state`.
    """,
)
_error(
    "nothing-asked",
    "nothing is asked",
    """
    `policylang why` explains what it is given: a rule as nft or iptables lists it, a line of the
    log, an address, a set, or the file and line of a statement.
    """,
)
_error(
    "unreadable-rules",
    "rules that cannot be read",
    """
    Rules of any origin are read as `nft -j list ruleset`, `iptables-save` and `ip6tables-save`
    write them. What is cut off or damaged is refused as a whole: part of a firewall would be
    another firewall. A single rule that is not understood is no error; what is said then takes
    into account that it may do anything.
    """,
)
_error(
    "no-such-revision",
    "git has no such file or revision",
    """
    `REV:FILE` is a file in a revision, as in `git show`: a commit, a branch, a tag. The path
    counts from the top of the repository, or with `./` in front from the current folder. With
    `--rev A..B` it is a path of the current folder.
    """,
)
_error(
    "git-failed",
    "git cannot be asked",
    """
    To read a policy as it was, git lays the revision out in a temporary folder. The help line has
    what git said; neither the working tree nor the index is touched.
    """,
)
_error(
    "too-large",
    "rules that make too many different packets",
    """
    Sets of packets are held exactly, and there is a limit to the memory that they may take.
    Rules that overlap in many fields at once, each in another way, can go beyond it. Nothing is
    guessed then.
    """,
)
_error(
    "bad-session",
    "a session that cannot be played",
    """
    `expect session SERVICE` plays a whole conversation: of a service that opens one connection, or
    of one whose conntrack helper is followed packet by packet. FTP is `active` or `passive`, by
    which end opens the data connection; TFTP may be said to `read` or `write`, SIP to go over `udp`
    or `tcp`; the others have no modes.
    """,
)
_error(
    "duplicate-default",
    "two defaults for one direction",
    """
    Each direction has one default; the second would be lost.
    """,
)
_error(
    "duplicate-setting",
    "the same setting twice",
    """
    Each setting is given at most once; the second would be lost.
    """,
)
_error(
    "stray-number",
    "a number without a protocol",
    """
    Ports belong to a protocol: `tcp 8443`, `udp 60000-61000`. After it, numbers, ranges
    and sets of ports go on with its list.
    """,
)
_error(
    "wrong-end",
    "an end that a statement cannot have",
    """
    `dnat … at` names where a client means to go: addresses, sets, zones or `any`. `tproxy` takes
    what other machines send to others. `masquerade` and `snat` are about what leaves this host,
    `offload` about what passes through it. `published` belongs to rules that allow, deny or
    reject.
    """,
)
_error(
    "bad-target",
    "addresses that nothing can be translated to",
    """
    `snat … as` takes one address or one range without gaps for each family; `dnat … to` a number
    of addresses, among which connections are shared out. A loopback address is neither: what
    comes from outside is not delivered there, and nothing comes back to it. A transparent proxy
    takes TCP and UDP.
    """,
)
_error(
    "bad-new-port",
    "a new port that does not fit",
    """
    One new port can take the place of any number of old ones; a range of new ports that of a
    range with as many. What has no ports gets none.
    """,
)
_error(
    "bad-netmap",
    "networks that do not stand for each other",
    """
    `netmap` lets each address of one network stand for one of another: both are prefixes of the
    same family and length.
    """,
)
_error(
    "bad-mss",
    "a segment size that no segment has",
    """
    `clamp mss … as` is the number of bytes of data that a TCP segment carries at most; without it,
    what the path takes. It is from 88 (what fits into 128 bytes of IPv4) to 65495.
    """,
)
_error(
    "bad-queue",
    "a queue that there is not",
    """
    Packets are handed to programs by queues numbered from 0 to 65535; a range of queues shares
    the connections out.
    """,
)
_error(
    "no-device",
    "offloading without interfaces",
    """
    Connections are offloaded between interfaces, which have to be known by name when the rules
    are loaded. So both ends are zones that name their interfaces, without a `*`.
    """,
)
_error(
    "misplaced-except",
    "an except that has no list of ports before it",
    """
    In what a rule speaks of, `except` takes ports away from the list before it. A
    service is excepted by a rule of its own, above.
    """,
)
_error(
    "self-in-zone",
    "this host in a zone",
    """
    A zone is made of other machines. This host is meant by `self`, `inbound`,
    `outbound` and `any` alone; its addresses are named by `inbound to ADDRESS`.
    """,
)
_error(
    "group-as-source",
    "an end that stands on the other side alone",
    """
    No packet comes from a broadcast or multicast address; they are destinations, and so is
    `published`, the ports that other programs translate. `ipsec` is how a packet came in, so it
    is a source.
    """,
)
_error(
    "helper-protocol",
    "a helper that does not follow the protocol",
    """
    A conntrack helper reads one protocol on the control connection. It applies to the
    ports before it in the service, which must all be of that protocol.
    """,
)
_error(
    "data-without-helper",
    "data without a helper",
    """
    `data` narrows the ports of the connections that a helper predicts, so it stands
    behind a helper.
    """,
)
_warning(
    "data-privileged",
    "predicted connections to ports below 1024",
    """
    A helper believes what the two sides say on the control connection. If it may open
    ports below 1024, a peer can have services reached that the policy does not name.
    """,
)
_warning(
    "service-note",
    "what to know of a service",
    """
    The service carries a note for whoever uses it, for example that encryption hides
    its data connections from every helper.
    """,
)
_warning(
    "helper-faces-any",
    "a helper with a record of faults faces anyone",
    """
    The helpers for H.323, IRC and PPTP parse much in the kernel and have had several
    vulnerabilities there. Let only those reach them who need it.
    """,
)
_warning(
    "helper-one-family",
    "a helper for one family alone",
    """
    The kernel has this helper for IPv4 alone. The statement covers IPv6 as well, but
    connections that belong to it are not predicted there.
    """,
)
_warning(
    "matches-nothing",
    "a rule that no packet can meet",
    """
    The ends and conditions of a statement exclude each other, or a set in it is empty.
    Absent means any, but empty means none: the statement is left out, never widened.
    """,
)

_warning(
    "bad-allow",
    "a comment that would silence a warning, and does not",
    """
    `# policylang: allow CODE reason` silences one warning of one place: at the end of a line what
    is told of that line, on a line of its own what is told of the next one. CODE is the word in
    brackets, and the reason is for whoever reads the policy next. Errors are not silenced.
    """,
)
_warning(
    "allow-unused",
    "a comment that silences nothing any more",
    """
    `policylang lint` found nothing of that code at that place, so the comment says what is no
    longer so.
    """,
)

# --- lints ----------------------------------------------------------------------------------

_warning(
    "unreachable",
    "a statement that no packet reaches",
    """
    Statements are read in the order in which they are written, and those above decide all packets
    that this one is about: one of them, or several together. That holds for every packet and every
    state, not for some that were tried.
    """,
)
_warning(
    "changes-nothing",
    "a statement without which every packet fares the same",
    """
    Packets reach the statement, but what follows decides the same for each of them: a later
    rule, several together, or the default. Nothing else comes of it either: no log, no element
    of a set, no helper (what its own counter would count is left aside). A rule that stands for
    clarity alone can say so: `# policylang: allow changes-nothing reason`.
    """,
)
_warning(
    "undone",
    "a statement that something on another stretch of the way undoes",
    """
    The statement is reached where it stands, and no connection gets as far: what `protect` keeps
    out, or a translation sends elsewhere, never comes to the rules; what the rules deny is
    translated in vain.
    """,
)
_warning(
    "wider-than-neighbours",
    "the whole world may do what others may do from some places alone",
    """
    The rule lets anyone reach a service by which machines are managed, or a database, while other
    rules about services of that kind name who may. Such services are seldom meant for everyone, and
    a forgotten `from` looks exactly like this.
    """,
)
_warning(
    "zones-overlap",
    "packets in two zones that are treated differently",
    """
    A zone is told by interfaces and networks, and some packets are in both zones. Rules that decide
    differently are about them by the one zone and by the other, so that the order of the rules
    alone decides. Often one zone lacks its interface, and whoever forges an address is in it.
    """,
)
_warning(
    "ipv6-open",
    "what is open over IPv6 and closed over IPv4",
    """
    Anyone in the world reaches a port over IPv6, and over IPv4 the same is not so. Usually a rule
    that closes it names IPv4 addresses (`0.0.0.0/0`), or only one of two rules was made for both.
    """,
)
_warning(
    "ipv4-open",
    "all of IPv4 where everybody is meant",
    """
    `0.0.0.0/0` is every IPv4 address and no IPv6 one; `any`, or no end at all, is both. A rule that
    is meant for IPv4 says `ipv4`.
    """,
)
_warning(
    "helper-faces-internet",
    "a conntrack helper reads what anyone on the Internet sends",
    """
    A helper believes what the two ends tell each other, and opens ports by it. Where anyone may be
    one of them, `data` keeps that to the ports which the service uses; helpers with a record of
    kernel faults are best for those alone who need them.
    """,
)
_warning(
    "answers-denied",
    "untracked traffic that nobody answers, for the answers are denied",
    """
    Of what conntrack leaves alone, answers belong to no connection, so that they do not pass by
    themselves. An `allow` rule is read for them as well, at its place; a default is not, and rules
    above may deny them. Here what asks passes, and no answer does.
    """,
)
_warning(
    "set-never-asked",
    "a dynamic set that is filled, and that no rule asks",
    """
    Rules put addresses into the set, and none is about who is in it: what is collected decides
    nothing. Often the `deny all from SET to any` of a ban is missing. A set that other programs
    read may say so: `# policylang: allow set-never-asked reason`.
    """,
)
_warning(
    "unused-declaration",
    "a declaration that nothing uses",
    """
    No statement names it, and the rules are the same without it.
    """,
)
_warning(
    "lint-limit",
    "not everything was looked at",
    """
    Some questions would take too long for a policy of this size: what is not told may be so
    nevertheless. All that is told holds.
    """,
)

_error(
    "mark-reads-mark",
    "a condition reads a mark that another statement sets anew",
    """
    Of `mark` statements that set the same bits, the first that matches decides; a statement with
    the condition `mark` or `dscp` reads what those above it have set, and nothing that those below
    it set. Where a statement sets what one above it reads, and both set the same bits, both cannot
    hold; nor can they where several such pairs form a circle.
    """,
)
_warning(
    "answers-untold",
    "a statement holds for one direction of its connections alone",
    """
    `queue`, and rules that allow what conntrack leaves alone (`untracked`), are about answers as
    well. What a condition says of the packets that ask (the sender's MAC address or process, a
    size, a mark) is not told of those that answer, and the condition is not left out: so answers
    are left to other rules, or are not handed on.
    """,
)
_warning(
    "needs-tracking",
    "something that needs conntrack meets traffic that conntrack leaves alone",
    """
    `untracked` traffic belongs to no connection. Helpers read nothing of it, it is neither
    translated nor counted among connections, and its answers have no mark of a connection to
    find. The statement holds for the rest of its traffic.
    """,
)
_warning(
    "offload-bypasses",
    "a statement about packets that are offloaded",
    """
    The packets of connections that are offloaded (`offload`) go past all rules once the connection
    is open: bans with `also established` do not end them, no mark and no code point is set on
    them, and no program reads them from a queue.
    """,
)
_error(
    "answers-without-udp",
    "answers from elsewhere, without a question",
    """
    `answers from any` is for services whose answers come from elsewhere than where the question
    went (mDNS, SSDP, DHCP). It applies to the UDP ports that stand before it in the service.
    """,
)
_error(
    "unknown-protection",
    "no such protection",
    """
    `protect from ZONE against` takes `spoofing`, `bogons`, `bad-flags`, `source-routing` and
    `syn-flood`.
    """,
)
_error(
    "duplicate-protection",
    "the same protection twice",
    """
    Each protection stands at most once in a statement; the second would be lost.
    """,
)
_error(
    "protect-from",
    "protection from something that is not a zone",
    """
    What `protect` keeps out is told by the interface or the network by which a packet came: it
    names zones, or `any`. To keep out single addresses, `deny` them.
    """,
)
_error(
    "too-many-tests",
    "too many dynamic sets and host suffixes in one policy",
    """
    Each dynamic set and each host suffix that rules name as an end is a question of its own
    to every packet, on top of all others; sixteen is the most. One dynamic set can serve several
    rules.
    """,
)
_error(
    "dialled-set",
    "a dynamic set or a host suffix as what a client dials",
    """
    `dnat` and `redirect` also allow what they translate, and that alone. The kernel keeps the
    address that the client dialled, but no rule can look it up in a dynamic set, or match its last
    bits, once the connection is translated: the new address would be open to more than the
    statement says. Name addresses, a zone, or a set that is written in the policy.
    """,
)
_error(
    "no-free-mark",
    "no bit of a mark is left for the policy itself",
    """
    Packets for a transparent proxy are routed to this host by a bit of their mark that nothing
    else in the policy sets or asks for. What published machines open for a helper (active FTP)
    is told by a bit of the connection's mark, which `mark … answers` sets, too. Here the marks of
    other statements have all 32 bits: one without a mask has.
    """,
)

# --- targets --------------------------------------------------------------------------------

_error(
    "unsupported",
    "what this target cannot do",
    """
    The target has no way to say what the statement asks for. Nothing is left out
    silently: choose the other target or say it otherwise.
    """,
)
_error(
    "log-prefix-too-long",
    "a log prefix that the target cuts",
    """
    Log prefixes have at most 127 bytes with nft, and 29 with iptables (63 with a
    group). A longer one would be cut or refused when it is loaded.
    """,
)

# --- loading --------------------------------------------------------------------------------
_error(
    "changed-meanwhile",
    "what is in force changed after the plan was made",
    """Between the plan and the load something changed our rules: another apply, or another
    program. Nothing was loaded, as the plan that was agreed to is no longer what would happen. Run
    it again to see what would change now.""",
)
_error(
    "not-yet-confirmed",
    "another change still waits to be confirmed",
    """A change that was applied with `--confirm` is in force, and will be taken back when its time
    is over. `policylang confirm` keeps it and `policylang rollback` ends it; then another one can
    be applied.""",
)
_error(
    "nothing-to-confirm",
    "there is no change that waits to be confirmed",
    """Nothing was applied with `--confirm` here, or it was confirmed or taken back already.
    `policylang status` says what is in force; `--netns` says where to look.""",
)
_error(
    "not-as-rehearsed",
    "what is loaded is not what was loaded in the rehearsal",
    """After each load what is in force is listed, and compared with what the same artifact was in
    a scratch network namespace. They differ, so another program changes these rules at the same
    time, or the kernel does not do what it says. What was in force before was loaded again.""",
)
_error(
    "not-as-meant",
    "what would be loaded does not do what the policy says",
    """Before anything is loaded, the rules are loaded in a scratch network namespace; what the
    kernel lists there is read back, and followed from all packets at once beside the policy's
    own rules. The message shows a packet to which something else would happen. This is a
    mistake in policylang or in the target's tools, never in the policy: nothing is loaded.""",
)
_error(
    "not-proved",
    "what would be loaded cannot be compared with the policy",
    """What the kernel lists in the rehearsal has something that the proof does not understand, or
    cannot be read at all. As nobody could say then what it does, nothing is loaded. Lines of a
    target's own language are not the reason: where they stand is proved, and what they say is
    taken as it is.""",
)
_warning(
    "unproved",
    "too much to be proved",
    """The proof that the rules do what the policy says follows all packets at once, and gives up
    where they fall into too many kinds for the memory that it may take. The kernel took the rules,
    so `apply` loads them nevertheless; `verify` ends with 2.""",
)
_error(
    "nobody-to-ask",
    "there is a question, and nobody to answer it",
    """What changes is shown and asked about on a terminal. Standard input is none (or the policy
    itself comes by it), so programs and pipes say `--yes`.""",
)
_warning(
    "recovered",
    "an apply was broken off, and is completed or taken back",
    """A policylang before this one was killed, or the machine lost power, amidst a change. Each
    step is written down before it is taken; so the change was completed now, or taken back, and
    the message says which generation is in force.""",
)
_warning(
    "swept",
    "another program removed a change that waited to be confirmed",
    """While a change waited to be confirmed, its rules went without a word of ours: `nft flush
    ruleset` takes everything away, also what was in force before. Nothing is loaded by itself
    then: `policylang status` says what is in force, `policylang rollback` loads what was.""",
)
_warning(
    "not-confirmed",
    "a change was taken back as nobody confirmed it",
    """A change was applied with `--confirm`, and its time was over before `policylang confirm` was
    run. The kernel itself took it back at that moment; what it left is cleared away now. The
    generation is kept: `policylang rollback NUMBER` loads it again.""",
)
_error(
    "refused-by-kernel",
    "the kernel or its program refuses what a statement compiles to",
    """The policy compiled, but nft, iptables-restore, ipset or the kernel behind them did not
    take the result: the kernel lacks the part that the statement needs (a conntrack helper, a
    match), or is too old for it. Everything is loaded in a scratch network namespace first, so
    the rules that were in force are still in force. The help line holds the program's own
    words.""",
)
_error(
    "no-such-namespace",
    "there is no network namespace of that name",
    """`--netns NAME` loads into the network namespace that `ip netns add NAME` made (a file in
    /run/netns); a value with a slash is taken for the path of a namespace, such as
    /proc/4242/ns/net. `ip netns list` shows the names.""",
)
_error(
    "not-permitted",
    "loading rules needs root",
    """Only a process with CAP_NET_ADMIN and CAP_SYS_ADMIN may make a scratch namespace, enter
    another one and load rules, or read and change dynamic sets. Run `policylang apply` and
    `policylang set` as root; `policylang compile` and `policylang check` need no rights.""",
)
_error(
    "program-missing",
    "a program that loads rules is not installed",
    """The nft target needs libnftables with its Python module or the `nft` program, the
    iptables target `iptables-restore` and `ip6tables-restore`, and `ipset` where the rules use
    sets. The help line names the Debian package. `policylang compile` needs none of them.""",
)
_error(
    "loading-failed",
    "a program that loads rules did not do its work",
    """The program crashed, took too long, or could not read what is loaded now. It says nothing
    about the policy; the help line holds what the program said.""",
)
_error(
    "lock-held",
    "another program holds a lock",
    """Programs that change iptables rules take turns by a lock (/run/xtables.lock, or
    XTABLES_LOCKFILE), and so do `policylang apply` and `policylang set` in one network
    namespace. Something else held it for too long; nothing was loaded or changed.""",
)
_error(
    "cannot-keep",
    "what is applied cannot be written down",
    """Whatever is loaded is kept first, in /var/lib/policylang (or POLICYLANG_STATE): its rules,
    the policy's text, who applied it and when. So it can be loaded again, and a command that was
    broken off can be completed. That folder cannot be written to, or its disk is full; nothing
    was changed.""",
)
_error(
    "no-such-generation",
    "there is no generation of that number",
    """Each apply keeps what it loads as a generation, under a number. The last twenty are kept, and
    those that are in force or loaded at boot. `policylang status` shows them.""",
)
_error(
    "damaged-generation",
    "a kept generation cannot be used",
    """Each kept generation tells by checksums whether it is exactly what was written. This one is
    not: the disk lost something of it, somebody changed it, or a later version of policylang
    wrote it. It is not loaded, in whole or in part; use another one, or apply the policy again.""",
)
_warning(
    "generation-left-out",
    "a kept generation is damaged and left out",
    """Each kept generation tells by checksums whether it is exactly what was written. This one is
    not, so it is as if it was not there: the one before it is used. Its folder can be deleted.""",
)
_error(
    "damaged-state",
    "what is in force is not known",
    """The file state.json in /var/lib/policylang tells which generation is in force, which is not
    confirmed, and what was broken off halfway. It cannot be read, or is not what was written.
    Nothing is taken for granted then, and nothing is changed until it is moved away.""",
)
_error(
    "not-saved-for-boot",
    "a generation is in force that a boot will not load",
    """The rules are in force, but the place from which the service loads them at boot, or the files
    in /etc that go with them, could not be written: after a reboot, what was confirmed before
    is loaded. The help line says what could not be written.""",
)
_warning(
    "operator-shut-out",
    "whoever applies the policy over SSH could not come in again",
    """The policy denies a new connection from where your own SSH connection comes from to the port
    that it goes to, or may deny it: an address set or a mark decides. The connection that is open
    goes on, unless open connections are cut, but once it is lost there is no way back.
    `apply --confirm 60s` takes an unconfirmed change back by itself.""",
)
_error(
    "panic-in-tunnel",
    "closing everything would close the tunnel that SSH comes through",
    """`policylang panic` leaves nothing open but SSH from where you are. Your connection comes
    through a tunnel, whose packets between its two ends are no SSH and would be dropped: you
    would be shut out. Nothing was changed.""",
)
_error(
    "flows-unknown",
    "which connections are open cannot be read",
    """With `on-reload cut`, or `apply --flows cut`, connections end that the new policy lets no
    packet begin. The kernel was asked which are open and did not say: it has no connection
    tracking, or it refused to answer. The rules are not touched by this; what is open stays
    open.""",
)
_error(
    "flows-not-cut",
    "connections that are to end could not be ended",
    """With `on-reload cut`, or `apply --flows cut`, connections end that the new policy lets no
    packet begin. The kernel refused to forget them, or the setting could not be changed by which
    it takes up connections again in their midst. The new rules are in force for everything that
    begins from now on; what was open may go on.""",
)
_warning(
    "nothing-confirmed",
    "the service is installed, and there is nothing that it could load",
    """`policylang install-service` lets a boot load what was confirmed last: what `policylang
    apply` loaded with `--yes`, or `policylang confirm` kept. Nothing was yet, so a boot loads
    nothing, and closes nothing either. From the first confirmation on, a boot that cannot load
    what was confirmed closes the machine.""",
)
_error(
    "cannot-arm",
    "nothing here would take a change back that nobody confirms",
    """A change that is not confirmed in time is taken back by the kernel alone: elements of sets
    that time out choose between the old rules and the new ones. For iptables that takes the program
    `ipset`, and ipsets of type `list:set` and the match `set` in the kernel; one of these is
    missing. A change of the target, or of iptables' flavour, cannot be taken back in this way
    either. Nothing was changed; `policylang apply --yes` loads without the safety.""",
)
_error(
    "too-late",
    "what was to be confirmed is no longer in force",
    """A change that is not confirmed in time is taken back by the kernel, and that has happened:
    what was in force before is in force again. Apply the policy anew, and confirm it sooner or
    give it more time.""",
)
_error(
    "not-restored",
    "a load failed halfway, and what was there before could not be put back",
    """iptables has no transaction over both families and all tables. When a later part fails,
    what was loaded of the new rules is replaced by the old ones again; here that failed too,
    so IPv4 and IPv6, or two tables, may follow different policies. Mend what the other message
    says and apply again, or look at `iptables-save` and `ip6tables-save`.""",
)
_warning(
    "left-behind",
    "something of an earlier apply could not be removed",
    """The new rules are in force. Something that an earlier `policylang apply` had loaded (rules
    of the other target, or ipsets that nothing uses any more) is still there. Rules of two
    targets hold both: a packet passes only where both let it pass.""",
)
_error(
    "module-missing",
    "a kernel module that a statement relies on cannot be loaded",
    """A rule with a conntrack helper (`ftp`, `sip`, ...) relies on the helper's module, and where
    the policy translates addresses on its NAT part. `policylang apply` loads them by `modprobe`
    before the rules; this one is not there, or may not be loaded. Nothing was applied. Some
    distributions have such modules in a package of their own (linux-modules-extra,
    kernel-modules-extra); in a container they are loaded outside it.""",
)
_error(
    "helper-missing",
    "the kernel lacks a conntrack helper that a statement relies on",
    """The rules were tried in a scratch namespace, and this kernel takes none with that helper: it
    was built without it (CONFIG_NF_CONNTRACK_FTP and the like), or its module is not loaded and
    cannot be loaded from here, as in a container. Nothing was applied. Load the module
    (`modprobe nf_conntrack_ftp`) on the host, or allow the ports of the connections by
    themselves, with a service of your own that has no helper.""",
)
_error(
    "not-forwarding",
    "forwarding could not be switched on",
    """The policy lets packets through this host, which the kernel forwards only where the sysctl
    `net.ipv4.ip_forward` or `net.ipv6.conf.all.forwarding` is 1. `policylang apply` switches it
    on after the rules are in force; here it could not be written, as in a container whose /proc
    is read-only. The rules are in force and nothing is forwarded until it is switched on from
    where that is possible.""",
)
_warning(
    "advertisements-ignored",
    "a default route was lost because IPv6 forwarding was switched on",
    """A host that forwards IPv6 is a router, and Linux then no longer listens to other routers: it
    forgets the default route that it was told, unless `accept_ra` of the interface is 2. Set
    that (for good by a file in /etc/sysctl.d), or give the host a default route of its own.""",
)
_error(
    "no-proxy-route",
    "the route to the transparent proxy could not be laid",
    """Packets for a transparent proxy (`tproxy`) are marked, and a routing rule takes marked
    packets to a routing table in which every address is this host's. The rules are in force, but
    the kernel or `ip` refused that rule or that table's route, so the proxy gets nothing. The
    help line holds what it said; it needs loopback up, and a kernel with policy routing.""",
)
_warning(
    "foreign-route",
    "another program has a routing rule or table where the one for the proxy is",
    """`policylang apply` routes packets for a transparent proxy by a rule of priority 700 that
    leads to the routing table 28780, and leaves alone what others have there. If what they have
    takes the proxy's packets first, the proxy gets nothing.""",
)
_warning(
    "published-ports",
    "a statement about this host does not hold for ports of containers",
    """Docker and Podman forward the ports that they publish: packets to them are translated before
    they are sorted into those for this host and those for others, and are forwarded. Rules
    about `self` (`inbound`) do not meet them, neither those that allow nor those that deny; the
    rules from one zone to another do, and `default forward`: where none of these lets packets
    out by an interface that no zone names, nobody reaches such a port. To govern them by the port
    and address that the client dialled, say so: `allow http from wan to published`, `deny all from
    wan to published`.""",
)
_error(
    "no-such-set",
    "no dynamic set of that name is loaded",
    """`policylang set` works on the dynamic sets that `policylang apply` has loaded into this
    network namespace (or that of `--netns`), whichever target it was for. Only a set that the
    policy declares as `dynamic` can be changed while it is in force; `policylang set list` shows
    which there are.""",
)
_error(
    "bad-element",
    "not an address that a dynamic set can hold",
    """A dynamic set holds single addresses, IPv4 and IPv6: no prefixes, no ranges, no names. What
    is to hold for a whole network stands in the policy, in a `set` of its own.""",
)
_error(
    "no-such-element",
    "an address to be deleted is not in the set",
    """`policylang set delete` deletes all the addresses that it is given or none of them. This
    one is not in the set: it was never put there, its time is over, or it was deleted before.""",
)
_error(
    "set-full",
    "a dynamic set has no room for more addresses",
    """A dynamic set holds as many addresses of each family as its declaration says (`dynamic size
    65535`). Nothing was added. Addresses leave when their time is over, by `policylang set delete`
    and by `policylang set flush`; a larger `size` in the policy takes effect when it is
    applied, and the set keeps what is in it.""",
)
_warning(
    "source-failed",
    "a source of addresses gave none",
    """
    A name or a URL could not be asked, answered with an error, with what is no list of addresses,
    or with none at all. What the lock file had of it stays, in the kernel too, and the other
    sources are refreshed. The exit status is 1.
    """,
)
_error(
    "bad-params",
    "a line of a parameters file gives no parameter a value",
    """Beside `web.policy`, `web.params` may give its parameters values, for `policylang golden`: a
    line `NAME = VALUE` for each, once, with the value as behind `-D NAME=`. A `#` starts a
    comment.""",
)
_error(
    "bad-targets",
    "a file names no target that a policy could be for",
    """Beside `web.policy`, `web.targets` may name the targets that it is for, with commas or line
    ends between, so that `policylang golden` and `policylang review` leave out those that it is not
    for. Without the file it is for all of them. A `#` starts a comment.""",
)
_error(
    "no-policies",
    "a folder without policies",
    """What `policylang golden` keeps beside policies is what files `*.policy` compile to, in the
    folder and below. There is none, so the folder is probably another one than was meant.""",
)
_error(
    "golden-differs",
    "what is kept is not what the policy compiles to",
    """What a policy compiles to is kept beside it, in a folder `NAME.golden`, so that a review
    shows which rules a change makes. The policy, or what compiles it, changed since. `policylang
    golden --update` rewrites what is kept; read the difference before you commit it.""",
)
_error(
    "cannot-write",
    "the output could not be written",
    """The policy compiled, but the file or folder that `--output` names could not be written.
    Files are written aside and moved into place at the end, so what stood there before is
    unchanged.""",
)
