"""The report says what the records say, in every format, and works in a browser."""

import pytest

from harness import report
from tests import synthetic


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    where = tmp_path_factory.mktemp("report")
    report.build(synthetic.study(), where)
    return where


def test_every_format_is_written(folder):
    assert "<h1>" in (folder / "index.html").read_text()
    assert {path.suffix for path in (folder / "figures").iterdir()} == {".svg", ".png"}
    assert "| loss |" in (folder / "report.md").read_text()
    assert r"\toprule" in (folder / "tables" / "cost.tex").read_text()
