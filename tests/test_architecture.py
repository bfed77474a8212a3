"""The layers and those invariants of ARCHITECTURE.md that can be read off the source.

Each check is shown to fail on a few lines that break it.
"""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import get_args

import pytest

from policylang.model.policy import Statement
from policylang.model.types import EndElement
from policylang.syntax import tree


def _set(words: str) -> frozenset[str]:
    return frozenset(words.split())


ROOT = Path(__file__).parent.parent
PACKAGE = "policylang"

# From the top down; those on one line do not know each other.
LAYERS: tuple[tuple[str, ...], ...] = (
    ("editors",),
    ("cli",),
    ("proving", "provision"),
    ("apply",),
    ("analysis",),
    ("pipeline",),
    ("backends.nft", "backends.iptables", "backends.boot"),
    ("optimise",),
    ("lower",),
    ("model", "ir"),
    ("syntax",),
    ("packets",),
    ("codes", "diagnostics", "silences", "source"),
)
# What a line of the table says in more words.
SHARED_BY_BACKENDS = (
    *("backends.base", "backends.names", "backends.templating", "backends.proxying"),
    *("backends.turns", "backends.listed", "backends"),
)
ABOVE_ALL = ("__main__",)
KNOW_EACH_OTHER = {
    ("diagnostics", "codes"),
    ("diagnostics", "silences"),
    ("diagnostics", "source"),
    ("silences", "codes"),
    ("silences", "source"),
    ("backends", "backends.base"),
    ("backends.templating", "backends.base"),
}
NOT_KNOWN = {("ir", "syntax")}

THIRD_PARTY = {
    "textx": ("syntax.parse", "editors.textx"),
    "arpeggio": ("syntax.parse",),
    "jinja2": ("backends.templating",),
    "nftables": ("apply.libnftables",),
    "oxidd": ("analysis.diagram",),
    "pygments": ("editors.pygments_lexer",),
}

EDGES = ("syntax.loader", "apply", "proving", "provision", "cli", "editors", "__main__")
OUTSIDE_MODULES = _set(
    "builtins ctypes fcntl getpass glob http importlib io locale logging multiprocessing"
    " os platform random resource secrets select shutil signal socket ssl subprocess sys tempfile"
    " threading time urllib uuid"
)
OUTSIDE_CALLS = _set("breakpoint compile eval exec input open print __import__")
OUTSIDE_METHODS = _set(
    "chmod cwd exists expanduser glob hardlink_to home is_dir is_file is_symlink iterdir lstat"
    " mkdir now open read_bytes read_text readlink rename resolve rglob rmdir samefile stat"
    " symlink_to today touch unlink utcnow write_bytes write_text"
)
# Pure functions, and what is part of the program itself.
ALLOWED_OUTSIDE = {
    "packets.values": {"socket", "inet_pton", "inet_ntop", "AF_INET", "AF_INET6"},
    "syntax.parse": {"importlib", "importlib.resources", "read_text"},  # the grammar
    "backends.templating": {"resolve"},  # where the templates are
    "backends": {"importlib", "import_module"},  # a target that is asked for by name
    "analysis.diagram": {"exists"},  # the quantifier
}

TARGETLESS = ("model", "ir", "lower", "optimise", "packets")
TARGET_WORDS = _set(
    "nft nftables nftable libnftables iptables ip6tables ipset ipsets xtables xt netfilter table"
    " tables priority hook hooks prerouting postrouting mangle vmap jinja template json"
    " multiport ctstate"
)
TARGET_OPTION = re.compile(r"(?:^|\s)(?:-[A-Za-z]|--[a-z][a-z-]+)(?:\s|$)")

TREE_PARTS = (
    *(
        "syntax.leaves",
        "syntax.clauses",
        "syntax.helper_nodes",
        "syntax.set_nodes",
        "syntax.rule_nodes",
        "syntax.service_nodes",
        "syntax.zone_nodes",
    ),
    *("syntax.treatment_nodes", "syntax.expectation_nodes", "syntax.tree"),
)
MODEL_VALUES = ("model.types", "model.translations", "model.policy")
VALUES = (*MODEL_VALUES, "ir", "packets", *TREE_PARTS, "backends.base", "source")
PLACES = (*MODEL_VALUES, "ir", *TREE_PARTS, "backends.base")  # where spans are no part of values

LAST_RESORTS = ("cli", "apply.kernel")  # where any mistake is caught, to be told or handed on

MOST_LINES = 500
MOST_LINES_OF = {"codes": 1600}  # a list of texts

MUTATING = _set("add append clear discard extend insert pop popitem remove setdefault sort update")


@dataclass(frozen=True, slots=True)
class Module:
    """A module of the package, without the package's name: `packets.cube`."""

    name: str
    text: str

    @property
    def tree(self) -> ast.Module:
        return _parsed(self.text)

    def is_in(self, *names: str) -> bool:
        return any(self.name == name or self.name.startswith(f"{name}.") for name in names)


@cache
def _parsed(text: str) -> ast.Module:
    return ast.parse(text)


def _modules() -> list[Module]:
    found = []
    for path in sorted((ROOT / PACKAGE).rglob("*.py")):
        parts = path.relative_to(ROOT / PACKAGE).with_suffix("").parts
        name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
        found.append(Module(name, path.read_text(encoding="utf-8")))
    return found


MODULES = _modules()
Check = Callable[[Module], Iterator[str]]


# --- imports ----------------------------------------------------------------------------------


def _imports(module: Module) -> Iterator[tuple[int, str]]:
    """The line and full name of everything a module imports, within functions too."""
    for node in ast.walk(module.tree):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            start = "." * node.level + (node.module or "")
            yield from ((node.lineno, f"{start}.{alias.name}") for alias in node.names)


def _layer(name: str) -> tuple[float, str] | None:
    """How far down a module stands, and by which name the table has it; None for the root."""
    table: dict[str, float] = {part: depth for depth, parts in enumerate(LAYERS) for part in parts}
    table |= dict.fromkeys(SHARED_BY_BACKENDS, table["backends.nft"] + 0.5)
    table |= dict.fromkeys(ABOVE_ALL, -1)
    known = [part for part in table if name == part or name.startswith(f"{part}.")]
    longest = max(known, key=len, default=None)
    return None if longest is None else (table[longest], longest)


def imports_point_down(module: Module) -> Iterator[str]:
    own = _layer(module.name)
    if module.name and own is None:
        yield f"{module.name} is on no line of the layers"
    for line, name in _imports(module):
        if name.startswith("."):
            yield f"line {line}: a relative import"
        if not name.startswith(f"{PACKAGE}."):
            continue
        theirs = _layer(name.removeprefix(f"{PACKAGE}."))
        if theirs is None or own is None:
            continue
        pair = (own[1], theirs[1])
        if own[1] == theirs[1] or pair in KNOW_EACH_OTHER:
            continue
        if own[0] >= theirs[0] or pair in NOT_KNOWN:
            yield f"line {line}: {module.name} imports {name}"


def third_parties_have_one_door(module: Module) -> Iterator[str]:
    for line, name in _imports(module):
        root = name.partition(".")[0]
        if root == PACKAGE or root in sys.stdlib_module_names or not root:
            continue
        if module.name not in THIRD_PARTY.get(root, ()):
            yield f"line {line}: {module.name} imports {name}"


def edges_alone_touch_the_outside(module: Module) -> Iterator[str]:
    if module.is_in(*EDGES):
        return
    allowed = ALLOWED_OUTSIDE.get(module.name, set())
    for line, name in _imports(module):
        root = name.partition(".")[0]
        if root in OUTSIDE_MODULES and root not in allowed:
            yield f"line {line}: {module.name} imports {name}"
    for node in ast.walk(module.tree):
        match node:
            case ast.Call(func=ast.Name(id=called)) if called in OUTSIDE_CALLS - allowed:
                yield f"line {node.lineno}: calls {called}()"
            case ast.Call(func=ast.Attribute(attr=called)) if called in OUTSIDE_METHODS - allowed:
                yield f"line {node.lineno}: calls .{called}()"
            case ast.Attribute(value=ast.Name(id=root), attr=used) if root in OUTSIDE_MODULES:
                if used not in allowed:
                    yield f"line {node.lineno}: uses {root}.{used}"


# --- words ------------------------------------------------------------------------------------


def _docstrings(tree: ast.Module) -> set[int]:
    """The constants, by identity, that are documentation: strings that stand alone."""
    return {
        id(node.value)
        for node in ast.walk(tree)
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
    }


def _identifiers(tree: ast.Module) -> Iterator[tuple[int, str]]:
    for node in ast.walk(tree):
        match node:
            case ast.Name(id=name) | ast.arg(arg=name) | ast.Attribute(attr=name):
                yield node.lineno, name
            case ast.FunctionDef(name=name) | ast.ClassDef(name=name):
                yield node.lineno, name
            case ast.keyword(arg=str(name)):
                yield node.value.lineno, name


def _words(identifier: str) -> list[str]:
    return [word.lower() for word in re.findall(r"[A-Z]?[a-z0-9]+|[A-Z]+(?![a-z])", identifier)]


def no_word_of_a_target(module: Module) -> Iterator[str]:
    if not module.is_in(*TARGETLESS):
        return
    for line, name in _identifiers(module.tree):
        if TARGET_WORDS & {*_words(name), name.lower()}:
            yield f"line {line}: the name {name}"
    prose = _docstrings(module.tree)
    for node in ast.walk(module.tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in prose:
            words = {word.lower() for word in re.findall(r"\w+", node.value)}
            if TARGET_WORDS & words or TARGET_OPTION.search(node.value):
                yield f"line {node.lineno}: the text {node.value!r}"


# --- values -----------------------------------------------------------------------------------


def _dataclasses(tree: ast.Module) -> Iterator[tuple[ast.ClassDef, dict[str, bool]]]:
    """The dataclasses with the options of their decorators."""
    for node in ast.walk(tree):
        if not isinstance(node, ast.ClassDef):
            continue
        for decorator in node.decorator_list:
            called = decorator.func if isinstance(decorator, ast.Call) else decorator
            if isinstance(called, ast.Name) and called.id == "dataclass":
                given = decorator.keywords if isinstance(decorator, ast.Call) else []
                yield node, {k.arg: _is_true(k.value) for k in given if k.arg is not None}


def _is_true(node: ast.expr) -> bool:
    return isinstance(node, ast.Constant) and node.value is True


def _fields(node: ast.ClassDef) -> Iterator[tuple[str, str, ast.expr | None]]:
    for statement in node.body:
        if isinstance(statement, ast.AnnAssign) and isinstance(statement.target, ast.Name):
            yield statement.target.id, ast.unparse(statement.annotation), statement.value


def values_are_frozen(module: Module) -> Iterator[str]:
    for node, options in _dataclasses(module.tree):
        if not options.get("slots"):
            yield f"line {node.lineno}: {node.name} has no slots"
        if module.is_in(*VALUES) and not options.get("frozen"):
            yield f"line {node.lineno}: {node.name} is not frozen"
        if module.is_in(*VALUES):
            for name, annotation, _ in _fields(node):
                if re.match(r"(list|set|List|Set)\b", annotation):
                    yield f"line {node.lineno}: {node.name}.{name} can be changed"


def places_take_no_part_in_equality(module: Module) -> Iterator[str]:
    if not module.is_in(*PLACES):
        return
    for node, options in _dataclasses(module.tree):
        if options.get("eq") is False and "eq" in options:
            continue
        for name, annotation, value in _fields(node):
            if not re.search(r"\b(Span|Origin)\b", annotation):
                continue
            given = value.keywords if isinstance(value, ast.Call) else []
            said = [k.value for k in given if k.arg == "compare"]
            if not said or _is_true(said[0]):
                yield f"line {node.lineno}: {node.name}.{name} is compared"


# --- habits -----------------------------------------------------------------------------------


def mistakes_are_not_swallowed(module: Module) -> Iterator[str]:
    if module.name in LAST_RESORTS:
        return
    for node in ast.walk(module.tree):
        if not isinstance(node, ast.ExceptHandler):
            continue
        caught = "" if node.type is None else ast.unparse(node.type)
        if caught and not re.search(r"\b(Base)?Exception\b", caught):
            continue
        if not any(isinstance(n, ast.Raise) and n.exc is None for n in ast.walk(node)):
            yield f"line {node.lineno}: catches everything"


def _bound(statement: ast.stmt) -> Iterator[tuple[str, ast.expr | None]]:
    match statement:
        case ast.Assign(targets=targets, value=value):
            yield from ((t.id, value) for t in targets if isinstance(t, ast.Name))
        case ast.AnnAssign(target=ast.Name(id=name), value=value):
            yield name, value


def no_global_state(module: Module) -> Iterator[str]:
    """No work at import, and nothing at module level that changes."""
    if module.name == "codes":  # its table is written as calls, for the texts' sake
        return
    held: set[str] = set()
    for statement in module.tree.body:
        for name, value in _bound(statement):
            if isinstance(value, (ast.List, ast.Dict, ast.Set, ast.ListComp, ast.DictComp)):
                held.add(name)
                if name != name.upper() and not name.startswith("__"):
                    yield f"line {statement.lineno}: {name} is no constant by its name"
        match statement:
            case ast.Expr(value=ast.Constant()):  # the docstring
                pass
            case ast.For() | ast.While() | ast.With() | ast.Try() | ast.Expr():
                yield f"line {statement.lineno}: work at import"
    for node in ast.walk(module.tree):
        match node:
            case ast.Global():
                yield f"line {node.lineno}: global"
            case ast.Call(func=ast.Attribute(value=ast.Name(id=name), attr=method)):
                if name in held and method in MUTATING:
                    yield f"line {node.lineno}: {name} is changed"
            case ast.Subscript(value=ast.Name(id=name), ctx=ast.Store() | ast.Del()):
                if name in held:
                    yield f"line {node.lineno}: {name} is changed"
            case ast.AugAssign(target=ast.Name(id=name)):
                if name in held:
                    yield f"line {node.lineno}: {name} is changed"


def programs_run_without_a_shell(module: Module) -> Iterator[str]:
    for node in ast.walk(module.tree):
        match node:
            case ast.keyword(arg="shell", value=value) if not (
                isinstance(value, ast.Constant) and value.value is False
            ):
                yield f"line {value.lineno}: shell="
            case ast.Attribute(value=ast.Name(id="os"), attr="system" | "popen"):
                yield f"line {node.lineno}: os.{node.attr}"


def modules_say_what_they_are_for(module: Module) -> Iterator[str]:
    said = ast.get_docstring(module.tree)
    first = (said or "").partition("\n\n")[0]
    if not said:
        yield "no docstring"
    elif not first.endswith(".") or (first[0].islower() and not first.startswith(PACKAGE)):
        yield f"the docstring does not begin with a sentence: {first!r}"
    if (
        module.name
        and module.tree.body[1:]
        and "from __future__ import annotations" not in module.text
    ):
        yield "no `from __future__ import annotations`"


def modules_are_a_few_pages(module: Module) -> Iterator[str]:
    lines = module.text.count("\n")
    if lines > MOST_LINES_OF.get(module.name, MOST_LINES):
        yield f"{lines} lines"


def modules_have_names(module: Module) -> Iterator[str]:
    last = module.name.rpartition(".")[2]
    if last in {"utils", "util", "common", "misc", "tools"}:
        yield f"a module named {last}"
    if last == "helpers" and module.name != "lower.helpers":  # conntrack helpers
        yield "`helper` means conntrack helper here"


def suppressions_have_reasons(module: Module) -> Iterator[str]:
    for number, line in enumerate(module.text.splitlines(), 1):
        suppressed = re.search(r"#\s*noqa\b(:\s*[A-Z]+\d+(,\s*[A-Z]+\d+)*)?(?P<why>.*)", line)
        if suppressed and not re.search(r"\w{2,}", suppressed["why"]):
            yield f"line {number}: noqa without a reason"


CHECKS: tuple[Check, ...] = (
    imports_point_down,
    third_parties_have_one_door,
    edges_alone_touch_the_outside,
    no_word_of_a_target,
    values_are_frozen,
    places_take_no_part_in_equality,
    mistakes_are_not_swallowed,
    no_global_state,
    programs_run_without_a_shell,
    modules_say_what_they_are_for,
    modules_are_a_few_pages,
    modules_have_names,
    suppressions_have_reasons,
)


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
def test_every_module_keeps_to_it(check: Check) -> None:
    complaints = [f"{m.name or PACKAGE}: {c}" for m in MODULES for c in check(m)]
    assert not complaints, "\n".join(complaints)


FROZEN = "@dataclass(frozen=True, slots=True)\n"

BROKEN: tuple[tuple[Check, str, str], ...] = (
    (imports_point_down, "packets.cube", "from policylang.ir.ruleset import Rule"),
    (imports_point_down, "packets.cube", "def f():\n    import policylang.model.types"),
    (imports_point_down, "model.types", "from policylang.ir import actions"),
    (imports_point_down, "ir.ruleset", "from policylang.model.types import Zone"),
    (imports_point_down, "ir.ruleset", "from policylang.syntax import tree"),
    (imports_point_down, "backends.nft.spell", "from policylang.backends import iptables"),
    (imports_point_down, "backends.names", "from policylang.backends.nft import spell"),
    (imports_point_down, "pipeline", "from policylang import cli"),
    (imports_point_down, "apply.nft", "from policylang.cli import render"),
    (imports_point_down, "cli.commands", "from policylang.editors import textx"),
    (imports_point_down, "analysis.following", "from policylang.apply import nft"),
    (imports_point_down, "lower.nat", "from policylang.analysis import machine"),
    (imports_point_down, "source", "from policylang.codes import CODES"),
    (imports_point_down, "packets.cube", "from . import values"),
    (imports_point_down, "unheard.of", "x = 1"),
    (third_parties_have_one_door, "model.rules", "import textx"),
    (third_parties_have_one_door, "syntax.loader", "from textx import metamodel_from_str"),
    (third_parties_have_one_door, "backends.nft", "def f():\n    from jinja2 import Template"),
    (third_parties_have_one_door, "apply.nft", "import nftables"),
    (third_parties_have_one_door, "cli", "import click"),
    (third_parties_have_one_door, "editors.written_out", "import textx"),
    (third_parties_have_one_door, "editors.textx", "import pygments"),
    (third_parties_have_one_door, "analysis.following", "from oxidd.bcdd import BCDDManager"),
    (edges_alone_touch_the_outside, "lower.nat", "import os"),
    (edges_alone_touch_the_outside, "pipeline", "import subprocess"),
    (edges_alone_touch_the_outside, "analysis.following", "import subprocess"),
    (edges_alone_touch_the_outside, "optimise", "from random import shuffle"),
    (edges_alone_touch_the_outside, "backends.nft", "day = date.today()"),
    (edges_alone_touch_the_outside, "pipeline", "def f(path):\n    return path.read_text()"),
    (edges_alone_touch_the_outside, "model.elements", "text = open('list.txt').read()"),
    (edges_alone_touch_the_outside, "ir.dump", "def f():\n    print('here')"),
    (edges_alone_touch_the_outside, "packets.values", "socket.create_connection(('x', 1))"),
    (no_word_of_a_target, "lower.nat", "def nft_rule(): ..."),
    (no_word_of_a_target, "ir.ruleset", "class IpsetEntry: ..."),
    (no_word_of_a_target, "ir.stages", "x = Base(priority=-150)"),
    (no_word_of_a_target, "optimise.gather", "text = f'-A {name}'"),
    (no_word_of_a_target, "optimise.gather", "kind = 'vmap'"),
    (no_word_of_a_target, "model.rules", "message = 'nft cannot do that'"),
    (no_word_of_a_target, "lower.nat", "x = rule.json"),
    (values_are_frozen, "ir.ruleset", "@dataclass(slots=True)\nclass A:\n    x: int"),
    (values_are_frozen, "packets.cube", "@dataclass\nclass A:\n    x: int"),
    (values_are_frozen, "model.rules", "@dataclass(frozen=True)\nclass A:\n    x: int"),
    (values_are_frozen, "syntax.tree", FROZEN + "class A:\n    x: list[int]"),
    (values_are_frozen, "syntax.treatment_nodes", FROZEN + "class A:\n    x: list[int]"),
    (values_are_frozen, "model.translations", "@dataclass(slots=True)\nclass A:\n    x: int"),
    (places_take_no_part_in_equality, "model.types", FROZEN + "class A:\n    span: Span"),
    (places_take_no_part_in_equality, "model.policy", FROZEN + "class A:\n    span: Span"),
    (
        places_take_no_part_in_equality,
        "ir.ruleset",
        FROZEN + "class A:\n    origins: tuple[Origin, ...] = field(default=())",
    ),
    (mistakes_are_not_swallowed, "lower.nat", "try:\n    f()\nexcept Exception:\n    pass"),
    (mistakes_are_not_swallowed, "apply.nft", "try:\n    f()\nexcept:\n    pass"),
    (mistakes_are_not_swallowed, "ir.dump", "try:\n    f()\nexcept (OSError, Exception): x()"),
    (no_global_state, "lower.nat", "CACHE = {}\ndef f(x):\n    CACHE[x] = 1"),
    (no_global_state, "lower.nat", "SEEN = []\ndef f(x):\n    SEEN.append(x)"),
    (no_global_state, "lower.nat", "count = 0\ndef f():\n    global count\n    count = 1"),
    (no_global_state, "lower.nat", "seen = {}"),
    (no_global_state, "lower.nat", "register('nat')"),
    (no_global_state, "lower.nat", "for x in range(3):\n    pass"),
    (programs_run_without_a_shell, "apply.nft", "subprocess.run(x, shell=True)"),
    (programs_run_without_a_shell, "apply.nft", "os.system('nft -f x')"),
    (modules_say_what_they_are_for, "ir.dump", "from __future__ import annotations\nx = 1"),
    (modules_say_what_they_are_for, "ir.dump", '"""dumps things"""'),
    (modules_say_what_they_are_for, "ir.dump", '"""Dumps things."""\n\nimport re'),
    (modules_are_a_few_pages, "ir.dump", "x = 1\n" * (MOST_LINES + 1)),
    (modules_have_names, "ir.utils", ""),
    (modules_have_names, "ir.helpers", ""),
    (suppressions_have_reasons, "ir.dump", "import re  # noqa: F401"),
)


@pytest.mark.parametrize(("check", "name", "text"), BROKEN)
def test_what_breaks_it_is_told(check: Check, name: str, text: str) -> None:
    assert list(check(Module(name, text)))


def test_every_check_is_broken_once() -> None:
    assert {check for check, _, _ in BROKEN} == {*CHECKS}


GOOD: tuple[tuple[Check, str, str], ...] = (
    (imports_point_down, "lower.nat", "from policylang.ir import actions\nimport re"),
    (imports_point_down, "backends.nft", "from policylang.backends.base import Line"),
    (imports_point_down, "diagnostics", "from policylang.codes import CODES"),
    (third_parties_have_one_door, "syntax.parse", "from textx import metamodel_from_str"),
    (edges_alone_touch_the_outside, "syntax.loader", "import os"),
    (edges_alone_touch_the_outside, "pipeline", "from pathlib import Path"),
    (no_word_of_a_target, "lower.nat", '"""Not for iptables."""\nx = "chain"'),
    (no_word_of_a_target, "backends.nft", "kind = 'vmap'"),
    (values_are_frozen, "model.rules", "@dataclass(slots=True)\nclass A:\n    x: list[int]"),
    (mistakes_are_not_swallowed, "ir.dump", "try:\n    f()\nexcept BaseException:\n    raise"),
    (no_global_state, "lower.nat", "WORDS = {1: 2}\ndef f(x):\n    return WORDS[x]"),
)


@pytest.mark.parametrize(("check", "name", "text"), GOOD)
def test_what_keeps_to_it_is_not_told(check: Check, name: str, text: str) -> None:
    assert not list(check(Module(name, text)))


def test_nodes_and_what_they_mean_are_values() -> None:
    classes = [*tree.Node.__subclasses__(), *get_args(Statement), *get_args(EndElement)]
    where = {made.__module__.removeprefix(f"{PACKAGE}.") for made in classes}
    assert where <= {*TREE_PARTS, *MODEL_VALUES}


# --- the documents ----------------------------------------------------------------------------


def test_architecture_says_the_same_layers() -> None:
    text = (ROOT / "ARCHITECTURE.md").read_text(encoding="utf-8")
    section = text.partition("## Layers")[2].partition("\n## ")[0]
    lines = [line.strip() for line in section.splitlines() if line.startswith("    ")]
    named = [re.split(r"\s{3,}", line)[0] for line in lines]
    assert tuple(tuple(re.split(r"\s*[|,]\s*", line)) for line in named) == LAYERS


# Not written whole, so that this file is not told of itself.
MACHINE_PATH = re.compile(r"(?<![\w.])/(?:" + "|".join(("work", "home", "root", "Users")) + r")/\w")
NOT_OURS = frozenset({".git", ".venv", ".hypothesis", "build", "dist", "__pycache__"})


def machine_paths(text: str) -> list[str]:
    return [match[0] for match in MACHINE_PATH.finditer(text)]


def _texts() -> Iterator[tuple[str, str]]:
    for path in sorted(ROOT.rglob("*")):
        parts = path.relative_to(ROOT).parts
        if NOT_OURS & {*parts} or any(p.endswith(("_cache", ".egg-info")) for p in parts):
            continue
        if path.is_file() and not path.is_symlink():
            try:
                yield "/".join(parts), path.read_text(encoding="utf-8")
            except UnicodeDecodeError:
                continue


def test_no_text_names_a_path_of_one_machine() -> None:
    found = {name: paths for name, text in _texts() if (paths := machine_paths(text))}
    assert not found


def test_path_of_a_machine_is_told() -> None:
    home = "/".join(("", "home", "me"))
    assert machine_paths(f"see {home}/policy") and not machine_paths("see /run/netns/x")
