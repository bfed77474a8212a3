"""Keeps what was applied, and what holds: the state folder.

Each generation is a folder of its own that never changes: the artifact's files as they are
loaded, the policy's texts, and what tells damage. Whatever cannot be read again exactly as it
was written is refused. How rules are loaded it does not know.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import quote

from policylang.apply import artifact_file, boot_place, checksums, durable, kernel, state
from policylang.apply.artifact_file import Described
from policylang.apply.flows import Flow
from policylang.apply.plain import Data, Plain
from policylang.apply.state import Doing, State
from policylang.apply.who import made_by
from policylang.backends.base import Artifact, OutputFile
from policylang.diagnostics import Report
from policylang.source import SourceFile

__all__ = ["Doing", "Kept", "Record", "State", "made_by", "state_folder"]

FOLDER = Path("/var/lib/policylang")
VARIABLE = "POLICYLANG_STATE"

FORMAT = 1
FLOWS = "flows.json"  # what a confirmation is to end
MOST_KEPT = 20
DIGITS = 6


@dataclass(frozen=True, slots=True)
class Kept:
    """What is told of a generation. `digest` is equal where all that matters of two is equal.

    `digest` is in hexadecimal, over the artifact, the policy's texts and the parameters.
    `made_at` is in UTC; `way` is the engine's. `policy_path` is absolute, empty where the policy
    was no file; `host` is the one that was meant, empty where the policy has none.
    """

    number: int
    target: str
    way: str
    digest: str
    made_at: datetime
    made_by: str
    policy_name: str
    parameters: tuple[tuple[str, str], ...]
    policy_path: str = ""
    host: str = ""


def state_folder(netns: str | None) -> Path:
    """Where the record of a namespace is: a name of `ip netns`, a path, or None for here.

    Who is in a namespace that has a name finds what was applied there by that name.
    """
    folder = Path(os.environ.get(VARIABLE) or FOLDER)
    netns = netns if netns is not None else kernel.own_name()
    if netns is None:
        return folder
    # `.` and `..` are no names of namespaces, and must not be those of other folders.
    return folder / "netns" / quote(netns, safe="").replace(".", "%2E")


class _DamagedError(Exception):
    """Why a generation cannot be used."""


@dataclass(frozen=True, slots=True)
class _Read:
    kept: Kept
    described: Described
    texts: Mapping[str, str]  # of the artifact's files
    files: Mapping[str, bytes]  # all of the generation's folder


class Record:
    """The record in one folder, which need not be there yet.

    Who writes has the namespace alone (`kernel.alone`), or nobody else uses the folder.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    # --- generations --------------------------------------------------------------------------

    def keep(
        self,
        artifact: Artifact,
        *,
        way: str,
        policy_name: str,
        parameters: Mapping[str, str],
        made_by: str,
        report: Report,
        sources: Iterable[SourceFile] = (),
        policy_path: str = "",
        host: str = "",
        boot: Iterable[OutputFile] | None = None,
    ) -> Kept | None:
        """Keep a generation; None, with `cannot-keep` and nothing left of it, where that fails.

        `sources` are texts of the policy, the policy itself first; those that the artifact's
        lines came from are kept as well. `boot` are the files for a boot where they are laid out
        already. The oldest that nothing needs any more are removed.
        """
        described = artifact_file.describe(artifact, sources)
        texts = {file.name: file.text for file in artifact.files}
        chosen = tuple(sorted(parameters.items()))
        digest = _digest(described, texts, chosen)
        now = datetime.now(UTC).replace(microsecond=0)
        try:
            durable.make_folder(self._generations)
            with self._locked():
                durable.clear_unfinished(self._generations)
                number = max(self._numbers(), default=0) + 1
                kept = Kept(
                    *(number, artifact.target, way, digest, now, made_by, policy_name, chosen),
                    policy_path=policy_path,
                    host=host,
                )
                files = {boot_place.ABOUT: _about(kept, described)}
                files |= {name: text.encode() for name, text in texts.items()}
                files |= boot_place.files(artifact, way, boot)
                sealed = checksums.with_sums(files, boot_place.WAY)
                durable.put_folder(self._place(number), sealed)
                self._prune(number)
        except OSError as error:
            where = f"`{_where(error, self.folder)}`: {error.strerror or error}"
            report.add(
                "cannot-keep",
                f"the generation cannot be kept in `{self.folder}`",
                None,
                help=f"nothing was changed; {where}",
            )
            return None
        return kept

    def kept(self, report: Report) -> tuple[Kept, ...]:
        """All generations that can be used, the newest first.

        Warns `generation-left-out` of those that cannot.
        """
        found: list[Kept] = []
        for number in sorted(self._numbers(), reverse=True):
            try:
                found.append(self._read(number).kept)
            except _DamagedError as reason:
                message = f"generation {number} is left out: {reason}"
                report.add("generation-left-out", message, None)
        return tuple(found)

    def one(self, number: int, report: Report) -> Kept | None:
        """What is told of a generation; reports as `artifact` does."""
        read = self._found(number, report)
        return None if read is None else read.kept

    def artifact(self, number: int, report: Report) -> Artifact | None:
        """A generation's artifact, exactly as it was kept, its spans in the texts of then.

        None, with `no-such-generation` or `damaged-generation`, where there is none.
        """
        read = self._found(number, report)
        if read is None:
            return None
        try:
            return artifact_file.restore(read.described, read.texts)
        except ValueError as reason:
            self._report_damaged(number, str(reason), report)
            return None

    def sources(self, number: int, report: Report) -> tuple[SourceFile, ...] | None:
        """The texts of a generation's policy, the policy first; reports as `artifact` does."""
        read = self._found(number, report)
        return None if read is None else read.described.sources

    def policy_text(self, number: int, report: Report) -> str | None:
        """The text of the policy itself, without what it includes; reports as `artifact` does."""
        sources = self.sources(number, report)
        return None if sources is None else next((s.text for s in sources), "")

    def confirm_for_boot(
        self, number: int, report: Report, *, root: Path = boot_place.ROOT
    ) -> bool:
        """Let a boot load a generation from now on; False, with `not-saved-for-boot`, if not.

        Where the service is installed for this folder (under `root`), the settings and modules
        that the system sees to at boot are written too.
        """
        read = self._found(number, report)
        if read is None:
            return False
        try:
            durable.put_link(self.folder / boot_place.LINK, str(self._relative(number)))
            boot_place.write_drop_ins(self.folder, read.files, root)
        except OSError as error:
            report.add(
                "not-saved-for-boot",
                f"generation {number} is in force, and is not what a boot will load",
                None,
                help=f"`{_where(error, self.folder)}`: {error.strerror or error}",
            )
            return False
        return True

    # --- the state ----------------------------------------------------------------------------

    def state(self, report: Report) -> State | None:
        """What holds; where nothing was ever written, nothing of ours in this thread's namespace.

        None, and `damaged-state`, where it is not known.
        """
        path = self.folder / "state.json"
        try:
            return state.read(path.read_bytes())
        except FileNotFoundError:
            return State.here()
        except PermissionError:
            message = f"what is in force is not known: may not read `{path}`"
            report.add("not-permitted", message, None, help="run it as root")
            return None
        except OSError as error:
            reason = error.strerror or str(error)
        except ValueError as error:
            reason = str(error)
        report.add(
            "damaged-state",
            f"what is in force is not known: `{path}` cannot be used: {reason}",
            None,
            help=f"`mv {path} {path}.damaged` gives it up; `policylang apply` then starts anew,"
            " and the kept generations stay",
        )
        return None

    def set_state(self, new: State, report: Report) -> bool:
        """Write down what holds, to the disk; False, and `cannot-keep`, where that fails."""
        path = self.folder / "state.json"
        try:
            durable.make_folder(self.folder)
            durable.put_file(path, state.text_of(new))
        except OSError as error:
            message = f"cannot write `{path}`: {error.strerror or error}"
            report.add("cannot-keep", message, None)
            return False
        return True

    # --- what is to be done at a confirmation -------------------------------------------------

    def set_flows(self, number: int, flows: tuple[Flow, ...], report: Report) -> bool:
        """Write down what a generation's confirmation will end; reports `cannot-keep`."""
        path = self.folder / FLOWS
        data = {"generation": number, "flows": Plain().data(flows)}
        try:
            durable.put_file(path, f"{json.dumps(data)}\n".encode())
        except OSError as error:
            message = f"cannot write `{path}`: {error.strerror or error}"
            report.add("cannot-keep", message, None)
            return False
        return True

    def flows(self, number: int) -> tuple[Flow, ...]:
        """What a generation's confirmation ends; nothing where that was not written down."""
        try:
            data = json.loads((self.folder / FLOWS).read_bytes())
            if data["generation"] != number:
                return ()
            found: tuple[Flow, ...] = Plain().value(tuple[Flow, ...], data["flows"])
        except (OSError, ValueError, KeyError, TypeError, RecursionError):
            return ()
        return found

    def forget_flows(self) -> None:
        """Drop what was written down; that it cannot be dropped does no harm."""
        with suppress(OSError):
            (self.folder / FLOWS).unlink(missing_ok=True)

    # --- inside -------------------------------------------------------------------------------

    @property
    def _generations(self) -> Path:
        return self.folder / "generations"

    def _relative(self, number: int) -> Path:
        return Path("generations") / f"{number:0{DIGITS}}"

    def _place(self, number: int) -> Path:
        return self.folder / self._relative(number)

    def _numbers(self) -> list[int]:
        """All that there are, damaged ones too."""
        try:
            names = [path.name for path in self._generations.iterdir()]
        except OSError:
            return []
        return [int(name) for name in names if name.isascii() and name.isdigit()]

    @contextmanager
    def _locked(self) -> Iterator[None]:
        """Alone with the generations, also among those who work in other namespaces."""
        descriptor = os.open(self._generations, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield
        finally:
            os.close(descriptor)

    def _found(self, number: int, report: Report) -> _Read | None:
        if number not in self._numbers():
            numbers = sorted(self._numbers())
            known = (
                f"there are {numbers[0]} to {numbers[-1]}" if numbers else "nothing was kept yet"
            )
            report.add("no-such-generation", f"there is no generation {number}", None, help=known)
            return None
        try:
            return self._read(number)
        except _DamagedError as reason:
            self._report_damaged(number, str(reason), report)
            return None

    def _report_damaged(self, number: int, reason: str, report: Report) -> None:
        message = f"generation {number} cannot be used: {reason}"
        report.add("damaged-generation", message, None, help=f"see `{self._place(number)}`")

    def _read(self, number: int) -> _Read:
        place = self._place(number)
        try:
            files = checksums.verified(place, boot_place.WAY)
            data = json.loads(files[boot_place.ABOUT])
            if data["format"] != FORMAT:
                raise _DamagedError("another version of policylang wrote it")
            kept: Kept = Plain().value(Kept, data["kept"])
            sources = tuple(SourceFile(str(name), str(text)) for name, text in data["sources"])
            described = Described(data["described"], sources)
            names = [one["name"] for one in described.data["artifact"]["files"]]
            texts = {name: files[name].decode() for name in names}
        except OSError as error:
            raise _DamagedError(f"`{error.filename}`: {error.strerror}") from error
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            raise _DamagedError(_words(error)) from error
        if kept.number != number:
            raise _DamagedError(f"it is generation {kept.number} at the wrong place")
        is_same_target = kept.target == described.data["artifact"]["target"]
        if not is_same_target or kept.digest != _digest(described, texts, kept.parameters):
            raise _DamagedError("its digest is another")
        return _Read(kept, described, texts, files)

    def _prune(self, newest: int) -> None:
        """Remove the oldest, but for what the state speaks of and a boot loads."""
        quiet = Report()
        holds = self.state(quiet)
        if holds is None:
            return
        needed = holds.named | {newest}
        booted = boot_place.linked_number(self.folder)
        for number in sorted(self._numbers(), reverse=True)[MOST_KEPT:]:
            if number not in needed and number != booted:
                with suppress(OSError):  # it stays until the next time
                    durable.remove_folder(self._place(number))


def _about(kept: Kept, described: Described) -> bytes:
    data = {
        "format": FORMAT,
        "kept": Plain().data(kept),
        "sources": [[source.name, source.text] for source in described.sources],
        "described": described.data,
    }
    return (json.dumps(data) + "\n").encode()


def _digest(
    described: Described, texts: Mapping[str, str], parameters: tuple[tuple[str, str], ...]
) -> str:
    sources = [[source.name, source.text] for source in described.sources]
    all_that_matters: Data = [described.data, sources, texts, parameters]
    return hashlib.sha256(json.dumps(all_that_matters, sort_keys=True).encode()).hexdigest()


def _where(error: OSError, folder: Path) -> object:
    """What could not be written; of a rename, the new place."""
    return error.filename2 or error.filename or folder


def _words(error: Exception) -> str:
    if isinstance(error, KeyError):
        return f"`{error.args[0]}` is missing"
    return str(error)
