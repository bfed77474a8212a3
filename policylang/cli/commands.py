"""The commands: each compiles by `pipeline`, does one thing with the result, and tells of it."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from policylang.backends import TARGETS
from policylang.cli import output
from policylang.cli.options import DONE, REFUSED
from policylang.cli.render import as_json, summary
from policylang.cli.teller import Teller, show
from policylang.cli.visible import visible
from policylang.codes import CODES
from policylang.diagnostics import Report, did_you_mean

if TYPE_CHECKING:
    from policylang import pipeline

STDIN, STDIN_NAME = "-", "<stdin>"


def run(chosen: argparse.Namespace) -> int:
    """Carry out the command that was chosen; the exit status."""
    commands: dict[str, Callable[[argparse.Namespace], int]] = {
        "compile": _compile,
        "check": _check,
        "lint": _lint,
        "plan": _plan,
        "apply": _apply,
        "confirm": _change,
        "rollback": _change,
        "panic": _change,
        "stop": _change,
        "status": _tell,
        "drift": _tell,
        "generations": _tell,
        "test": _test,
        "query": _query,
        "trace": _trace,
        "diff": _diff,
        "why": _why,
        "verify": _verify,
        "install-service": _service,
        "uninstall-service": _service,
        "set": _set,
        "refresh": _refresh,
        "fmt": _fmt,
        "services": _services,
        "groups": _services,
        "explain": _explain,
    }
    return commands[chosen.command](chosen)


def _compile(chosen: argparse.Namespace) -> int:
    report = Report()
    made = _compiled(chosen, report)
    if made is not None and not report.has_errors:
        _write(chosen, *made, report)
    show(report, chosen, sys.stderr)
    return _status(report)


Files = dict[str, str]  # by name


def _compiled(chosen: argparse.Namespace, report: Report) -> tuple[Files, Files] | None:
    """What the policy compiles to and what that needs at boot, or None where it has errors."""
    from policylang import pipeline

    source = _source(chosen.file, report)
    if source is None:
        return None
    if chosen.target == "ir":
        from policylang.ir.dump import dump

        ruleset = pipeline.verified_ruleset(source, report, parameters=chosen.parameters)
        return None if ruleset is None else ({"ir": dump(ruleset)}, {})
    artifact = pipeline.compile_policy(source, chosen.target, report, parameters=chosen.parameters)
    if artifact is None:
        return None
    from policylang.backends.boot import boot_files

    return (
        {file.name: file.text for file in artifact.files},
        {file.name: file.text for file in boot_files(artifact.needs)},
    )


def _write(chosen: argparse.Namespace, files: Files, at_boot: Files, report: Report) -> None:
    if chosen.target == "iptables" or (chosen.target == "nft" and output.is_folder(chosen.output)):
        from policylang.backends.boot import FILES
        from policylang.backends.iptables import SETS

        # The files of rules are always there; these only where a rule needs them.
        stale = [name for name in (SETS, *FILES) if name not in files | at_boot]
        output.write_folder(Path(chosen.output), files | at_boot, stale, report, careful=FILES)
        return
    (text,) = files.values()
    text += _as_comments(at_boot)
    if chosen.output in (None, "-"):
        output.write_stdout(text, report)
    else:
        output.write_file(Path(chosen.output), text, report)


def _as_comments(at_boot: Files) -> str:
    """What the rules need at boot, for who has the script alone."""
    if not at_boot:
        return ""
    lines = ["# What is needed beside this; `policylang compile -o DIR/` writes it to files:"]
    for name, text in at_boot.items():
        said = (line for line in text.splitlines() if line and not line.startswith("#"))
        lines.append(f"# {name}: {', '.join(said)}")
    return "\n" + "".join(f"{line}\n" for line in lines)


def _check(chosen: argparse.Namespace) -> int:
    from policylang import pipeline

    report = Report()
    source = _source(chosen.file, report)
    ruleset = None
    if source is not None:
        ruleset = pipeline.ruleset_of(source, report, parameters=chosen.parameters)
    if ruleset is not None:
        for target in TARGETS if chosen.target is None else (chosen.target,):
            pipeline.artifact_of(ruleset, target, report)
    if chosen.format == "json":
        print(as_json(report.in_order()), end="")
        return _status(report)
    show(report, chosen, sys.stderr)
    if not report.has_errors:
        counts = ", ".join(filter(None, ("no errors", summary(report.diagnostics))))
        print(f"{_called(chosen.file)}: {counts}")
    return _status(report)


def _lint(chosen: argparse.Namespace) -> int:
    from policylang.cli import linting

    report = Report()
    sources = [(_called(file), _source(file, report)) for file in chosen.files]
    return linting.run(chosen, [(n, s) for n, s in sources if s is not None], report)


def _plan(chosen: argparse.Namespace) -> int:
    from policylang.cli import changing

    teller = Teller(chosen, _called(chosen.file))
    return changing.plan(chosen, _source(chosen.file, teller.report), teller)


def _apply(chosen: argparse.Namespace) -> int:
    from policylang.cli import changing

    teller = Teller(chosen, _called(chosen.file))
    return changing.apply(chosen, _source(chosen.file, teller.report), teller)


def _change(chosen: argparse.Namespace) -> int:
    from policylang.cli import changing

    change = {
        "confirm": changing.confirm,
        "rollback": changing.rollback,
        "panic": changing.panic,
        "stop": changing.stop,
    }
    return change[chosen.command](chosen, Teller(chosen, chosen.command))


def _tell(chosen: argparse.Namespace) -> int:
    from policylang.cli import telling

    tell = {
        "status": telling.tell_status,
        "drift": telling.tell_drift,
        "generations": telling.tell_generations,
    }
    return tell[chosen.command](chosen, Teller(chosen, chosen.command))


def _test(chosen: argparse.Namespace) -> int:
    from policylang.cli import testing

    report = Report()
    sources = [(_called(file), _source(file, report)) for file in chosen.files]
    return testing.run(chosen, [(n, s) for n, s in sources if s is not None], report)


def _query(chosen: argparse.Namespace) -> int:
    from policylang.cli import querying

    return querying.run(chosen, Report())


def _trace(chosen: argparse.Namespace) -> int:
    from policylang.cli import tracing

    return tracing.run(chosen)


def _verify(chosen: argparse.Namespace) -> int:
    from policylang.cli import verifying

    teller = Teller(chosen, _called(chosen.file))
    return verifying.verify(chosen, _source(chosen.file, teller.report), teller)


def _diff(chosen: argparse.Namespace) -> int:
    from policylang.cli import diffing

    return diffing.run(chosen, Report())


def _why(chosen: argparse.Namespace) -> int:
    from policylang.cli import whence

    return whence.run(chosen, Report())


def _service(chosen: argparse.Namespace) -> int:
    from policylang.cli import servicing

    do = {"install-service": servicing.install, "uninstall-service": servicing.uninstall}
    return do[chosen.command](chosen, Teller(chosen, chosen.command))


def _set(chosen: argparse.Namespace) -> int:
    from policylang.cli import sets

    report = Report()
    status = sets.run(chosen, report)
    show(report, chosen, sys.stderr)
    return status


def _refresh(chosen: argparse.Namespace) -> int:
    from policylang.cli import refreshing

    return refreshing.run(chosen)


def _fmt(chosen: argparse.Namespace) -> int:
    from policylang.cli import formatting

    report = Report()
    is_canonical = formatting.run(chosen, report)
    show(report, chosen, sys.stderr)
    return _status(report) if is_canonical else REFUSED


def _services(chosen: argparse.Namespace) -> int:
    from policylang.cli import services

    return {"services": services.services, "groups": services.groups}[chosen.command](chosen)


def _explain(chosen: argparse.Namespace) -> int:
    if chosen.code is None:
        width = max(map(len, CODES))
        for code in sorted(CODES):
            print(f"{code:<{width}}  {CODES[code].severity:<7}  {CODES[code].title}")
        return DONE
    known = CODES.get(chosen.code)
    if known is None:
        hint = did_you_mean(chosen.code, CODES) or "`policylang explain` lists them all"
        print(
            f"policylang explain: no message has the id `{visible(chosen.code)}`: {hint}",
            file=sys.stderr,
        )
        return REFUSED
    from textwrap import fill

    print(f"{known.severity}[{chosen.code}]: {known.title}\n\n{fill(known.explanation, 80)}")
    return DONE


def _source(file: str, report: Report) -> pipeline.Source | None:
    """What to compile; None, reported, where standard input is closed or no text."""
    from policylang.pipeline import Text

    if file != STDIN:
        return Path(file)
    if sys.stdin is None:
        report.add("unreadable-file", "standard input is closed", None)
        return None
    try:
        return Text(sys.stdin.buffer.read().decode("utf-8-sig"), STDIN_NAME, Path.cwd())
    except UnicodeDecodeError as error:
        what = f"byte {error.start + 1} of standard input is not UTF-8"
        report.add("not-utf8", what, None)
        return None


def _called(file: str) -> str:
    """How lines of ours call the policy."""
    return STDIN_NAME if file == STDIN else visible(file)


def _status(report: Report) -> int:
    return REFUSED if report.has_errors else DONE
