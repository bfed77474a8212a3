"""Sets whose addresses come from elsewhere: names that are resolved, lists that are loaded.

What they hold is read in the lock file beside the policy, which `policylang refresh` writes. So a
policy compiles to the same on every machine, without a network.
"""

from __future__ import annotations

import re

from policylang.diagnostics import Report
from policylang.model.durations import duration_s
from policylang.model.types import ListedSet
from policylang.packets.values import Ranges, parse_address
from policylang.syntax import tree
from policylang.syntax.wording import quoted

RESOLVE, URL = "resolve", "url"
REFRESH_S = {RESOLVE: 3600, URL: 86_400}  # where the policy does not say

MOST_REFRESH_S = 366 * 86_400

MOST_NAME = 64  # as of dynamic sets: the set is called by it at run time
NAME_LETTERS, LABEL_LETTERS = 253, 63  # RFC 1035 section 2.3.4
_URL = re.compile(
    r"(?P<scheme>[A-Za-z]+)://(?P<user>[^/?#@]*@)?(?P<host>\[[0-9A-Fa-f:.]+\]|[^/?#@:\[\]]*)"
    r"(?::(?P<port>[0-9]{1,5}))?(?:[/?#].*)?"
)
_LABEL = re.compile(r"[A-Za-z0-9_](?:[A-Za-z0-9_-]*[A-Za-z0-9_])?")


def listed_set(
    declaration: tree.SetDecl,
    node: tree.ListedNode,
    locked: tree.LockedAddresses | None,
    report: Report,
) -> ListedSet:
    """A declared set with what the lock file has of its sources, or, without one, nothing.

    Reports `bad-source`, `plain-http`, `not-locked`, `empty-set` and `bad-duration`.
    """
    name = declaration.name
    if len(name.text) > MOST_NAME:
        report.add(
            "bad-name",
            f"the name of a list from elsewhere has at most {MOST_NAME} characters, not "
            f"`{len(name.text)}`",
            name.span,
            help="sets are called by it at run time",
        )
    found = Ranges()
    is_known = locked is not None
    for source in node.sources:
        if not _is_source(node.kind, source, report):
            is_known = False
        elif locked is not None:
            addresses = _locked(node, source, locked, report)
            is_known &= addresses is not None
            found |= addresses or Ranges()
    if is_known and not found:
        report.add(
            "empty-set",
            f"set `{name.text}` is empty: what names it matches nothing",
            name.span,
            help="the lock file holds no address of it",
        )
    sources = tuple(dict.fromkeys(map(node.key, node.sources)))
    return ListedSet(name.text, sources, _refresh_s(node, report), found, declaration.span)


def _locked(
    node: tree.ListedNode, source: tree.Text, locked: tree.LockedAddresses, report: Report
) -> Ranges | None:
    """What the lock file has of a source; reports where it has nothing."""
    addresses = locked.of.get(node.key(source))
    if addresses is None:
        report.add(
            "not-locked",
            f"the lock file has no addresses of {quoted(source.text)} yet",
            source.span,
            help=f"run `policylang refresh {locked.policy}`"
            if locked.policy is not None
            else "save the policy as a file: `policylang refresh FILE` writes the lock file beside "
            "it",
        )
    return addresses


def _is_source(kind: str, source: tree.Text, report: Report) -> bool:
    """Whether a text can be asked for; reports `bad-source`, and `plain-http` of one that can."""
    problem, help_ = _name_problem(source.text) if kind == RESOLVE else _url_problem(source.text)
    if problem is not None:
        report.add("bad-source", f"{quoted(source.text)} {problem}", source.span, help=help_)
    elif source.text.lower().startswith("http:"):
        report.add(
            "plain-http",
            f"{quoted(source.text)} comes unprotected: whoever is on the way can change it",
            source.span,
            help="use `https` where the server has it",
        )
    return problem is None


def _name_problem(text: str) -> tuple[str | None, str | None]:
    """What is wrong with a host's name, and how to mend it."""
    if parse_address(text) is not None:
        return "is an address already", f"`set NAME = {text}` needs no lock file"
    if "://" in text:
        return "is a URL, not the name of a host", f'did you mean `url "{text}"`?'
    labels = text.removesuffix(".").split(".")
    if len(text) <= NAME_LETTERS and all(
        len(label) <= LABEL_LETTERS and _LABEL.fullmatch(label) for label in labels
    ):
        return None, None
    return (
        "is not the name of a host",
        "for example `cdn.example`; names beyond ASCII are written as `xn--…`",
    )


def _url_problem(text: str) -> tuple[str | None, str | None]:
    """What is wrong with a URL, and how to mend it."""
    example = "for example `https://lists.example/drop.txt`"
    if not text.isascii() or not text.isprintable() or " " in text:
        return "has characters that a URL cannot have", "write them as `%` and two digits"
    parts = _URL.fullmatch(text)
    scheme = "" if parts is None else parts["scheme"].lower()
    if scheme == "file" or text.startswith(("/", ".")):
        return "is a file of this machine", '`set NAME = file "PATH"` reads one'
    if parts is None or scheme not in ("https", "http"):
        return "is not a URL of `https`", example
    if parts["user"] is not None:
        return "says a user or a password", "a policy and its rules are no place for secrets"
    host = parts["host"]
    is_address = ":" in host if host.startswith("[") else parse_address(host) is not None
    if not is_address and _name_problem(host)[0] is not None:
        return "names no host", example
    return (
        (None, None)
        if int(parts["port"] or 443) in range(1, 65_536)
        else ("names no port that there is", "ports end at 65535")
    )


def _refresh_s(node: tree.ListedNode, report: Report) -> int:
    if node.refresh is None:
        return REFRESH_S[node.kind]
    total = duration_s(node.refresh.text)
    if not 1 <= total <= MOST_REFRESH_S:
        report.add(
            "bad-duration",
            f"`{node.refresh.text}` is not a time after which to ask again",
            node.refresh.span,
            help="from 1s to 366d",
        )
    return total
