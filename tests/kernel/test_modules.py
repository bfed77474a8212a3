"""Kernel modules are loaded before the rules, and a helper that is missing is found out before.

This kernel has no modules: all is built in. So modprobe is a program of ours, which keeps what it
was asked for and what was loaded by then; that the kernel lacks a helper is true for one that no
kernel has.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from policylang import pipeline
from policylang.apply import kernel, modules, programs
from policylang.apply.transaction import Applied, apply
from policylang.backends.base import Artifact
from policylang.cli import main
from policylang.diagnostics import Report
from tests.kernel.ground import Loader, Namespace, policylang

pytestmark = pytest.mark.usefixtures("kernel")

LOADERS = pytest.mark.parametrize("loader", Loader, ids=lambda loader: loader.value)
POLICY = """\
allow ssh inbound
allow ftp inbound
allow tftp outbound name "boot"
"""
OF_FTP, OF_TFTP = ("nf_conntrack_ftp", "nf_nat_ftp"), ("nf_conntrack_tftp", "nf_nat_tftp")


@pytest.fixture(autouse=True)
def private_lock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Legacy iptables takes one lock for the whole machine unless told another."""
    monkeypatch.setenv("XTABLES_LOCKFILE", str(tmp_path / "lock"))


@pytest.fixture
def namespace() -> Iterator[Namespace]:
    made = Namespace.create("modules")
    yield made
    made.delete()


@dataclass(frozen=True, slots=True)
class Machine:
    """A machine whose kernel has modules, as far as modprobe goes."""

    folder: Path
    namespace: Namespace

    def has(self, *names: str) -> None:
        """Let these be all the modules that there are."""
        (self.folder / "there").write_text("".join(f"{name}\n" for name in names))

    def has_loaded(self, name: str) -> None:
        """Let a module be loaded, as /proc/modules shows it."""
        with (self.folder / "loaded").open("a") as file:
            file.write(f"{name} 20480 0 - Live 0x0000000000000000\n")

    @property
    def asked(self) -> list[str]:
        """The modules that were asked for, each with the rules that were there by then."""
        path = self.folder / "asked"
        return path.read_text().splitlines() if path.exists() else []

    def rules(self) -> list[str]:
        """All rules of the namespace, whoever made them; those of iptables are in nft or legacy."""
        said = self.namespace.run(["nft", "list", "ruleset"]).stdout
        said += self.namespace.run(["iptables-legacy-save"]).stdout
        return [line for line in said.splitlines() if "policylang" in line]


MODPROBE = """\
#!/bin/sh
[ "$1" = -- ] || exit 9
count=$(
  { ip netns exec @NAMESPACE@ nft list ruleset; ip netns exec @NAMESPACE@ iptables-legacy-save; } |
    grep -c policylang
)
echo "$2 $count" >>"@FOLDER@/asked"
if ! grep -qx "$2" "@FOLDER@/there"; then
  echo "modprobe: FATAL: Module $2 not found in directory /lib/modules/6.1.0" >&2
  exit 1
fi
echo "$2 20480 0 - Live 0x0000000000000000" >>"@FOLDER@/loaded"
"""


@pytest.fixture
def machine(tmp_path: Path, namespace: Namespace, monkeypatch: pytest.MonkeyPatch) -> Machine:
    folder = tmp_path / "machine"
    (folder / "lib" / os.uname().release).mkdir(parents=True)
    (folder / "loaded").touch()
    program = folder / "bin" / "modprobe"
    program.parent.mkdir()
    text = MODPROBE.replace("@FOLDER@", str(folder)).replace("@NAMESPACE@", namespace.name)
    program.write_text(text)
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}:{os.environ['PATH']}")
    monkeypatch.setattr(modules, "FOLDER", folder / "lib")
    monkeypatch.setattr(modules, "LOADED", folder / "loaded")
    made = Machine(folder, namespace)
    made.has(*OF_FTP, *OF_TFTP)
    return made


def compiled(policy: str, loader: Loader) -> Artifact:
    report = Report()
    source = pipeline.Text(policy, "test.policy", Path())
    artifact = pipeline.compile_policy(source, loader.target, report)
    assert artifact is not None, report.diagnostics
    return artifact


def applied(artifact: Artifact, machine: Machine, loader: Loader) -> tuple[Applied | None, Report]:
    report = Report()
    name, flavour = machine.namespace.name, loader.flavour
    return apply(artifact, report, netns=name, flavour=flavour), report


# --- modules ---------------------------------------------------------------------------------


@LOADERS
def test_modules_come_before_the_rules(loader: Loader, machine: Machine) -> None:
    """Each helper's module, then its NAT part, in the policy's order, while nothing is loaded.

    The next apply finds them there and asks for none.
    """
    done, report = applied(compiled(POLICY, loader), machine, loader)
    assert report.diagnostics == []
    assert machine.asked == [f"{name} 0" for name in (*OF_FTP, *OF_TFTP)]
    assert done is not None
    assert done.beside == tuple(f"loaded the module `{name}`" for name in (*OF_FTP, *OF_TFTP))
    assert machine.rules() != []
    done, _ = applied(compiled(POLICY, loader), machine, loader)
    assert done is not None
    assert done.beside == ()
    assert len(machine.asked) == 4


@LOADERS
def test_a_module_that_is_missing_stops_everything(loader: Loader, machine: Machine) -> None:
    """The statements are named, every missing module is told of, and nothing is applied."""
    machine.has("nf_nat_ftp")
    done, report = applied(compiled(POLICY, loader), machine, loader)
    assert done is None
    assert machine.rules() == []
    first, second = report.in_order()
    assert (first.code, second.code) == ("module-missing", "module-missing")
    assert first.span is not None and second.span is not None
    assert (first.span.text, second.span.line) == ("allow ftp inbound", 3)
    assert "`nf_conntrack_ftp`" in first.message
    assert first.help is not None
    assert "Module nf_conntrack_ftp not found" in first.help


@LOADERS
def test_what_was_in_force_stays(loader: Loader, machine: Machine) -> None:
    """A policy whose module is missing leaves the one before it in force."""
    applied(compiled("allow ssh inbound\n", loader), machine, loader)
    before = machine.rules()
    assert before != []
    machine.has()
    done, _ = applied(compiled(POLICY, loader), machine, loader)
    assert done is None
    assert machine.rules() == before


def test_a_nat_part_that_nothing_needs_may_be_missing(machine: Machine) -> None:
    """Without a translation in the policy the NAT part is tried, for others, and not missed."""
    machine.has("nf_conntrack_ftp", "nf_conntrack_tftp")
    done, report = applied(compiled(POLICY, Loader.NFT), machine, Loader.NFT)
    assert report.diagnostics == []
    assert done is not None
    assert done.beside == (
        "loaded the module `nf_conntrack_ftp`",
        "loaded the module `nf_conntrack_tftp`",
    )


def test_a_nat_part_that_a_translation_needs_must_be_there(machine: Machine) -> None:
    """With one, a helper without its NAT part would not find the addresses it has to change."""
    machine.has("nf_conntrack_ftp", "nf_conntrack_tftp")
    zones = "zone lan { interface eth1 }\nzone wan { interface eth0 }\n"
    policy = f"{zones}masquerade from lan to wan\nallow ftp from lan to wan\n"
    done, report = applied(compiled(policy, Loader.NFT), machine, Loader.NFT)
    assert done is None
    (diagnostic,) = report.diagnostics
    assert diagnostic.code == "module-missing"
    assert "`nf_nat_ftp`" in diagnostic.message
    assert diagnostic.span is not None
    assert diagnostic.span.text == "allow ftp from lan to wan"


def test_only_the_helpers_of_what_is_allowed_are_asked_for(machine: Machine) -> None:
    """`deny` assigns no helper; a service without one needs no module."""
    policy = "allow ssh inbound\ndeny ftp inbound\n"
    applied(compiled(policy, Loader.NFT), machine, Loader.NFT)
    assert machine.asked == []


def test_what_is_loaded_or_built_in_is_left_alone(machine: Machine) -> None:
    """modprobe succeeds for what is built in: /proc/modules shows nothing new, none is told of."""
    machine.has_loaded("nf_conntrack_ftp")
    (machine.folder / "bin" / "modprobe").write_text("#!/bin/sh\n")
    done, report = applied(compiled(POLICY, Loader.NFT), machine, Loader.NFT)
    assert report.diagnostics == []
    assert done is not None
    assert done.beside == ()


def test_without_a_folder_of_modules_nothing_is_asked(
    machine: Machine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on this machine, or in a container that does not see its host's modules."""
    monkeypatch.setattr(modules, "FOLDER", tmp_path / "nowhere")
    done, report = applied(compiled(POLICY, Loader.NFT), machine, Loader.NFT)
    assert done is not None
    assert report.diagnostics == []
    assert machine.asked == []


def test_a_missing_modprobe_is_told_with_its_package(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A kernel with modules and no program to load them: nothing is applied."""
    real = programs.find
    monkeypatch.setattr(programs, "find", lambda p: None if p == "modprobe" else real(p))
    done, report = applied(compiled(POLICY, Loader.NFT), machine, Loader.NFT)
    assert done is None
    (diagnostic,) = report.diagnostics
    assert diagnostic.code == "program-missing"
    assert diagnostic.help == "install the package `kmod`: apt install kmod"


def test_who_may_not_load_them_is_told_so(
    machine: Machine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A plain user is told that it takes root, and not that a module is missing."""
    (tmp_path / "status").write_text("CapEff:\t0000000000000000\n")
    monkeypatch.setattr(kernel, "OWN_STATUS", tmp_path / "status")
    done, report = applied(compiled(POLICY, Loader.NFT), machine, Loader.NFT)
    assert done is None
    assert [d.code for d in report.diagnostics] == ["not-permitted"]
    assert machine.asked == []


def test_the_command_says_what_was_loaded(
    machine: Machine, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The modules are named in the line that says what was done."""
    (tmp_path / "web.policy").write_text("allow ftp inbound\n")
    command = ["apply", "--yes", str(tmp_path / "web.policy"), "--netns", machine.namespace.name]
    assert main(command) == 0
    said = capsys.readouterr().out
    loaded = "; loaded the module `nf_conntrack_ftp`; loaded the module `nf_nat_ftp`\n"
    assert said.endswith(loaded)


# --- for boot --------------------------------------------------------------------------------


@pytest.mark.parametrize("target", ["nft", "iptables"])
def test_modules_and_settings_are_listed_for_boot(target: str, tmp_path: Path) -> None:
    """A folder gets the lists beside the rules, each line below the statement that asks for it."""
    policy = tmp_path / "router.policy"
    zones = "zone lan { interface eth1 }\nzone wan { interface eth0 }\n"
    policy.write_text(f"{zones}allow ftp from lan to wan\n")
    folder = tmp_path / "out"
    command = ("compile", str(policy), "--target", target, "-o", f"{folder}/")
    policylang(*command, directory=tmp_path)
    rules = {"nft": {"policylang.nft"}, "iptables": {"rules.v4", "rules.v6"}}[target]
    assert {path.name for path in folder.iterdir()} == {*rules, "modules-load.conf", "sysctl.conf"}
    statement = "allow ftp from lan to wan"
    assert (folder / "modules-load.conf").read_text().splitlines()[1:] == [
        "",
        f"# router.policy:3 helper assignment: {statement}",
        *OF_FTP,
    ]
    assert (folder / "sysctl.conf").read_text().splitlines()[2:] == [
        "",
        f"# router.policy:3 {statement}",
        "net.ipv4.ip_forward = 1",
        "net.ipv6.conf.all.forwarding = 1",
    ]
    policy.write_text("allow ssh inbound\n")
    policylang(*command, directory=tmp_path)
    assert {path.name for path in folder.iterdir()} == rules


def test_sysctl_takes_the_list(tmp_path: Path, namespace: Namespace) -> None:
    """sysctl(8) reads the file as it is and switches forwarding on."""
    policy = tmp_path / "router.policy"
    policy.write_text("zone lan { interface eth1 }\nallow ssh from lan to any\n")
    policylang("compile", str(policy), "-o", f"{tmp_path}/out/", directory=tmp_path)
    listed = namespace.run(["sysctl", "-p", str(tmp_path / "out" / "sysctl.conf")]).stdout
    assert listed.split("\n")[:2] == [
        "net.ipv4.ip_forward = 1",
        "net.ipv6.conf.all.forwarding = 1",
    ]
    assert namespace.run(["sysctl", "-n", "net.ipv4.ip_forward"]).stdout == "1\n"


def test_a_list_of_somebody_else_is_not_overwritten(tmp_path: Path) -> None:
    """`-o /etc` must not cost the machine its /etc/sysctl.conf: nothing at all is written."""
    policy = tmp_path / "router.policy"
    policy.write_text("zone lan { interface eth1 }\nallow ssh from lan to any\n")
    folder = tmp_path / "etc"
    folder.mkdir()
    (folder / "sysctl.conf").write_text("kernel.sysrq = 0\n")
    assert main(["compile", str(policy), "-o", str(folder)]) == 1
    assert {path.name: path.read_text() for path in folder.iterdir()} == {
        "sysctl.conf": "kernel.sysrq = 0\n"
    }


def test_a_script_alone_says_what_it_needs(
    tmp_path: Path, namespace: Namespace, capsys: pytest.CaptureFixture[str]
) -> None:
    """Without a folder the lists are comments behind the script, which stays one for `nft -f`."""
    policy = tmp_path / "router.policy"
    policy.write_text("zone lan { interface eth1 }\nallow ftp from lan to any\n")
    assert main(["compile", str(policy)]) == 0
    script = capsys.readouterr().out
    assert script.endswith(
        "# modules-load.conf: nf_conntrack_ftp, nf_nat_ftp\n"
        "# sysctl.conf: net.ipv4.ip_forward = 1, net.ipv6.conf.all.forwarding = 1\n"
    )
    namespace.run(["nft", "-f", "-"], stdin=script)
    assert "table inet policylang" in namespace.run(["nft", "list", "tables"]).stdout


# --- helpers ---------------------------------------------------------------------------------


def lacking(artifact: Artifact) -> Artifact:
    """The artifact with the helper `tftp` replaced by one that no kernel has."""
    files = tuple(
        replace(
            file,
            text=file.text.replace('type "tftp"', 'type "nope"').replace(
                "--helper tftp", "--helper nope"
            ),
        )
        for file in artifact.files
    )
    helpers = tuple(
        replace(helper, name="nope") if helper.name == "tftp" else helper
        for helper in artifact.needs.helpers
    )
    return replace(artifact, files=files, needs=replace(artifact.needs, helpers=helpers))


@LOADERS
def test_a_helper_that_the_kernel_lacks_names_the_statement(
    loader: Loader, machine: Machine
) -> None:
    """It is found out in a scratch namespace; what was in force stays, and forwarding too."""
    applied(compiled("allow ssh inbound\n", loader), machine, loader)
    before = machine.rules()
    artifact = lacking(compiled(POLICY, loader))
    done, report = applied(artifact, machine, loader)
    assert done is None
    (diagnostic,) = report.diagnostics
    assert diagnostic.code == "helper-missing"
    assert "`nope` for UDP" in diagnostic.message
    assert diagnostic.span is not None
    assert diagnostic.span.text == 'allow tftp outbound name "boot"'
    assert machine.rules() == before


@LOADERS
def test_another_refusal_is_not_taken_for_a_missing_helper(
    loader: Loader, machine: Machine
) -> None:
    """Where all helpers are there, what the kernel refuses is told as it is."""
    artifact = compiled(f"{POLICY}allow tcp 777 inbound from 192.0.2.1\n", loader)
    broken = replace(
        artifact,
        files=tuple(replace(f, text=f.text.replace("777", "77777")) for f in artifact.files),
    )
    done, report = applied(broken, machine, loader)
    assert done is None
    assert {d.code for d in report.diagnostics} == {"refused-by-kernel"}
