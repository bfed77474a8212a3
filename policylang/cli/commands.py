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
from policylang.cli.render import summary
from policylang.cli.teller import Teller, show
from policylang.cli.visible import visible
from policylang.codes import CODES
from policylang.diagnostics import Report, did_you_mean

if TYPE_CHECKING:
    from policylang import pipeline
    from policylang.backends.base import Artifact
    from policylang.syntax.tree import Loaded

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
        "golden": _golden,
        "review": _review,
        "textconv": _textconv,
    }
    return commands[chosen.command](chosen)


def _compile(chosen: argparse.Namespace) -> int:
    report = Report()
    if chosen.all_hosts:
        return _compile_all(chosen, report)
    made = _compiled(chosen, report)
    if made is not None and not report.has_errors:
        _write(chosen, *made, report)
    show(report, chosen, sys.stderr)
    return _status(report)


Files = dict[str, str]  # by name


def _compiled(chosen: argparse.Namespace, report: Report) -> tuple[Files, Files] | None:
    """What the policy compiles to and what that needs at boot, or None where it has errors."""
    from policylang import pipeline

    source = _source(chosen, chosen.file, report)
    if source is None:
        return None
    if chosen.target == "ir":
        from policylang.ir.dump import dump

        ruleset = pipeline.verified_ruleset(source, report, parameters=chosen.parameters)
        return None if ruleset is None else ({"ir": dump(ruleset)}, {})
    artifact = pipeline.compile_policy(source, chosen.target, report, parameters=chosen.parameters)
    return None if artifact is None else _files(artifact)


def _files(artifact: Artifact) -> tuple[Files, Files]:
    from policylang.backends.boot import boot_files

    return (
        {file.name: file.text for file in artifact.files},
        {file.name: file.text for file in boot_files(artifact.needs)},
    )


def _compile_all(chosen: argparse.Namespace, report: Report) -> int:
    """Compile for every host; nothing is written where it fails for one of them."""
    from policylang import pipeline
    from policylang.cli.fleet import for_each_host

    source = _source(chosen, chosen.file, report)
    loaded = None if source is None else pipeline.loaded_from(source, report, chosen.parameters)
    if loaded is not None and not loaded.hosts and not report.has_errors:
        message = f"`{_called(chosen.file)}` has no hosts"
        report.add("no-such-host", message, None, help="leave out `--all-hosts`")
    made: dict[str, tuple[Files, Files]] = {}
    if loaded is not None and not report.has_errors:

        def compiled(one: Loaded, own: Report) -> tuple[Files, Files] | None:
            artifact = pipeline.compile_policy(one, chosen.target, own)
            return None if artifact is None else _files(artifact)

        made = for_each_host(loaded, compiled, report, shows_progress=chosen.format == "text")
    folder = Path(chosen.output)
    if not report.has_errors:
        _write_all(folder, chosen.target, made, report)
    show(report, chosen, sys.stderr)
    if not report.has_errors:
        told = f"{_called(chosen.file)}: {len(made)} hosts compiled into {visible(str(folder))}"
        print(told, file=sys.stderr)
    elif loaded is not None and (failed := len(loaded.hosts) - len(made)) > 0 and made:
        print(f"{failed} of {len(loaded.hosts)} hosts failed; nothing is written", file=sys.stderr)
    return _status(report)


def _write_all(
    folder: Path, target: str, made: dict[str, tuple[Files, Files]], report: Report
) -> None:
    """A script for each host, or for iptables a folder for each."""
    if target == "nft":
        scripts = {
            f"{host}.nft": text + _as_comments(at_boot)
            for host, (files, at_boot) in made.items()
            for text in files.values()
        }
        output.write_folder(folder, scripts, (), report)
        return
    from policylang.backends.boot import FILES
    from policylang.backends.iptables import SETS

    all_files = {
        f"{host}/{name}": text
        for host, (files, at_boot) in made.items()
        for name, text in (files | at_boot).items()
    }
    wanted = [f"{host}/{name}" for host in made for name in (SETS, *FILES)]
    careful = [f"{host}/{name}" for host in made for name in FILES]
    stale = [name for name in wanted if name not in all_files]
    output.write_folder(folder, all_files, stale, report, careful=careful)


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
    source = _source(chosen, chosen.file, report)
    loaded = None if source is None else pipeline.loaded_from(source, report, chosen.parameters)

    def checked(one: Loaded, own: Report) -> None:
        ruleset = pipeline.ruleset_of(one, own)
        if ruleset is not None:
            for target in TARGETS if chosen.target is None else (chosen.target,):
                pipeline.artifact_of(ruleset, target, own)

    if loaded is not None and loaded.here is None and loaded.hosts:
        from policylang.cli.fleet import for_each_host

        for_each_host(loaded, checked, report, shows_progress=chosen.format == "text")
    elif loaded is not None:
        checked(loaded, report)
    is_text = chosen.format == "text"
    show(report, chosen, sys.stderr if is_text else sys.stdout)
    if is_text and not report.has_errors:
        counts = ", ".join(filter(None, ("no errors", summary(report.diagnostics))))
        print(f"{_called(chosen.file)}: {counts}")
    return _status(report)


def _lint(chosen: argparse.Namespace) -> int:
    from policylang.cli import linting

    report = Report()
    return linting.run(chosen, _sources(chosen, report), report)


def _plan(chosen: argparse.Namespace) -> int:
    from policylang.cli import changing

    teller = Teller(chosen, _called(chosen.file))
    return changing.plan(chosen, _source(chosen, chosen.file, teller.report), teller)


def _apply(chosen: argparse.Namespace) -> int:
    from policylang.cli import changing

    teller = Teller(chosen, _called(chosen.file))
    return changing.apply(chosen, _source(chosen, chosen.file, teller.report), teller)


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
    return testing.run(chosen, _sources(chosen, report), report)


def _query(chosen: argparse.Namespace) -> int:
    from policylang.cli import querying

    return querying.run(chosen, Report())


def _trace(chosen: argparse.Namespace) -> int:
    from policylang.cli import tracing

    return tracing.run(chosen)


def _verify(chosen: argparse.Namespace) -> int:
    from policylang.cli import verifying

    teller = Teller(chosen, _called(chosen.file))
    return verifying.verify(chosen, _source(chosen, chosen.file, teller.report), teller)


def _diff(chosen: argparse.Namespace) -> int:
    from policylang.cli import diffing

    return diffing.run(chosen, Report())


def _golden(chosen: argparse.Namespace) -> int:
    from policylang.cli import golden

    return golden.run(chosen, Report())


def _review(chosen: argparse.Namespace) -> int:
    from policylang.cli import golden_review

    return golden_review.run(chosen, Report())


def _textconv(chosen: argparse.Namespace) -> int:
    from policylang.cli import golden_textconv

    return golden_textconv.run(chosen)


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


def _source(chosen: argparse.Namespace, file: str, report: Report) -> pipeline.Source | None:
    """What to compile; None, reported, where something that is named cannot be read."""
    from policylang.cli.given import given

    policy, besides = _policy(file, report), given(chosen, report)
    return None if policy is None or besides is None else besides.to(policy)


def _sources(chosen: argparse.Namespace, report: Report) -> list[tuple[str, pipeline.Source]]:
    """The same of several policies, each with what lines call it, less what cannot be read."""
    from policylang.cli.given import given

    besides = given(chosen, report)
    if besides is None:
        return []
    policies = [(_called(file), _policy(file, report)) for file in chosen.files]
    return [(name, besides.to(policy)) for name, policy in policies if policy is not None]


def _policy(file: str, report: Report) -> Path | pipeline.Text | None:
    """The policy; None, reported, where standard input is closed or no text."""
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
