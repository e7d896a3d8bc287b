"""Files and folders that appear under their name complete, or not at all.

A draft's name says whose it is: ``.NAME.MACHINE.PROCESS.part``. Machines may share a disk, and only
its own machine can tell whether a process is alive; others leave a draft alone for a day.
"""

import errno
import glob
import hashlib
import importlib
import os
import platform
import re
import shutil
import stat
import time
from collections.abc import Collection, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

from pathology.errors import OutputError

SOFTWARE = "bcos-pathology"
"""What the TIFF tag Software says of slides that are written here; their planes shrink by 2."""

DRAFT_END = ".part"
ABANDONED_S = 24 * 3600.0
"""Age at which another machine's draft is nobody's: none writes to one file for so long."""

_HOSTS_OWN = "pid:[4026531836]"  # Linux's first name space of processes, the same on every machine


def writable_folder(folder: Path) -> Path:
    """``folder``, made and shown to be writable.

    Raises:
        OutputError: it cannot be made or written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe = folder / f".write-probe-{this_machine()}-{os.getpid()}"
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise OutputError(
            f"{folder}: cannot be written ({error.strerror}); choose another --out"
        ) from error
    return folder


def this_machine() -> str:
    """The machine's name, such as may be part of a file's: without dots, and short.

    Containers that have their host's name, but count processes for themselves, are told apart.
    """
    name = platform.node()
    with suppress(OSError):
        counted_in = Path("/proc/self/ns/pid").readlink().name
        if counted_in != _HOSTS_OWN:
            name += f"_{''.join(filter(str.isdecimal, counted_in))}"
    safe = re.sub(r"[^A-Za-z0-9_-]", "-", name.replace(".", "_")) or "machine"
    if len(safe) <= 40:
        return safe
    return f"{safe[:31]}-{hashlib.sha256(name.encode()).hexdigest()[:8]}"


def draft_path(path: Path, process: int | None = None) -> Path:
    """Where a process of this machine, this one when omitted, writes what will be ``path``."""
    process = os.getpid() if process is None else process
    return path.with_name(f".{path.name}.{this_machine()}.{process}{DRAFT_END}")


def drafted(draft: Path) -> str | None:
    """The name that a draft is to have, ``None`` of other files."""
    owner = _owner(draft)
    return owner and owner[0]


def _owner(draft: Path) -> tuple[str, str, int] | None:
    """Of a draft: its name-to-be, machine and process."""
    found = re.fullmatch(r"\.(.+)\.([A-Za-z0-9_-]+)\.(\d+)" + re.escape(DRAFT_END), draft.name)
    return (found[1], found[2], int(found[3])) if found else None


def _is_abandoned(draft: Path) -> bool:
    owner = _owner(draft)
    if owner is None:
        return False
    _, machine, process = owner
    if machine == this_machine():
        return not _is_alive(process)
    try:
        # Of a folder, whatever was written to it last.
        last = max(path.stat().st_mtime for path in (draft, *draft.rglob("*")))
    except OSError:  # it is being written, or moved
        return False
    return time.time() - last > ABANDONED_S


@contextmanager
def complete_file(path: Path) -> Iterator[Path]:
    """A draft beside ``path`` that takes its name only when the block succeeds.

    Yields:
        The draft's path; what is written there replaces ``path`` in one step.

    Raises:
        OutputError: the folder cannot be made, or the file not be written.
    """
    draft = draft_path(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield draft
        draft.replace(path)
    except OSError as error:
        raise OutputError(f"{path}: cannot be written: {error.strerror or error}") from error
    finally:
        # Where the folder itself is no folder there is no draft to remove either.
        if draft.parent.is_dir():
            draft.unlink(missing_ok=True)


def remove_drafts(folder: Path, names: Collection[str]) -> None:
    """Remove drafts that killed processes left in ``folder`` of files with these ``names``.

    Drafts of processes that are alive are left alone, and so are those of other files: another run
    may be writing into the same folder.
    """
    names = set(names)
    remove_abandoned(draft for draft in folder.glob(f".*{DRAFT_END}") if drafted(draft) in names)


def remove_abandoned(drafts: Iterable[Path]) -> None:
    """Remove those of ``drafts``, files or folders, whose processes are gone."""
    for draft in drafts:
        if not _is_abandoned(draft):
            continue
        if draft.is_dir() and not draft.is_symlink():
            shutil.rmtree(draft, ignore_errors=True)
        else:
            draft.unlink(missing_ok=True)


def _is_alive(process: int) -> bool:
    if os.name == "nt":
        return True  # there, signal 0 is Ctrl-C
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except OSError:  # somebody else's
        return True
    try:
        # One that has ended but was not waited for, as in containers without an init, is gone, too.
        state = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0]
    except (OSError, IndexError):
        return True
    return state not in ("Z", "X")


@contextmanager
def complete_folder(folder: Path) -> Iterator[Path]:
    """A scratch folder beside ``folder`` that takes its name only when the block succeeds.

    What killed processes left of the same folder is removed; processes that are alive have scratch
    folders of their own, and the last to finish is the one that stays.

    Yields:
        The scratch folder, empty. A killed or failing block leaves nothing under the final name.

    Raises:
        OutputError: it cannot be made, or not be written.
    """
    scratch = draft_path(folder)
    shutil.rmtree(scratch, ignore_errors=True)
    try:
        with suppress(FileNotFoundError):  # looked at once: another process may move it meanwhile
            if not stat.S_ISDIR(folder.stat().st_mode):
                raise FileExistsError(errno.EEXIST, "there is a file of that name")
        scratch.mkdir(parents=True)
        remove_scratch(folder)
        yield scratch
        _replace(scratch, folder)
    except OSError as error:
        raise OutputError(f"{folder}: cannot be written: {error.strerror or error}") from error
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def _replace(scratch: Path, folder: Path) -> None:
    """Give ``scratch`` the name of ``folder``, which may be there."""
    former = draft_path(folder.with_name(f"{folder.name}.former"))
    for _ in range(8):  # others may put theirs there in between
        with suppress(FileNotFoundError):
            folder.rename(former)
        try:
            scratch.rename(folder)
            break
        except OSError as error:
            if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                raise
        finally:
            shutil.rmtree(former, ignore_errors=True)
    else:
        raise OSError(errno.EEXIST, "others keep writing it")


def remove_scratch(folder: Path) -> None:
    """Remove what processes that are gone have left of ``folder``."""
    names = (folder.name, f"{folder.name}.former")
    drafts = folder.parent.glob(f".{glob.escape(folder.name)}.*{DRAFT_END}")
    remove_abandoned(draft for draft in drafts if drafted(draft) in names)


@contextmanager
def alone_in(folder: Path, doing: str, patience_s: float = 0.0) -> Iterator[None]:
    """Nobody else does the same in ``folder`` while the block runs, also where disks are shared.

    The system lets go of the lock however the process ends; reading processes do not inherit it.

    Args:
        folder: it is there.
        doing: what is done, for the message: ``training in it``.
        patience_s: to wait for somebody else's end.

    Raises:
        OutputError: somebody else does.
    """
    try:
        fcntl = importlib.import_module("fcntl")
    except ImportError:  # Windows
        yield
        return
    with (folder / ".lock").open("a") as file:
        deadline = time.monotonic() + patience_s
        while (held := _is_held(fcntl, file)) and time.monotonic() < deadline:
            time.sleep(0.1)
        if held:
            raise OutputError(
                f"{folder}: another process is {doing}; wait for its end, or choose another --out"
            )
        yield


def _is_held(fcntl: Any, file: IO[str]) -> bool:
    """Whether somebody else has the lock, else it is ours; never on a file system without locks."""
    try:
        fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        return error.errno in (errno.EACCES, errno.EAGAIN)
    return False
