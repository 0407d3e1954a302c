"""Models to a zip and back; hostile zips, of which nothing is written; downloads from a server that fails."""

from __future__ import annotations

import hashlib
import json
import os
import pickle
import socket
import stat
import threading
import time
import zipfile
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import Folders
from helpers.crossvalidations import NAME

from nnunet_lite.exceptions import ArgumentError, CheckpointError, PathError, StorageError, nnUNetError
from nnunet_lite.model_sharing import model_download
from nnunet_lite.model_sharing.model_download import download_and_install_from_url
from nnunet_lite.model_sharing.model_export import export_pretrained_model
from nnunet_lite.model_sharing.model_import import install_model_from_zip_file
from nnunet_lite.models.checkpoint import load_checkpoint
from nnunet_lite.postprocessing.postprocessing_file import save_postprocessing
from nnunet_lite.utilities.temporary_names import temporary_path

MODEL = "nnUNetTrainer__nnUNetPlans__{}"


def make_model(results: Path, configuration: str, folds: tuple[Any, ...] = (0, 1)) -> Path:
    folder = results / NAME / MODEL.format(configuration)
    for fold in folds:
        validation = folder / f"fold_{fold}" / "validation"
        validation.mkdir(parents=True)
        content = {
            "network_weights": {"w": torch.arange(1000.0)},
            "trainer_name": "nnUNetTrainer",
            "init_args": {"configuration": configuration, "plans": {}, "fold": fold},
            "inference_allowed_mirroring_axes": (0, 1),
            "optimizer_state": {"state": torch.arange(5000.0)},
        }
        torch.save(content, folder / f"fold_{fold}" / "checkpoint_final.pth")
        for name, text in (("debug.json", "{}"), ("progress.png", "png"), ("training_log_1.txt", "log")):
            (folder / f"fold_{fold}" / name).write_text(text)
        for name in ("summary.json", "a.nii.gz", "a.npz", "a.pkl", ".in_use"):
            (validation / name).write_text("{}")
    for name in ("plans.json", "dataset.json", "dataset_fingerprint.json"):
        (folder / name).write_text("{}")
    merged = folder / f"crossval_results_folds_{'_'.join(map(str, folds))}"
    (merged / "postprocessed").mkdir(parents=True)
    for name in ("summary.json", "postprocessing.json", "a.nii.gz", "postprocessed/a.nii.gz"):
        (merged / name).write_text("{}")
    save_postprocessing([{"labels_or_regions": 1}], merged / "postprocessing.pkl")
    return folder


def make_ensemble(results: Path, *configurations: str, folds: str = "0_1") -> None:
    name = "___".join(["ensemble", *(MODEL.format(one) for one in configurations), folds])
    folder = results / NAME / "ensembles" / name
    folder.mkdir(parents=True)
    (folder / "summary.json").write_text("{}")


def export(file: Path, *configurations: str, **options: Any) -> list[str]:
    export_pretrained_model(NAME, file, configurations, folds=options.pop("folds", (0, 1)), **options)
    with zipfile.ZipFile(file) as archive:
        return sorted(archive.namelist())


@pytest.fixture
def results(nnunet_folders: Folders) -> Path:
    make_model(nnunet_folders.results, "2d")
    make_model(nnunet_folders.results, "3d_fullres")
    make_ensemble(nnunet_folders.results, "2d", "3d_fullres")
    make_ensemble(nnunet_folders.results, "2d", "3d_lowres")
    make_ensemble(nnunet_folders.results, "2d", "3d_fullres", folds="0_1_2")
    for name in ("inference_information.json", "inference_instructions.txt"):
        (nnunet_folders.results / NAME / name).write_text("{}")
    return nnunet_folders.results


def test_what_a_zip_holds(results: Path, tmp_path: Path) -> None:
    names = export(tmp_path / "m.zip", "2d")
    model = f"{NAME}/{MODEL.format('2d')}"
    folds = [
        f"{model}/fold_{fold}/{name}"
        for fold in (0, 1)
        for name in ("checkpoint_final.pth", "debug.json", "progress.png", "validation/summary.json")
    ]
    merged = [
        f"{model}/crossval_results_folds_0_1/{name}"
        for name in ("postprocessing.json", "postprocessing.pkl", "summary.json")
    ]
    documents = [f"{model}/{name}" for name in ("dataset.json", "dataset_fingerprint.json", "plans.json")]
    general = ["export_manifest.json", "inference_information.json", "inference_instructions.txt"]
    assert names == sorted([*folds, *merged, *documents, *(f"{NAME}/{name}" for name in general)])
    more = set(export(tmp_path / "m.zip", "2d", "3d_fullres", export_crossval_predictions=True)) - set(names)
    ensembles = {name for name in more if "/ensembles/" in name}
    assert [name.split("/")[2].split("___")[1:] for name in ensembles] == [
        [MODEL.format("2d"), MODEL.format("3d_fullres"), "0_1"]
    ]
    assert f"{model}/fold_0/validation/a.nii.gz" in more and f"{model}/crossval_results_folds_0_1/a.nii.gz" in more
    assert not [name for name in more if "postprocessed" in name or name.endswith((".npz", "a.pkl", ".in_use"))]


def test_there_and_back(results: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    names = export(tmp_path / "m.zip", "2d", "3d_fullres")
    monkeypatch.setenv("nnUNet_results", str(tmp_path / "elsewhere"))
    models = install_model_from_zip_file(tmp_path / "m.zip")
    assert models == [tmp_path / "elsewhere" / NAME / MODEL.format(name) for name in ("2d", "3d_fullres")]
    for name in names:
        if not name.endswith("export_manifest.json"):
            assert (tmp_path / "elsewhere" / name).read_bytes() == (results / name).read_bytes()
    assert [entry.name for entry in (tmp_path / "elsewhere").iterdir()] == [NAME]
    assert install_model_from_zip_file(tmp_path / "m.zip") == models  # as after an interruption
    (models[0] / "of_the_one_before").touch()
    (models[1] / "fold_1" / "checkpoint_final.pth").unlink()
    with pytest.raises(StorageError, match="There is already: [^,]*3d_fullres; give --overwrite"):
        install_model_from_zip_file(tmp_path / "m.zip")
    (models[0] / "plans.json").write_text("[]")
    install_model_from_zip_file(tmp_path / "m.zip", overwrite=True)
    assert not (models[0] / "of_the_one_before").exists()


def test_documents_of_other_models_are_kept(results: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    export(tmp_path / "m.zip", "2d")
    monkeypatch.setenv("nnUNet_results", str(tmp_path / "elsewhere"))
    own = tmp_path / "elsewhere" / NAME / "inference_information.json"
    own.parent.mkdir(parents=True)
    own.write_text("[1]")
    (model,) = install_model_from_zip_file(tmp_path / "m.zip")
    assert own.read_text() == "[1]" and model.with_name("inference_instructions.txt").is_file()
    install_model_from_zip_file(tmp_path / "m.zip", overwrite=True)
    assert own.read_text() == "{}"


def test_what_a_killed_installation_left_goes(results: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    export(tmp_path / "m.zip", "2d")
    monkeypatch.setenv("nnUNet_results", str(tmp_path / "elsewhere"))
    name = temporary_path(Path("install")).name
    of_nobody = (
        tmp_path / "elsewhere" / name.replace(f"{os.getpid():08x}", f"{2**22 + 1:08x}")
    )  # more than there can be
    (of_nobody / NAME).mkdir(parents=True)
    install_model_from_zip_file(tmp_path / "m.zip")
    assert [entry.name for entry in (tmp_path / "elsewhere").iterdir()] == [NAME]


def test_only_what_inference_needs(results: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    export(tmp_path / "whole.zip", "2d")
    export(tmp_path / "slim.zip", "2d", inference_only=True)
    assert (tmp_path / "slim.zip").stat().st_size < 0.5 * (tmp_path / "whole.zip").stat().st_size
    monkeypatch.setenv("nnUNet_results", str(tmp_path / "elsewhere"))
    (model,) = install_model_from_zip_file(tmp_path / "slim.zip")
    content = load_checkpoint(model / "fold_0" / "checkpoint_final.pth")
    assert sorted(content) == ["inference_allowed_mirroring_axes", "init_args", "network_weights", "trainer_name"]
    assert torch.equal(content["network_weights"]["w"], torch.arange(1000.0))


@pytest.mark.parametrize(
    ("written", "packed"),
    [
        ('{"hostname": "ward7", "device": "cpu"}', {"device": "cpu"}),
        ('{"device": "cpu"}', {"device": "cpu"}),
        ('["hostname"]', ["hostname"]),
    ],
)
def test_a_model_for_prediction_does_not_name_the_computer(
    results: Path, tmp_path: Path, written: str, packed: Any
) -> None:
    file = results / NAME / MODEL.format("2d") / "fold_1" / "debug.json"
    file.write_text(written)
    name = file.relative_to(results).as_posix()
    for only, content in ((True, packed), (False, json.loads(written))):
        export(tmp_path / "m.zip", "2d", inference_only=only)
        with zipfile.ZipFile(tmp_path / "m.zip") as archive:
            assert json.loads(archive.read(name)) == content
    file.write_bytes(b"{damaged")
    export(tmp_path / "m.zip", "2d", inference_only=True)
    assert file.read_bytes() == b"{damaged"


def test_what_is_missing(results: Path, tmp_path: Path) -> None:
    with pytest.raises(PathError, match="There is no .*3d_lowres; name the configurations .* --not_strict"):
        export(tmp_path / "m.zip", "2d", "3d_lowres")
    (results / NAME / MODEL.format("2d") / "fold_0" / "progress.png").unlink()
    with pytest.raises(
        PathError, match=r"1 file of these models is missing; --not_strict packs what there is:\n.*progress"
    ):
        export(tmp_path / "m.zip", "2d")
    names = export(tmp_path / "m.zip", "2d", "3d_lowres", strict=False)
    assert f"{NAME}/{MODEL.format('2d')}/fold_0/checkpoint_final.pth" in names
    (results / NAME / MODEL.format("2d") / "fold_1" / "checkpoint_final.pth").unlink()
    with pytest.raises(PathError, match=r"is missing:\n.*fold_1/checkpoint_final.pth"):
        export(tmp_path / "n.zip", "2d", strict=False)
    with pytest.raises(PathError, match="None of the models exists"):
        export(tmp_path / "n.zip", "3d_lowres", strict=False)
    with pytest.raises(StorageError, match="is a folder, expected the name of a file"):
        export(tmp_path, "2d", strict=False)
    assert not (tmp_path / "n.zip").exists() and not [f for f in tmp_path.iterdir() if f.name.startswith(".")]


class Hostile:
    """Makes a file when unpickled freely."""

    def __init__(self, file: Path) -> None:
        self.file = file

    def __reduce__(self) -> Any:
        return Path.touch, (self.file,)


def _link(name: str) -> zipfile.ZipInfo:
    info = zipfile.ZipInfo(name)
    info.external_attr = (stat.S_IFLNK | 0o777) << 16
    return info


PLAIN = f"{NAME}/{MODEL.format('2d')}"
STRANGE: dict[str, Any] = {
    "upwards": "../evil.json",
    "upwards within": f"{PLAIN}/../../../evil.json",
    "absolute": "/tmp/evil.json",
    "a drive": "C:/evil.json",
    "backslashes": f"{PLAIN}\\..\\..\\evil.json",
    "a link": _link(f"{PLAIN}/plans.json.json"),
    "a link to a folder": _link(f"{NAME}/x__y__z/fold_0.json"),
    "no dataset": "other/x__y__z/plans.json",
    "no number": f"Dataset1_x/{MODEL.format('2d')}/plans.json",
    "no model": f"{NAME}/code/plans.json",
    "a foreign file": f"{NAME}/setup.py",
    "code": f"{PLAIN}/evil.py",
    "a library": f"{PLAIN}/fold_0/evil.so",
    "a pickle": f"{PLAIN}/fold_0/validation/case.pkl",
    "hidden": f"{PLAIN}/.bashrc.json",
    "at the top": "evil.json",
    "a line break": f"{PLAIN}/a\nb.json",
    "twice": f"{PLAIN}/PLANS.json",
}


@pytest.mark.parametrize("what", STRANGE)
@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_strange_members(results: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, what: str) -> None:
    export(tmp_path / "m.zip", "2d")
    with zipfile.ZipFile(tmp_path / "m.zip", "a") as archive:
        archive.writestr(STRANGE[what], "{}")
    monkeypatch.setenv("nnUNet_results", str(tmp_path / "deep" / "elsewhere"))
    with pytest.raises(ArgumentError, match="nothing was installed"):
        install_model_from_zip_file(tmp_path / "m.zip")
    assert not (tmp_path / "deep").exists() and not list(tmp_path.rglob("evil*"))


def replaced(source: Path, target: Path, **contents: bytes | Callable[[bytes], bytes]) -> Path:
    """A copy of a zip in which members (by the end of their names) have other contents; None drops one."""
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as new:
        for name in old.namelist():
            content = old.read(name)
            for end, other in contents.items():
                if name.endswith(end.replace("_dot_", ".")):
                    content = other(content) if callable(other) else other
            new.writestr(name, content)
    return target


def test_hostile_contents(results: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    export(tmp_path / "m.zip", "2d")
    monkeypatch.setenv("nnUNet_results", str(tmp_path / "elsewhere"))
    mark = tmp_path / "executed"
    torch.save({"network_weights": Hostile(mark)}, tmp_path / "evil.pth")

    def no_manifest(content: bytes) -> bytes:
        return json.dumps({"files": {}}).encode()

    def refused(kind: type[Exception], message: str, **contents: Any) -> None:
        file = replaced(tmp_path / "m.zip", tmp_path / "changed.zip", **contents)
        with pytest.raises(kind, match=message):
            install_model_from_zip_file(file)
        assert not mark.exists() and not [f for f in (tmp_path / "elsewhere").rglob("*") if f.is_file()]

    refused(
        CheckpointError,
        "checkpoint_final.pth",
        final_dot_pth=(tmp_path / "evil.pth").read_bytes(),
        manifest_dot_json=no_manifest,
    )
    refused(
        nnUNetError,
        "postprocessing.pkl",
        postprocessing_dot_pkl=pickle.dumps(Hostile(mark)),
        manifest_dot_json=no_manifest,
    )
    refused(ArgumentError, "its checksum is another", final_dot_pth=lambda content: content[:-1] + b"x")
    refused(ArgumentError, "no valid JSON", plans_dot_json=b"{", manifest_dot_json=no_manifest)
    refused(ArgumentError, "claims to hold", plans_dot_json=bytes(2**27), manifest_dot_json=no_manifest)
    refused(ArgumentError, "lists no files", manifest_dot_json=b"[]")
    (tmp_path / "changed.zip").write_bytes((tmp_path / "m.zip").read_bytes()[:-100])
    with pytest.raises(ArgumentError, match="is no zip that can be read"):
        install_model_from_zip_file(tmp_path / "changed.zip")
    with pytest.raises(ArgumentError, match="There is no file"):
        install_model_from_zip_file(tmp_path / "none.zip")
    with pytest.raises(ArgumentError, match="is a folder, expected a zip"):
        install_model_from_zip_file(tmp_path)
    with pytest.raises(ArgumentError, match="addresses are for nnUNetv2_download_pretrained_model_by_url"):
        install_model_from_zip_file("http://somewhere/m.zip")


def test_no_models(results: Path, tmp_path: Path) -> None:
    file = tmp_path / "m.zip"
    with zipfile.ZipFile(file, "w"):
        pass
    with pytest.raises(ArgumentError, match="holds no files"):
        install_model_from_zip_file(file)
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr(f"{NAME}/inference_information.json", "{}")
    with pytest.raises(ArgumentError, match="holds no model"):
        install_model_from_zip_file(file)
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr(f"{NAME}/{MODEL.format('4d')}/plans.json", "{}")
    with pytest.raises(ArgumentError, match=r"4d has no dataset.json; it cannot predict"):
        install_model_from_zip_file(file)


class Server:
    """Serves one file; cuts the first `cuts` answers short, and says what it is told to."""

    def __init__(self, content: bytes, cuts: int = 0, length: int | None = None, status: int = 200) -> None:
        self.requests: list[str | None] = []
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                wanted = self.headers.get("Range")
                outer.requests.append(wanted)
                start = int(wanted[6:-1]) if wanted else 0
                rest = content[start:]
                if length is None and start == len(content) > 0:
                    self.send_error(416)
                    return
                self.send_response(206 if start else status)
                if length != -1:
                    self.send_header("Content-Length", str(len(rest) if length is None else length))
                self.end_headers()
                self.wfile.write(rest[: len(rest) // 2] if len(outer.requests) <= cuts else rest)

            def log_message(self, *_: Any) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        self.url = f"http://127.0.0.1:{self.server.server_port}/model.zip"


@pytest.fixture
def serve(results: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Server]]:
    servers: list[Server] = []

    def start(**options: Any) -> Server:
        servers.append(Server(options.pop("content", (tmp_path / "m.zip").read_bytes()), **options))
        return servers[-1]

    export(tmp_path / "m.zip", "2d")
    monkeypatch.setenv("nnUNet_results", str(tmp_path / "elsewhere"))
    yield start
    for server in servers:
        server.server.shutdown()
        server.server.server_close()


def installed(tmp_path: Path) -> bool:
    return (tmp_path / "elsewhere" / NAME / MODEL.format("2d") / "plans.json").is_file()


@pytest.mark.parametrize("options", [{}, {"cuts": 3}, {"length": -1}])
def test_downloads(serve: Callable[..., Server], tmp_path: Path, options: dict[str, Any]) -> None:
    server = serve(**options)
    digest = hashlib.sha256((tmp_path / "m.zip").read_bytes()).hexdigest()
    download_and_install_from_url(server.url, digest)
    assert installed(tmp_path)
    assert [request is not None for request in server.requests] == [False] + [True] * options.get("cuts", 0)
    assert not list((tmp_path / "elsewhere" / ".downloads").iterdir())


def test_an_interrupted_download_goes_on_later(serve: Callable[..., Server], tmp_path: Path) -> None:
    server = serve(cuts=5)
    with pytest.raises(ArgumentError, match="the download broke off .* the same command goes on"):
        download_and_install_from_url(server.url)
    assert not installed(tmp_path)
    download_and_install_from_url(server.url)
    assert installed(tmp_path) and server.requests[-1] is not None


def test_servers_that_lie(serve: Callable[..., Server], tmp_path: Path) -> None:
    def refused(kind: type[Exception], message: str, server: Server, sha256: str | None = None) -> None:
        with pytest.raises(kind, match=message):
            download_and_install_from_url(server.url, sha256)
        assert not installed(tmp_path)

    refused(StorageError, "has SHA-256 .*, expected 0123", serve(), "0123")
    refused(ArgumentError, "is no zip: the server sent something else", serve(content=b"<html>not found</html>"))
    refused(ArgumentError, "the server answers 404", serve(status=404))
    refused(ArgumentError, "broke off", serve(length=10**9))
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        address = f"http://127.0.0.1:{unused.getsockname()[1]}/model.zip"
        with pytest.raises(ArgumentError, match="cannot be reached"):
            download_and_install_from_url(address)
    with pytest.raises(ArgumentError, match="begins with https://"):
        download_and_install_from_url("ftp://somewhere/m.zip")


def test_a_file_as_address(serve: Callable[..., Server], tmp_path: Path) -> None:
    download_and_install_from_url((tmp_path / "m.zip").as_uri())
    assert installed(tmp_path)


class OddServer:
    """Answers with a status, headers and a body that may never end."""

    def __init__(self, body: Callable[[], Iterator[bytes]], status: int, headers: dict[str, str]) -> None:
        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self.send_response(status)
                for key, value in headers.items():
                    self.send_header(key.replace("_", "-"), value)
                self.end_headers()
                try:
                    for block in body():
                        self.wfile.write(block)
                except OSError:  # the client has gone
                    pass

            def log_message(self, *_: Any) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        self.url = f"http://127.0.0.1:{self.server.server_port}/model.zip"


def nothing() -> Iterator[bytes]:
    return iter([])


def drops(seconds: float) -> Callable[[], Iterator[bytes]]:
    """The beginning of a zip, then a byte now and then for ever."""

    def body() -> Iterator[bytes]:
        yield b"PK"
        while True:
            time.sleep(seconds)
            yield b"x"

    return body


def endless(first: bytes) -> Callable[[], Iterator[bytes]]:
    def body() -> Iterator[bytes]:
        yield first
        while True:
            yield bytes(2**16)

    return body


@pytest.fixture
def serve_oddly(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., str]]:
    servers: list[OddServer] = []

    def start(body: Callable[[], Iterator[bytes]], status: int = 200, **headers: str) -> str:
        servers.append(OddServer(body, status, headers))
        return servers[-1].url

    monkeypatch.setenv("nnUNet_results", str(tmp_path / "elsewhere"))
    yield start
    for server in servers:
        server.server.shutdown()
        server.server.server_close()


@pytest.mark.parametrize("address", ["file:///etc/passwd", "ftp://127.0.0.1/m.zip", "data:,PK"])
def test_addresses_that_lead_elsewhere(serve_oddly: Callable[..., str], tmp_path: Path, address: str) -> None:
    with pytest.raises(ArgumentError, match="is not allowed|is no web address|the server answers 302"):
        download_and_install_from_url(serve_oddly(nothing, 302, Location=address))
    assert not [file for file in tmp_path.rglob("*") if file.is_file()]


def test_a_page_without_an_end_is_left_at_its_beginning(serve_oddly: Callable[..., str], tmp_path: Path) -> None:
    with pytest.raises(ArgumentError, match="is no zip: the server sent something else"):
        download_and_install_from_url(serve_oddly(endless(b"<html>")))
    assert not [file for file in tmp_path.rglob("*") if file.is_file()]


def test_more_than_was_announced(serve_oddly: Callable[..., str], tmp_path: Path) -> None:
    with pytest.raises(ArgumentError, match="is no zip|no zip that can be read"):
        download_and_install_from_url(serve_oddly(endless(b"PK"), Content_Length="1000"))
    assert not [file for file in tmp_path.rglob("*") if file.is_file()]


def test_a_size_that_no_disk_has(serve_oddly: Callable[..., str]) -> None:
    with pytest.raises(StorageError, match="announces .* has room for .*; free some space"):
        download_and_install_from_url(serve_oddly(nothing, Content_Length=str(10**18)))


def test_a_server_that_sends_drops(
    serve_oddly: Callable[..., str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(model_download, "_TIMEOUT", 0.3)
    with pytest.raises(ArgumentError, match=r"broke off \(only .* came in 0 seconds\)"):
        download_and_install_from_url(serve_oddly(drops(0.02), Content_Length="100000"))


def test_a_server_that_says_nothing(serve_oddly: Callable[..., str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(model_download, "_TIMEOUT", 0.3)
    with pytest.raises(ArgumentError, match="broke off .*timed out"):
        download_and_install_from_url(serve_oddly(drops(1), Content_Length="100000"))


def test_a_download_that_finds_a_model_is_kept_for_overwriting(serve: Callable[..., Server], tmp_path: Path) -> None:
    server = serve()
    (model,) = download_and_install_from_url(server.url)
    (model / "plans.json").write_text("[]")
    with pytest.raises(StorageError, match="There is already"):
        download_and_install_from_url(server.url)
    before = len(server.requests)
    download_and_install_from_url(server.url, overwrite=True)
    assert server.requests[before:] == [f"bytes={(tmp_path / 'm.zip').stat().st_size}-"]
    assert (model / "plans.json").read_text() == "{}" and not list((tmp_path / "elsewhere" / ".downloads").iterdir())
