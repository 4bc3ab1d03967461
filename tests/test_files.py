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
    """A program maps its file: writing over the same bytes would change a running network."""
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
if sys.argv[2] == "named":
    del os.O_TMPFILE
def chunks():
    yield b"half"
    os.kill(os.getpid(), signal.SIGKILL)
write_atomically(Path(sys.argv[1]), chunks())
"""


def test_a_killed_writer_leaves_nothing(tmp_path: Path, either_way: str) -> None:
    path = tmp_path / "net.nopt"
    path.write_bytes(b"old")
    killed = subprocess.run([sys.executable, "-c", _KILLED, str(path), either_way], check=False)
    assert killed.returncode == -signal.SIGKILL
    assert path.read_bytes() == b"old"
    assert len(list(tmp_path.iterdir())) == (1 if either_way == "nameless" else 2)
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
