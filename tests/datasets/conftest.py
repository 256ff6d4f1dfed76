"""Tiny image sets in the official file formats, so that the real reading code runs without the real files."""

import gzip
import hashlib
import http.server
import importlib
import io
import pickle
import tarfile
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

TRAIN, TEST, CLASSES = 60, 30, 10
CIFAR = {
    "cifar10": ("cifar-10-batches-py", ["data_batch_1", "data_batch_2"], "test_batch", "labels", "label_names"),
    "cifar100": ("cifar-100-python", ["train"], "test", "fine_labels", "fine_label_names"),
}
CLOTHES = "FashionMNIST/raw"


@dataclass
class Official:
    """A data set: the content of its files by path below its folder, and what reading them should give."""

    name: str
    files: dict[str, bytes]
    train: np.ndarray
    test: np.ndarray

    @property
    def module(self) -> Any:
        return importlib.import_module(f"datasets.sources.{self.name}")

    @property
    def source(self) -> Any:
        return self.module.SOURCE

    def load(self, root: Path, **settings: Any) -> Any:
        settings = {"train_size": None, "valid_size": 10, "test_size": None, "split_seed": 0, **settings}
        if self.name == "cifar100":
            settings = {"subset": False, **settings}
        return getattr(self.module, self.name)(root, **settings)

    def write(self, home: Path) -> Path:
        for file, content in self.files.items():
            (home / file).parent.mkdir(parents=True, exist_ok=True)
            (home / file).write_bytes(content)
        return home

    def archives(self) -> dict[str, bytes]:
        """What the official server offers, by file name."""
        if self.name == "fashion_mnist":
            return {f"{Path(file).name}.gz": gzip.compress(content) for file, content in self.files.items()}
        packed = io.BytesIO()
        with tarfile.open(fileobj=packed, mode="w:gz") as archive:
            for file, content in self.files.items():
                entry = tarfile.TarInfo(file)
                entry.size = len(content)
                archive.addfile(entry, io.BytesIO(content))
        return {self.source.kind.filename: packed.getvalue()}


def md5(content: bytes) -> str:
    return hashlib.md5(content).hexdigest()


def idx(values: np.ndarray) -> bytes:
    """The format of the MNIST family: zeros, type (8: bytes), number of axes, sizes (big endian), values."""
    return bytes([0, 0, 8, values.ndim]) + b"".join(size.to_bytes(4, "big") for size in values.shape) + values.tobytes()


def targets(count: int) -> np.ndarray:
    return (np.arange(count) * 7 % CLASSES).astype(np.uint8)


def cifar(name, train, test, monkeypatch):
    folder, train_files, test_file, label_key, names_key = CIFAR[name]
    rows = dict(zip(train_files, np.array_split(np.arange(TRAIN), len(train_files)), strict=True))
    content = {
        file: pickle.dumps({"data": train[part].reshape(len(part), -1), label_key: targets(TRAIN)[part].tolist()})
        for file, part in rows.items()
    }
    content[test_file] = pickle.dumps({"data": test.reshape(TEST, -1), label_key: targets(TEST).tolist()})
    meta = {"cifar10": "batches.meta", "cifar100": "meta"}[name]
    content[meta] = pickle.dumps({names_key: [f"class {n}" for n in range(CLASSES)]})
    made = Official(name, {f"{folder}/{file}": data for file, data in content.items()}, train, test)
    kind = made.source.kind
    monkeypatch.setattr(kind, "train_list", [[file, md5(content[file])] for file in train_files])
    monkeypatch.setattr(kind, "test_list", [[test_file, md5(content[test_file])]])
    monkeypatch.setattr(kind, "meta", {**kind.meta, "md5": md5(content[meta])})
    return made


def fashion(train, test, monkeypatch):
    content = {
        "train-images-idx3-ubyte": idx(train[:, 0]),
        "train-labels-idx1-ubyte": idx(targets(TRAIN)),
        "t10k-images-idx3-ubyte": idx(test[:, 0]),
        "t10k-labels-idx1-ubyte": idx(targets(TEST)),
    }
    made = Official("fashion_mnist", {f"{CLOTHES}/{file}": data for file, data in content.items()}, train, test)
    for file, data in made.files.items():
        monkeypatch.setitem(made.module.CHECKSUMS, file, md5(data))
    return made


@pytest.fixture(params=["cifar10", "cifar100", "fashion_mnist"])
def official(request, monkeypatch):
    """Each official data set in small, with torchvision's checksums changed to match."""
    random = np.random.default_rng(0)
    shape = (1, 28, 28) if request.param == "fashion_mnist" else (3, 32, 32)
    train, test = (random.integers(0, 256, (count, *shape), dtype=np.uint8) for count in (TRAIN, TEST))
    if request.param == "fashion_mnist":
        return fashion(train, test, monkeypatch)
    return cifar(request.param, train, test, monkeypatch)


class Server(http.server.ThreadingHTTPServer):
    """Offers files by name on loopback; the first `cut` of its answers break off in the middle."""

    cut: int = 0
    answered: int = 0

    def __init__(self, content: dict[str, bytes]) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.content = content
        self.speak = threading.Event()
        self.speak.set()

    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/"


class Handler(http.server.BaseHTTPRequestHandler):
    server: Server

    def do_GET(self):
        # torchvision first asks where a redirect leads, by a GET that it does not read
        self.server.speak.wait()
        content = self.server.content[self.path.strip("/")]
        asks_for_content = "Method" not in self.headers
        self.send_response(200)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if not asks_for_content:
            return
        self.server.answered += 1
        self.wfile.write(content[: len(content) // 2] if self.server.answered <= self.server.cut else content)

    def log_message(self, format, *arguments):
        pass


@pytest.fixture
def server(official, monkeypatch):
    """A server from which torchvision downloads the data set `official`."""
    with Server(official.archives()) as serving:
        kind = official.source.kind
        if official.name == "fashion_mnist":
            monkeypatch.setattr(kind, "mirrors", [serving.url()])
            monkeypatch.setattr(kind, "resources", [(file, md5(data)) for file, data in serving.content.items()])
        else:
            monkeypatch.setattr(kind, "url", serving.url() + kind.filename)
            monkeypatch.setattr(kind, "tgz_md5", md5(serving.content[kind.filename]))
        thread = threading.Thread(target=serving.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield serving
        serving.speak.set()
        serving.shutdown()
        thread.join()


@pytest.fixture
def offline(official, monkeypatch):
    """Nothing answers where torchvision looks for the data set."""
    kind = official.source.kind
    if official.name == "fashion_mnist":
        monkeypatch.setattr(kind, "mirrors", ["http://127.0.0.1:9/"])
    else:
        monkeypatch.setattr(kind, "url", "http://127.0.0.1:9/" + kind.filename)
