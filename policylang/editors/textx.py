"""The language and its targets as textX's own tools know them; knows no rule of the language.

`textx check` and `textx generate` ask for a metamodel that reads a whole file. Here the compiler
reads it first, so that every mistake is told in its words; what textX then makes is a model of the
classes of the grammar, for whoever writes a generator of their own.

textX loads this with every language that is installed, whichever is asked for: so the compiler is
imported when it is needed.
"""

from __future__ import annotations

import gc
import logging
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, redirect_stderr
from dataclasses import dataclass
from functools import partial
from importlib.resources import files
from io import StringIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

from textx import GeneratorDesc, LanguageDesc, metamodel_from_str
from textx.exceptions import TextXSemanticError
from textx.generators import gen_file, get_output_filename
from textx.metamodel import TextXMetaModel
from textx.model import get_children
from textx.registration import GeneratorParam

from policylang.diagnostics import Diagnostic, Severity

if TYPE_CHECKING:
    from policylang.editors.written_out import WrittenOut
    from policylang.pipeline import Source
    from policylang.syntax.tree import Loaded

NAME, PATTERN = "policylang", "*.policy"
PARAMETERS, HOST = "parameters", "host"
OPTIONS = {
    PARAMETERS: "values of the policy's parameters, as in 'wan=ens3; admins=192.0.2.7'",
    HOST: "one of the policy's hosts, where it has several (all of them)",
}

# Keywords of the grammar. textX ends a keyword at the end of a word, of which `-` is no part: it
# would read `dynamic-hosts` as `dynamic`. The compiler's own reader never shows it such a name.
_KEYWORD = re.compile(r"'([a-z][a-z0-9-]*)'")

A_STATEMENT = "use nothing"  # any: what it says is not asked

_log = logging.getLogger(__name__)


class PolicyError(TextXSemanticError):  # type: ignore[misc]  # textX has no types
    """All that is wrong with a policy; line, column and file name are those of the first error.

    As a text it is each of the `diagnostics`, a line for a place, as `checked.lines` has them.
    """

    def __init__(self, diagnostics: tuple[Diagnostic, ...], folder: Path) -> None:
        """`diagnostics` are in order, with an error among them; files are those of `folder`."""
        first = next(d for d in diagnostics if d.severity is Severity.ERROR)
        place: dict[str, object] = {}
        if first.span is not None:
            place = {
                "line": first.span.line,
                "col": first.span.column,
                "nchar": first.span.end - first.span.start,
                "filename": str(folder / first.span.file.name),
            }
        super().__init__(first.message, err_type=first.code, **place)
        self.diagnostics = diagnostics
        self.folder = folder

    def __str__(self) -> str:
        from policylang.editors.checked import lines

        errors = sum(d.severity is Severity.ERROR for d in self.diagnostics)
        counted = f"{errors} error{'s' if errors > 1 else ''}"
        return "\n".join((counted, *lines(self.diagnostics, self.folder)))


# --- the language ----------------------------------------------------------------------------


class PolicyMetaModel(TextXMetaModel):  # type: ignore[misc]  # textX has no types
    """A metamodel whose models are policies without errors; raises `PolicyError`.

    In a model the value of a parameter stands where its name stands in the file, and places are
    those of the file.
    """

    def model_from_str(self, model_str: str, file_name: str | None = None, **options: Any) -> Any:
        """The model of a text. `file_name` says where it comes from, and where its paths start."""
        from policylang.pipeline import Text

        path = Path("<text>") if file_name is None else Path(file_name)
        source = Text(model_str, path.name, path.parent)
        return self._model(source, path.parent, file_name, options)

    def model_from_file(
        self, file_name: str, encoding: str = "utf-8", debug: bool | None = None, **options: Any
    ) -> Any:
        """The model of a file, which is UTF-8 whatever `encoding` says, as policies are."""
        path = Path(file_name)
        return self._model(path, path.parent, str(path), {"debug": debug, **options})

    def _model(
        self, source: Source, folder: Path, file_name: str | None, options: dict[str, Any]
    ) -> Any:
        from policylang.editors.written_out import written_out

        given = given_by(options.get(PARAMETERS))
        with _collector_off():
            loaded = _checked(source, folder, given, options.get(HOST))
            file = loaded.files[0]
            text = written_out(file, loaded.files, given)
            # An empty text would be read from the file once more.
            model = super().model_from_str(text.text or " ", file_name, **options)
            if isinstance(model, str):  # which textX makes of a text without statements
                model = super().model_from_str(A_STATEMENT, file_name, **options)
                return _without_statements(model, file.text)
        return model if text.text == file.text else _in_place(model, text, file.text)


@contextmanager
def _collector_off() -> Iterator[None]:
    """Looking for cycles among all that textX makes takes three times as long as making it."""
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()


def metamodel() -> PolicyMetaModel:
    """The language as textX sees it."""
    text = files("policylang.syntax").joinpath("policy.tx").read_text(encoding="utf-8")
    made = PolicyMetaModel(autokwd=True, auto_init_attributes=False)
    for name, help_ in OPTIONS.items():
        made.model_param_defs.add(name, help_)
    metamodel_from_str(_KEYWORD.sub(r"/\1(?![\\w-])/", text), metamodel=made)
    return made


def _checked(source: Source, folder: Path, given: Mapping[str, str], host: str | None) -> Loaded:
    """What was read, once nothing is wrong with it for one target at least.

    Warnings, and what the other target cannot express, are logged.
    """
    from policylang.editors.checked import checked, lines
    from policylang.pipeline import OfHost, Text

    if host is not None:
        assert isinstance(source, (Path, Text))
        source = OfHost(source, host)
    found = checked(source, given)
    if found.report.has_errors:
        raise PolicyError(found.report.in_order(), folder)
    for line in lines(found.report.in_order(), folder):
        _log.warning("%s", line)
    for target, report in found.refused.items():
        _log.warning("not for %s:", target)
        for line in lines(report.in_order(), folder):
            _log.warning("%s", line)
    return found.loaded


def given_by(text: str | None) -> dict[str, str]:
    """Parameters out of `NAME=VALUE; NAME=VALUE`; `;` stands in no value. Raises TextXError."""
    given: dict[str, str] = {}
    for part in filter(None, map(str.strip, (text or "").split(";"))):
        name, equals, value = (word.strip() for word in part.partition("="))
        if not (name and equals):
            message = f"`{part}` is no parameter: write NAME=VALUE, and `;` between two"
            raise TextXSemanticError(message)
        if name in given:
            raise TextXSemanticError(f"the parameter `{name}` is given twice")
        given[name] = value
    return given


def _without_statements(model: Any, original: str) -> Any:
    """The model of a text that says nothing, made of one that says something."""
    del model.statements[:]
    model._tx_position, model._tx_position_end = 0, len(original)
    return _of_text(model, original)


def _in_place(model: Any, text: WrittenOut, original: str) -> Any:
    """The model with places of the file in place of those of the text that textX has read."""
    for node in get_children(lambda _: True, model):
        node._tx_position = text.start(node._tx_position)
        node._tx_position_end = text.end(node._tx_position_end)
    return _of_text(model, original)


def _of_text(model: Any, original: str) -> Any:
    """The model with lines and columns told of that text."""
    model._tx_parser.input = original
    model._tx_parser.line_ends = []  # where lines end is found out anew
    return model


language = LanguageDesc(NAME, PATTERN, "Firewall policies for nftables and iptables", metamodel)


# --- the generators --------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Generator:
    """Writes what a policy compiles to for a target, as `policylang compile -o` does."""

    target: str

    def __call__(
        self, metamodel: Any, model: Any, output_path: str, overwrite: bool, debug: bool, **_: Any
    ) -> None:
        """What `textx generate` calls; raises TextXError. What is there is left, unless told.

        For nft it is a file `NAME.nft`, for iptables a folder `NAME.iptables`, beside the policy or
        in the folder `output_path`. Of a policy of several hosts it is a folder with all of them
        for both, or of the one that is asked for `NAME.HOST.nft` or `NAME.HOST.iptables`.
        """
        path, options = model._tx_filename, model._tx_model_params
        host = options.get(HOST)
        suffix = self.target if host is None else f"{host}.{self.target}"
        place = get_output_filename(path, output_path, suffix)
        words = ["compile", path, "--target", self.target, "-o", place]
        for name, value in given_by(options.get(PARAMETERS)).items():
            words += ("-D", f"{name}={value}")
        if host is not None:
            words += ("--host", host)
        elif any(type(statement).__name__ == "HostDecl" for statement in model.statements):
            words.append("--all-hosts")
        gen_file(path, place, partial(_run, words, Path(place).parent), overwrite)


def _run(words: list[str], folder: Path) -> None:
    """Do what a command line of policylang does that writes into a folder; raises TextXError."""
    from policylang.cli import main

    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise TextXSemanticError(f"cannot write `{folder}`: {error.strerror}") from error
    said = StringIO()
    with redirect_stderr(said):  # warnings were told when the model was made
        status = main(words)
    if status:
        raise TextXSemanticError(said.getvalue().strip())


_CUSTOM = [GeneratorParam(name, help_, mandatory=False) for name, help_ in OPTIONS.items()]

nft = GeneratorDesc(NAME, "nft", "A script for nft", Generator("nft"), _CUSTOM)
iptables = GeneratorDesc(
    NAME, "iptables", "Files for iptables-restore and ipset", Generator("iptables"), _CUSTOM
)
