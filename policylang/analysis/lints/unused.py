"""Declarations that nothing uses."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

from policylang.analysis.lints.subject import Subject
from policylang.diagnostics import Report
from policylang.lower.stateful import lower
from policylang.model.scope import kind_of
from policylang.source import SourceFile, Span
from policylang.syntax import tree
from policylang.syntax.tokens import PARAMETER, read_tokens

MOST_LOWERINGS = 12


@dataclass(frozen=True, slots=True)
class _Mentions:
    """How often each name and each parameter stands somewhere, and where parameters are made."""

    names: Counter[str]
    parameters: Counter[str]
    declared: tuple[tuple[str, Span], ...]


def find_unused(subject: Subject, given: Mapping[str, str], report: Report) -> None:
    """Report sets, zones, services, groups and parameters that nothing names.

    `unused-declaration`. A zone also says whose addresses others have not: it is told where the
    rules are the same without it; those of a gateway say which hosts are behind which interface,
    too. What is declared in an inventory is for other policies as well. `given` are the parameters
    from outside, which may hold names.
    """
    found = _mentions(subject.loaded.files, given)
    for name, span in found.declared:
        if not found.parameters[name]:
            report.add(
                "unused-declaration",
                f"no statement uses the parameter `{name}`",
                span,
                help="remove it",
            )
    left = MOST_LOWERINGS
    hosts = (one for one in subject.loaded.statements if isinstance(one, tree.HostDecl))
    of_gateways = {zone for host in hosts if host.is_gateway for zone in host.zones}
    for declaration in subject.loaded.statements:
        if not isinstance(declaration, DECLARATIONS) or found.names[declaration.name.text] > 1:
            continue
        if declaration in of_gateways or declaration.span.file in subject.loaded.beside:
            continue
        if isinstance(declaration, tree.ZoneDecl):
            if not left:
                subject.is_cut = True
                continue
            left -= 1
            if not _is_idle(subject, declaration.name.text):
                continue
        report.add(
            "unused-declaration",
            f"no statement uses the {kind_of(declaration)} `{declaration.name.text}`",
            declaration.name.span,
            help="remove it",
        )


DECLARATIONS = (tree.ZoneDecl, tree.SetDecl, tree.ServiceDecl, tree.ServiceGroup, tree.RulesDecl)


def _is_idle(subject: Subject, zone: str) -> bool:
    """Whether the rules are the same without a zone."""
    zones = tuple(z for z in subject.policy.zones if z.name != zone)
    return lower(replace(subject.policy, zones=zones), Report()) == subject.ruleset


def _mentions(files: tuple[SourceFile, ...], given: Mapping[str, str]) -> _Mentions:
    names: Counter[str] = Counter()
    parameters: Counter[str] = Counter()
    declared: list[tuple[str, Span]] = []
    for file in files:
        before = ""
        for token in read_tokens(file, Report()):
            if token.kind == PARAMETER:
                parameters[token.text[1:]] += 1
            elif before == "param":
                declared.append((token.text.strip('"'), Span(file, token.start, token.end)))
            else:  # a word that is reserved in some places alone may be a name in others
                names[token.text.strip('"')] += 1
            before = token.kind
    for text in _values(given):
        names[text] += 1
    return _Mentions(names, parameters, tuple(declared))


def _values(given: Mapping[str, str]) -> Iterator[str]:
    """The words of values from outside: each may be the name of something."""
    for name, text in given.items():
        for token in read_tokens(SourceFile(f"-D {name}", text), Report()):
            yield token.text.strip('"')
