"""Models to a zip and back; hostile zips, of which nothing is written; downloads from a server that fails."""

from __future__ import annotations

import base64
import hashlib
import json
import logging
import os
import pickle
import shlex
import socket
import stat
import subprocess
import sys
import threading
import time
import urllib.request
import zipfile
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import Folders
from helpers.crossvalidations import NAME, documents

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


@pytest.mark.parametrize("sender", ["/home/x y/results/{}", r"D:\\Dataset\\{}"])
def test_instructions_are_those_of_this_machine(
    results: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, sender: str
) -> None:
    """Of upstream, with its absolute paths and no plans.json beside postprocessing.pkl."""
    (results / NAME / MODEL.format("2d") / "plans.json").write_text(json.dumps(documents()["plans.json"]))
    root, separator = sender.format(NAME), "\\" if "\\" in sender else "/"
    merged = separator.join((root, MODEL.format("2d"), "crossval_results_folds_0_1", ""))
    chosen = {"configuration": "2d", "plans_identifier": "nnUNetPlans", "trainer": "nnUNetTrainer"}
    best: dict[str, Any] = {"selected_model_or_models": [chosen]}
    best |= {"postprocessing_file": f"{merged}postprocessing.pkl", "some_plans_file": f"{merged}plans.json"}
    information = {"best_model_or_ensemble": best, "folds": [0, 1], "dataset_name_or_id": "41"}
    file = results / NAME / "inference_information.json"
    file.write_text(json.dumps(information))
    export(tmp_path / "m.zip", "2d")
    elsewhere = tmp_path / "else where"
    monkeypatch.setenv("nnUNet_results", str(elsewhere))
    for _ in range(2):  # the second time nothing differs
        (model,) = install_model_from_zip_file(tmp_path / "m.zip")
        text = model.with_name("inference_instructions.txt").read_text()
        words = shlex.split(text.splitlines()[-1])
        assert words[words.index("-pp_pkl_file") + 1] == str(model / "crossval_results_folds_0_1/postprocessing.pkl")
        assert words[words.index("-plans_json") + 1] == str(model / "plans.json")
        assert f"nnUNetv2_predict -d {NAME} -i INPUT_FOLDER" in text
        written = json.loads(model.with_name(file.name).read_text())["best_model_or_ensemble"]
        assert Path(written["postprocessing_file"]).is_file() and Path(written["some_plans_file"]).is_file()


def test_information_that_leads_elsewhere_is_not_followed(
    results: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    best = {"postprocessing_file": "x", "postprocessing_file_relative": "../../x", "some_plans_file": "y"}
    content = json.dumps({"best_model_or_ensemble": best, "dataset_name_or_id": NAME})
    (results / NAME / "inference_information.json").write_text(content)
    export(tmp_path / "m.zip", "2d")
    monkeypatch.setenv("nnUNet_results", str(tmp_path / "elsewhere"))
    install_model_from_zip_file(tmp_path / "m.zip")
    assert "leads out of the folder of its dataset" in caplog.text
    assert (tmp_path / "elsewhere" / NAME / "inference_information.json").read_text() == content


def test_documents_beside_the_postprocessing_are_packed(results: Path, tmp_path: Path) -> None:
    merged = results / NAME / MODEL.format("2d") / "crossval_results_folds_0_1"
    for name in ("plans.json", "dataset.json"):
        (merged / name).write_text("{}")
    names = export(tmp_path / "m.zip", "2d")
    assert {f"{merged.relative_to(results)}/{name}" for name in ("plans.json", "dataset.json")} <= set(names)


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
    with pytest.raises(PathError, match=r"is missing; -f 0 packs the folds .*:\n.*fold_1/checkpoint_final.pth$"):
        export(tmp_path / "n.zip", "2d", strict=False)
    with pytest.raises(PathError, match=r"^14 files .* missing; -f 0 packs .*; --not_strict packs .*:\n") as caught:
        export(tmp_path / "n.zip", "2d", folds=(0, 1, 2, 3, 4, "all"))
    assert len(str(caught.value).splitlines()) == 7 and str(caught.value).endswith("\nand 9 more")
    assert export(tmp_path / "o.zip", "2d", folds=(0,), strict=False)
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
    """Serves one file; cuts the first `cuts` answers short, and says what it is told to.

    Args:
        shift: bytes by which a resumed answer begins too early.
        tag: ETag; a request of an older version (If-Range) gets the whole file, unless `ignores_version`.
    """

    def __init__(
        self,
        content: bytes,
        cuts: int = 0,
        length: int | None = None,
        status: int = 200,
        shift: int = 0,
        tag: str | None = None,
        ignores_version: bool = False,
    ) -> None:
        self.requests: list[str | None] = []
        self.authorizations: list[str | None] = []
        self.content, self.tag = content, tag
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                wanted = self.headers.get("Range")
                outer.requests.append(wanted)
                outer.authorizations.append(self.headers.get("Authorization"))
                content, tag = outer.content, outer.tag
                if not ignores_version and self.headers.get("If-Range", tag) != tag:
                    wanted = None
                start = max(0, int(wanted[6:-1]) - shift) if wanted else 0
                rest = content[start:]
                if length is None and start >= len(content) > 0:
                    self.send_response(416)
                    self.send_header("Content-Range", f"bytes */{len(content)}")
                    self.send_header("Content-Length", "0")
                    self.end_headers()
                    return
                self.send_response(206 if wanted else status)
                if wanted:
                    self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
                if tag is not None:
                    self.send_header("ETag", tag)
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


KILLED = """
import os, signal, sys
from pathlib import Path
from nnunet_lite.model_sharing.model_import import install_model_from_zip_file
rename = Path.rename
def renamed(self, target):
    if Path(target).name == sys.argv[2]:
        os.kill(os.getpid(), signal.SIGKILL)
    return rename(self, target)
Path.rename = renamed
install_model_from_zip_file(sys.argv[1], overwrite=True)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="SIGKILL")
def test_an_installation_killed_between_old_and_new_loses_no_model(
    results: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    export(tmp_path / "m.zip", "2d")
    monkeypatch.setenv("nnUNet_results", str(tmp_path / "elsewhere"))
    (model,) = install_model_from_zip_file(tmp_path / "m.zip")
    (model / "plans.json").write_text("[]")
    killed = subprocess.run([sys.executable, "-c", KILLED, str(tmp_path / "m.zip"), model.name], check=False)
    assert killed.returncode == -9 and not model.exists()
    with caplog.at_level(logging.WARNING), pytest.raises(StorageError, match="There is already"):
        install_model_from_zip_file(tmp_path / "m.zip")
    assert (model / "plans.json").read_text() == "[]" and "was put back" in caplog.text
    install_model_from_zip_file(tmp_path / "m.zip", overwrite=True)
    assert (model / "plans.json").read_text() == "{}"
    assert [entry.name for entry in model.parent.iterdir() if "replaced" in entry.name] == []


def test_an_answer_that_begins_elsewhere_is_not_appended(serve: Callable[..., Server], tmp_path: Path) -> None:
    server = serve(shift=7, cuts=1)
    download_and_install_from_url(server.url)
    assert installed(tmp_path) and [request is None for request in server.requests] == [True, False, True]


@pytest.mark.parametrize("ignores_version", [False, True])
def test_a_file_that_changed_meanwhile_is_begun_again(
    serve: Callable[..., Server], tmp_path: Path, ignores_version: bool
) -> None:
    server = serve(cuts=5, tag='"first"', ignores_version=ignores_version, content=b"PK" + bytes(10**6))
    with pytest.raises(ArgumentError, match="broke off"):
        download_and_install_from_url(server.url)
    server.content, server.tag = (tmp_path / "m.zip").read_bytes(), '"second"'
    download_and_install_from_url(server.url)
    assert installed(tmp_path)


@pytest.mark.parametrize("has_room_for_more", [False, True])
def test_a_file_of_another_size_is_begun_again(
    serve: Callable[..., Server], tmp_path: Path, has_room_for_more: bool
) -> None:
    """Also where the server names no version, and where it has fewer bytes than are here."""
    content = (tmp_path / "m.zip").read_bytes()
    server = serve(cuts=5, content=content[:100] + bytes(len(content) // 2 if has_room_for_more else 10**6))
    with pytest.raises(ArgumentError, match="broke off"):
        download_and_install_from_url(server.url)
    server.content = content
    download_and_install_from_url(server.url)
    assert installed(tmp_path)


@pytest.mark.parametrize("with_sum", [False, True])
def test_an_interrupted_installation_does_not_download_again(
    serve: Callable[..., Server], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, with_sum: bool
) -> None:
    server, content = serve(), (tmp_path / "m.zip").read_bytes()
    digest = hashlib.sha256(content).hexdigest() if with_sum else None

    def interrupt(*_: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(model_download, "install_model_from_zip_file", interrupt)
        download_and_install_from_url(server.url, digest)
    download_and_install_from_url(server.url, digest)
    assert installed(tmp_path) and not list((tmp_path / "elsewhere" / ".downloads").iterdir())
    assert server.requests[1:] == ([] if with_sum else [f"bytes={len(content)}-"])


@pytest.mark.skipif(os.name != "posix", reason="locks")
def test_two_commands_do_not_write_to_one_download(serve: Callable[..., Server], tmp_path: Path) -> None:
    server = serve()
    with (
        model_download._alone(server.url, tmp_path / "elsewhere" / ".downloads"),
        pytest.raises(StorageError, match="Another command is downloading"),
    ):
        download_and_install_from_url(server.url)
    download_and_install_from_url(server.url)
    assert installed(tmp_path)


def test_passwords_go_to_the_server_and_not_into_messages(
    serve: Callable[..., Server], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    server = serve(cuts=1)
    download_and_install_from_url(server.url.replace("http://", "http://me:s%20cret@"))
    assert installed(tmp_path)
    token = base64.b64encode(b"me:s cret").decode()
    assert server.authorizations == [f"Basic {token}"] * 2
    assert "cret" not in caplog.text
    for options in ({"status": 404}, {"content": b"<html>"}, {"length": 10**9}, {"content": b"PK" + bytes(100)}):
        url = serve(**options).url.replace("http://", "http://me:secret@")
        with pytest.raises(nnUNetError) as raised:
            download_and_install_from_url(url)
        assert "secret" not in str(raised.value) and "http://127.0.0.1" in str(raised.value)
    with pytest.raises(ArgumentError, match="^ftp://host/m.zip: expected an address"):
        download_and_install_from_url("ftp://me:secret@host/m.zip")


def test_from_https_to_http_only_with_a_checksum() -> None:
    request = urllib.request.Request("https://somewhere/m.zip")
    where: Any = (None, 302, "Found", {}, "http://me:secret@elsewhere/m.zip")
    with pytest.raises(ArgumentError, match="leads to http://elsewhere/m.zip, .* --sha256"):
        model_download._WebRedirects(False).redirect_request(request, *where)
    followed = model_download._WebRedirects(True).redirect_request(request, *where)
    assert followed.full_url == "http://elsewhere/m.zip"
    plain = urllib.request.Request("http://somewhere/m.zip")
    assert model_download._WebRedirects(False).redirect_request(plain, *where) is not None
