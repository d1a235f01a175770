"""Unpack a zip file that nobody has vouched for."""

from __future__ import annotations

import os
import secrets
import shutil
import stat
import zipfile
import zlib
from pathlib import Path, PurePosixPath, PureWindowsPath

from steppo_gym.errors import DataError

MAX_BYTES = 8 * 2**30
MAX_FILES = 200_000


def extract_zip(
    archive: str | Path, folder: str | Path, *, max_bytes: int = MAX_BYTES, max_files: int = MAX_FILES
) -> int:
    """Unpack `archive` into `folder`, over what is there. All names and sizes are checked before anything is written.

    Args:
        archive: a zip file.
        folder: made if needed.
        max_bytes: most bytes the files may have together once unpacked.
        max_files: most files.

    Returns:
        Number of files written.

    Raises:
        DataError: no zip file or a damaged one; a name that leads out of the folder or comes twice; a link or another
            special file; an encrypted file or one packed in an unusual way; too much; or the folder cannot be written.
    """
    folder = Path(folder).resolve()
    try:
        with zipfile.ZipFile(archive) as file:
            members = [member for member in file.infolist() if not member.is_dir()]
            targets = [_target(member, folder, archive) for member in members]
            _check_names(members, targets, archive, folder)
            _check_size(members, archive, max_bytes, max_files)
            for member, target in zip(members, targets, strict=True):
                _extract(file, member, target)
    except (
        *(zipfile.BadZipFile, zipfile.LargeZipFile, zlib.error, UnicodeDecodeError, EOFError),
        # What the module says to versions and flags that it does not know, and to a name that is none.
        *(NotImplementedError, IndexError),
    ) as error:
        raise DataError(
            f"Expected an undamaged zip file, got {archive} ({error}). Delete it, fetch it again."
        ) from error
    except (FileExistsError, IsADirectoryError, NotADirectoryError) as error:
        raise _mixed_up(archive, folder, error) from error
    except OSError as error:
        raise DataError(
            f"{archive} cannot be unpacked into {folder} ({error}). Make room or choose another folder."
        ) from error
    return len(members)


def _check_size(members: list[zipfile.ZipInfo], archive: str | Path, max_bytes: int, max_files: int) -> None:
    # `zipfile` reads no more of a member than its header says, so the headers can be believed.
    size = sum(member.file_size for member in members)
    if len(members) > max_files or size > max_bytes:
        raise DataError(
            f"Expected at most {max_files} files and {max_bytes} bytes in {archive}, found {len(members)} and {size}."
        )


def _check_names(members: list[zipfile.ZipInfo], targets: list[Path], archive: str | Path, folder: Path) -> None:
    known: set[Path] = set()
    for member, target in zip(members, targets, strict=True):
        if target in known:
            raise _refused(archive, "every name once", f"{member.filename!r} again")
        known.add(target)
    if mixed := next((parent for target in targets for parent in target.parents if parent in known), None):
        raise _mixed_up(archive, folder, mixed)


def _target(member: zipfile.ZipInfo, folder: Path, archive: str | Path) -> Path:
    name = member.filename
    parts = (*PurePosixPath(name).parts, *PureWindowsPath(name).parts)
    absolute = PurePosixPath(name).is_absolute() or PureWindowsPath(name).drive or PureWindowsPath(name).root
    try:
        # Resolving finds links that lie in the folder already and lead out of it.
        target = (folder / name).resolve()
    except RuntimeError:
        # Links that lead to each other.
        target = folder
    if absolute or ".." in parts or folder not in target.parents:
        raise _refused(archive, "names inside the folder", repr(name))
    kind = stat.S_IFMT(member.external_attr >> 16)
    if kind not in (0, stat.S_IFREG):
        raise _refused(archive, "no links" if kind == stat.S_IFLNK else "no special files", repr(name))
    if member.flag_bits & 1:
        raise _refused(archive, "no encrypted files", repr(name))
    if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        # Others can ask for gigabytes of memory before they give a byte.
        raise _refused(archive, "stored or deflated files", f"{name!r}, packed by method {member.compress_type}")
    return target


def _refused(archive: str | Path, expected: str, found: str) -> DataError:
    return DataError(f"Expected {expected} in {archive}, found {found:.200}. Nothing was unpacked.")


def _mixed_up(archive: str | Path, folder: Path, problem: object) -> DataError:
    return DataError(f"Expected a file where {archive} or {folder} has a folder, or the reverse ({problem}).")


def _extract(file: zipfile.ZipFile, member: zipfile.ZipInfo, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    # A name that nothing has: neither a member nor a link that somebody has laid there.
    partial = target.with_name(f".{secrets.token_hex(8)}.unfinished")
    try:
        with file.open(member) as source, partial.open("xb") as sink:
            shutil.copyfileobj(source, sink)
        os.replace(partial, target)
    finally:
        partial.unlink(missing_ok=True)
