import concurrent.futures
import shutil
import socket
import urllib.request

import numpy as np
import pytest
import torch

from datasets import official as loading
from datasets.splits import MissingData
from scripts import fetch as script


@pytest.fixture
def home(official, tmp_path):
    """The folder of the whole data set below the data root `tmp_path`."""
    return official.write(tmp_path / official.name)


def listing(folder):
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


def test_reads_pixels_labels_and_names_from_the_official_files(official, home, tmp_path):
    splits = official.load(tmp_path)
    assert (len(splits.train), len(splits.valid), len(splits.test)) == (50, 10, 30)
    assert len(splits.classes) == 10
    for part, pixels in ((splits.train, official.train), (splits.valid, official.train), (splits.test, official.test)):
        assert part.images.dtype == torch.uint8
        assert part.images.is_contiguous()
        assert part.targets.dtype == part.index.dtype == torch.int64
        np.testing.assert_array_equal(part.images.numpy(), pixels[part.index.numpy()])
        np.testing.assert_array_equal(part.targets.numpy(), part.index.numpy() * 7 % 10)


def test_the_data_root_may_be_the_folder_that_torchvision_uses(official, home, tmp_path):
    assert official.load(home).checksum == official.load(tmp_path).checksum


def test_an_absent_set_is_named_with_its_folder_and_the_command(official, tmp_path):
    with pytest.raises(MissingData) as caught:
        official.load(tmp_path / "my data")
    message = str(caught.value)
    assert message.startswith(f"{official.source.title} is absent in {tmp_path / 'my data' / official.name};")
    assert f"python -m scripts.fetch {official.name} --root '{tmp_path / 'my data'}'" in message
    assert "LOSSBENCH_DATA" in message


@pytest.mark.parametrize("fault", ["cut short", "one bit", "missing"])
def test_a_damaged_set_is_told_from_an_absent_one_and_the_file_is_named(official, home, tmp_path, fault):
    for file, content in official.files.items():
        if fault == "missing":
            (home / file).unlink()
        else:
            (home / file).write_bytes(
                content[:-10] if fault == "cut short" else content[:-1] + bytes([content[-1] ^ 1])
            )
        with pytest.raises(MissingData) as caught:
            official.load(tmp_path)
        assert f"is damaged ({file} " in str(caught.value)
        assert "scripts.fetch" in str(caught.value)
        (home / file).write_bytes(content)
    official.load(tmp_path)


@pytest.mark.parametrize("before", ["nothing", "damaged"])
def test_download_fetches_what_is_absent_or_damaged(official, server, tmp_path, before):
    home = tmp_path / official.name
    if before == "damaged":
        official.write(home)
        (home / next(iter(official.files))).write_bytes(b"damaged")
    splits = official.load(tmp_path, download=True)
    np.testing.assert_array_equal(splits.test.images.numpy(), official.test)
    assert listing(home) == {*official.files, ".lock"}
    asked = server.answered
    official.load(tmp_path, download=True)
    assert server.answered == asked


def test_a_download_that_broke_off_goes_on_when_asked_again(official, server, tmp_path):
    server.cut = 1
    with pytest.raises(MissingData, match=f"{official.source.title} could not be downloaded .*scripts.fetch"):
        loading.fetch(official.source, tmp_path)
    assert official.source.problem(tmp_path / official.name) == "absent"
    loading.fetch(official.source, tmp_path)
    assert listing(tmp_path / official.name) == {*official.files, ".lock"}


def test_leftovers_of_a_killed_download_do_no_harm(official, server, tmp_path):
    """Archives and unpacked files cut short, and files moved to their place already."""
    home = tmp_path / official.name
    staging = official.write(home / ".download")
    *cut, moved = official.files
    for file in cut:
        (staging / file).write_bytes(official.files[file][:-10])
    (home / moved).parent.mkdir(parents=True, exist_ok=True)
    (staging / moved).replace(home / moved)
    where = staging / "FashionMNIST" / "raw" if official.name == "fashion_mnist" else staging
    for file, content in server.content.items():
        (where / file).write_bytes(content[: len(content) // 3])
    loading.fetch(official.source, tmp_path)
    assert listing(home) == {*official.files, ".lock"}


def test_a_whole_set_needs_no_server_and_loses_its_leftovers(official, home, offline, tmp_path):
    shutil.copytree(home, home / ".download")
    assert loading.fetch(official.source, tmp_path) == home
    assert listing(home) == set(official.files)


def test_a_wrong_download_is_refused(official, server, tmp_path):
    first, *_ = official.files
    wrong = {**official.source.checksums(), first: "0" * 32}
    source = loading.Source(official.source.title, official.name, official.source.kind, lambda: wrong)
    with pytest.raises(MissingData, match=r"could not be downloaded \(what came is damaged"):
        loading.fetch(source, tmp_path)
    assert not (tmp_path / official.name / first).exists()


def test_two_processes_download_once(official, server, tmp_path):
    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda _: loading.fetch(official.source, tmp_path), range(4)))
    assert server.answered == len(server.content)
    assert listing(tmp_path / official.name) == {*official.files, ".lock"}


def test_a_silent_server_is_given_up(official, server, tmp_path, monkeypatch):
    monkeypatch.setattr(loading, "PATIENCE", 0.1)
    server.speak.clear()
    with pytest.raises(MissingData, match=r"could not be downloaded .*timed out"):
        loading.fetch(official.source, tmp_path)
    assert socket.getdefaulttimeout() is None


def test_script_says_where_the_data_lie(official, server, tmp_path, capsys):
    assert script.main([official.name, "--root", str(tmp_path)]) == 0
    assert f"{official.source.title} is complete in {tmp_path / official.name}" in capsys.readouterr().out


def test_script_says_in_one_sentence_why_it_failed(official, offline, tmp_path, capsys):
    assert script.main([official.name, "--root", str(tmp_path)]) == 1
    error = capsys.readouterr().err.strip().splitlines()
    assert len(error) == 1
    assert "could not be downloaded" in error[0]
    assert str(tmp_path / official.name) in error[0]


def test_script_stops_quietly_when_interrupted(official, tmp_path, monkeypatch, capsys):
    def interrupt(*arguments, **settings):
        raise KeyboardInterrupt

    monkeypatch.setattr(urllib.request, "urlopen", interrupt)
    assert script.main([official.name, "--root", str(tmp_path)]) == 130
    assert "the same command goes on" in capsys.readouterr().err


def test_script_reads_the_data_root_from_the_environment(official, home, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("LOSSBENCH_DATA", str(tmp_path))
    assert script.main([official.name]) == 0
    assert str(home) in capsys.readouterr().out


def test_script_refuses_unknown_names_before_it_imports_anything(capsys):
    with pytest.raises(SystemExit) as caught:
        script.main(["cifar11"])
    assert caught.value.code == 2
    assert "cifar10" in capsys.readouterr().err
