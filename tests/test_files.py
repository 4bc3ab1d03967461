import errno
import fcntl
import os
import signal
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from netopt.files import write_atomically


def _interrupted(error: BaseException) -> Iterator[bytes]:
    yield b"the first half"
    raise error


@pytest.fixture
def umask() -> Iterator[int]:
    """A mask that is not the usual one, and the old one again afterwards."""
    mask = 0o027
    before = os.umask(mask)
    yield mask
    os.umask(before)


@pytest.mark.parametrize(
    ("chunks", "content"),
    [
        ([], b""),
        ([b""], b""),
        ([b"one"], b"one"),
        ([b"one", b"", memoryview(b"two"), b"\x00\xff"], b"onetwo\x00\xff"),
    ],
    ids=["no chunk", "an empty chunk", "one chunk", "several chunks"],
)
def test_chunks_are_written_in_order(tmp_path: Path, chunks: list[bytes | memoryview], content: bytes) -> None:
    path = tmp_path / "net.nopt"
    write_atomically(path, chunks)
    assert path.read_bytes() == content
    assert list(tmp_path.iterdir()) == [path]


def test_an_older_file_is_replaced(tmp_path: Path) -> None:
    path = tmp_path / "net.nopt"
    path.write_bytes(b"old and longer")
    write_atomically(path, [b"new"])
    assert path.read_bytes() == b"new"


def test_a_reader_of_the_older_file_keeps_it(tmp_path: Path) -> None:
    """Writing over the same bytes would change what is being read."""
    path = tmp_path / "net.nopt"
    path.write_bytes(b"old")
    with path.open("rb") as reader:
        write_atomically(path, [b"new"])
        assert reader.read() == b"old"


@pytest.mark.parametrize("error", [ValueError("no more"), KeyboardInterrupt()], ids=["error", "interrupt"])
def test_an_interruption_leaves_what_was_there(tmp_path: Path, error: BaseException) -> None:
    path = tmp_path / "net.nopt"
    path.write_bytes(b"old")
    with pytest.raises(type(error)):
        write_atomically(path, _interrupted(error))
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_an_interruption_of_the_first_write_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no more"):
        write_atomically(tmp_path / "net.nopt", _interrupted(ValueError("no more")))
    assert list(tmp_path.iterdir()) == []


def test_a_chunk_that_is_not_bytes_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(TypeError):
        write_atomically(tmp_path / "net.nopt", [b"ok", "text"])  # type: ignore[list-item]
    assert list(tmp_path.iterdir()) == []


def test_a_folder_at_the_path_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "net.nopt"
    path.mkdir()
    with pytest.raises(OSError):  # noqa: PT011 the message is the operating system's
        write_atomically(path, [b"new"])
    assert list(tmp_path.iterdir()) == [path]
    assert list(path.iterdir()) == []


def test_a_missing_folder_is_told(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        write_atomically(tmp_path / "none" / "net.nopt", [b"new"])


def test_a_bare_file_name_means_the_working_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write_atomically(Path("net.nopt"), [b"new"])
    assert (tmp_path / "net.nopt").read_bytes() == b"new"


@pytest.mark.skipif(os.name != "posix", reason="file modes are POSIX's")
def test_the_mode_is_that_of_any_new_file(tmp_path: Path, umask: int) -> None:
    write_atomically(tmp_path / "net.nopt", [b"new"])
    (tmp_path / "other").write_bytes(b"new")
    modes = [stat.S_IMODE((tmp_path / name).stat().st_mode) for name in ("net.nopt", "other")]
    assert modes == [0o666 & ~umask] * 2


@pytest.mark.skipif(os.name != "posix", reason="the mask is POSIX's")
def test_the_mask_of_the_process_stays(tmp_path: Path, umask: int) -> None:
    write_atomically(tmp_path / "net.nopt", [b"new"])
    assert os.umask(umask) == umask


@pytest.fixture(params=["nameless", "named"])
def either_way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """With new files that have no name, and as on file systems that have none."""
    if request.param == "named":
        monkeypatch.delattr(os, "O_TMPFILE")
    return str(request.param)


def test_a_file_keeps_its_mode(tmp_path: Path, either_way: str) -> None:
    path = tmp_path / "net.nopt"
    path.write_bytes(b"old")
    path.chmod(0o600)
    write_atomically(path, [b"new"])
    assert (path.read_bytes(), stat.S_IMODE(path.stat().st_mode)) == (b"new", 0o600)


def test_a_link_is_followed(tmp_path: Path, either_way: str) -> None:
    (tmp_path / "store").mkdir()
    target, link, dangling = tmp_path / "store" / "real.nopt", tmp_path / "net.nopt", tmp_path / "later.nopt"
    target.write_bytes(b"old")
    link.symlink_to(target)
    dangling.symlink_to(tmp_path / "store" / "new.nopt")
    write_atomically(link, [b"new"])
    write_atomically(dangling, [b"newer"])
    assert link.is_symlink()
    assert dangling.is_symlink()
    assert (target.read_bytes(), dangling.read_bytes()) == (b"new", b"newer")
    assert sorted(path.name for path in (tmp_path / "store").iterdir()) == ["new.nopt", "real.nopt"]


def test_names_may_be_as_long_as_the_file_system_has_them(tmp_path: Path, either_way: str) -> None:
    path = tmp_path / ("n" * 250 + ".nopt")
    write_atomically(path, [b"new"])
    assert path.read_bytes() == b"new"


_KILLED = """
import os, signal, sys
from pathlib import Path
from netopt.files import write_atomically
def kill(*arguments):
    os.kill(os.getpid(), signal.SIGKILL)
def chunks():
    yield b"half"
    kill()
path, way, moment = sys.argv[1:]
if way == "named":
    del os.O_TMPFILE
if moment == "moved":
    Path.replace = kill
write_atomically(Path(path), chunks() if moment == "written" else [b"whole"])
"""


@pytest.mark.parametrize("moment", ["written", "moved"])
def test_a_killed_writer_leaves_nothing(tmp_path: Path, either_way: str, moment: str) -> None:
    """At once, or when the next file is written there: it has a name only for the moment in which it is moved."""
    path = tmp_path / "net.nopt"
    path.write_bytes(b"old")
    killed = subprocess.run([sys.executable, "-c", _KILLED, str(path), either_way, moment], check=False)
    assert killed.returncode == -signal.SIGKILL
    assert path.read_bytes() == b"old"
    assert len(list(tmp_path.iterdir())) == (1 if (either_way, moment) == ("nameless", "written") else 2)
    write_atomically(path, [b"new"])
    assert path.read_bytes() == b"new"
    assert list(tmp_path.iterdir()) == [path]


def test_what_another_writer_is_writing_is_left_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(os, "O_TMPFILE")

    def chunks() -> Iterator[bytes]:
        yield b"first"
        write_atomically(tmp_path / "other.nopt", [b"other"])

    write_atomically(tmp_path / "net.nopt", chunks())
    assert (tmp_path / "net.nopt").read_bytes() == b"first"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["net.nopt", "other.nopt"]


def test_another_writer_may_take_a_new_file_for_an_abandoned_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between the calls that make it and lock it."""
    monkeypatch.delattr(os, "O_TMPFILE")
    lock, removed = fcntl.flock, []

    def late(descriptor: int, how: int) -> None:
        if not removed:
            removed.extend(tmp_path.iterdir())
            removed[0].unlink()
        lock(descriptor, how)

    monkeypatch.setattr(fcntl, "flock", late)
    write_atomically(tmp_path / "net.nopt", [b"new"])
    assert len(removed) == 1
    assert [path.read_bytes() for path in tmp_path.iterdir()] == [b"new"]


def test_file_systems_without_locks(tmp_path: Path, either_way: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(descriptor: int, how: int) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", fail)
    other = tmp_path / ".netopt-0123456789abcdef.tmp"
    other.write_bytes(b"half")
    write_atomically(tmp_path / "net.nopt", [b"new"])
    assert (tmp_path / "net.nopt").read_bytes() == b"new"
    assert other.read_bytes() == b"half"  # it may be being written


def test_what_only_looks_abandoned_is_left_alone(tmp_path: Path, either_way: str) -> None:
    """To open a pipe would wait for its other end; to remove a link or a folder is not ours."""
    pipe, link, folder = (tmp_path / f".netopt-{name}.tmp" for name in "abc")
    os.mkfifo(pipe)
    folder.mkdir()
    link.symlink_to(folder)
    write_atomically(tmp_path / "net.nopt", [b"new"])
    assert {path.name for path in tmp_path.iterdir()} == {"net.nopt", pipe.name, link.name, folder.name}


def test_what_is_no_file_is_written_to(tmp_path: Path) -> None:
    """Saving to /dev/null must not replace it by a file."""
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    try:
        write_atomically(pipe, [b"one", memoryview(b"two")])
        assert os.read(reader, 100) == b"onetwo"
    finally:
        os.close(reader)
    assert stat.S_ISFIFO(pipe.stat().st_mode)
    assert list(tmp_path.iterdir()) == [pipe]
