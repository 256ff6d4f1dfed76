"""Tables of one's own: any separator, decimal sign and encoding; odd columns are named; groups stay together."""

import numpy as np
import pandas as pd
import pytest

from datasets.own_tables import cells, proposed
from datasets.redraw import redrawn
from datasets.sources.labelled_table import labelled_table
from datasets.sources.table import table
from datasets.splits import MissingData

SIZES = {"train_size": None, "valid_size": 0.2, "test_size": 0.2, "split_seed": 0}
CALM = {**SIZES, "outliers": 0.0, "outlier_size": 10.0}
ROWS = 40


def frame():
    number = np.arange(ROWS)
    return pd.DataFrame({"size": number * 0.25 + 1.5, "kind": ["ab"[i % 2] for i in number], "price": number * 2.5})


def read(folder, file="homes.csv", **settings):
    return table(folder, path=file, **{"target": "price", **CALM, **settings})


FORMS = {
    "plain.csv": {},
    "german.csv": {"sep": ";", "decimal": ",", "encoding": "utf-8-sig"},
    "tabs.tsv": {"sep": "\t", "encoding": "utf-16"},
    "bars.txt": {"sep": "|", "encoding": "latin-1"},
}


@pytest.mark.parametrize("name", [*FORMS, "whole.parquet"])
def test_however_a_table_is_written_it_is_the_same_table(name, tmp_path):
    frame().to_csv(tmp_path / "homes.csv", index=False)
    if name in FORMS:
        frame().to_csv(tmp_path / name, index=False, **FORMS[name])
    else:
        frame().to_parquet(tmp_path / name)
    found, plain = read(tmp_path, name), read(tmp_path)
    assert found.checksum == plain.checksum
    assert found.names == ("size", "kind_a", "kind_b")
    assert [len(part) for part in (found.train, found.valid, found.test)] == [24, 8, 8]


def test_a_table_without_header_loses_no_row(tmp_path):
    frame().to_csv(tmp_path / "homes.csv", index=False, header=False)
    assert len(read(tmp_path, target="column_3").train) == 24
    with pytest.raises(ValueError, match=r"no column price \(its first row holds numbers: dataset\.header=true"):
        read(tmp_path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"size": [*map(str, range(39)), "big"]},
            r"size of homes\.csv holds numbers but for 1 of 40 cells, the first 'big'",
        ),
        ({"id": [f"x{i}" for i in range(ROWS)]}, r"id has a different text in every row.*dataset\.drop=\[id\]"),
        ({"id": range(7, 7 + ROWS)}, r"id numbers the rows.*dataset\.keep"),
        ({"day": ["2026-01-02", "2026-01-03"] * 20}, r"day holds dates"),
        ({"same": 3.0}, r"same has the same value in every row"),
        ({"none": None}, r"none is empty"),
        ({"size": [1.5, None] * 20}, r"20 of 40 rows of homes\.csv lack a value, 20 of them in size.*missing=drop"),
        ({"price": ["x", "y"] * 20}, r"holds words, not numbers to predict"),
        ({"price": 1.0}, r"all validation rows of homes\.csv have the same value, so that R2 is undefined"),
    ],
)
def test_what_is_odd_is_named_with_the_remedy(change, message, tmp_path):
    frame().assign(**change).to_csv(tmp_path / "homes.csv", index=False)
    with pytest.raises(ValueError, match=message) as refusal:
        read(tmp_path)
    assert "\n" not in str(refusal.value)


def test_every_remedy_works(tmp_path):
    odd = frame().assign(id=[f"x{i}" for i in range(ROWS)], size=["1.5", "?", "none of it", *map(str, range(37))])
    odd.to_csv(tmp_path / "homes.csv", index=False)
    settings = {"drop": ["id"], "missing_words": ["none of it"]}
    assert sum(map(len, (lambda s: (s.train, s.valid, s.test))(read(tmp_path, **settings, missing="drop")))) == 38
    filled = read(tmp_path, **settings, missing="fill")
    assert filled.names[:2] == ("size", "size is missing")
    assert sum(float(part.features[:, 1].sum()) for part in (filled.train, filled.valid, filled.test)) == 2
    kept = read(tmp_path, missing_words=["none of it"], missing="fill", keep=["id"])
    assert len(kept.names) == ROWS + 4


@pytest.mark.parametrize("far", [0.0, 1e8])
def test_large_numbers_keep_their_small_differences(far, tmp_path):
    moved = frame().assign(size=lambda f: f["size"] + far, price=lambda f: f["price"] + far)
    moved.to_csv(tmp_path / "homes.csv", index=False)
    train = read(tmp_path).train
    assert len(np.unique(train.features[:, 0])) == len(train)
    np.testing.assert_allclose(np.diff(train.values), 2.5 * np.diff(train.index), rtol=1e-9)


@pytest.mark.parametrize("size", [1, 0.01])
def test_one_row_cannot_validate(size, tmp_path):
    frame().to_csv(tmp_path / "homes.csv", index=False)
    with pytest.raises(ValueError, match=r"valid_size is [01], .*needs two rows at least.*dataset\.valid_size=0\.2"):
        read(tmp_path, valid_size=size)


def test_every_part_has_every_class_or_the_class_is_named(tmp_path):
    frame().assign(kind=["rare", *"ab" * 19, "a"]).to_csv(tmp_path / "homes.csv", index=False)
    with pytest.raises(ValueError, match=r"the class rare of homes\.csv is so rare \(1 rows\)"):
        labelled_table(tmp_path, path="homes.csv", target="kind", **SIZES)
    with pytest.raises(ValueError, match="numbers with fractions, not classes"):
        labelled_table(tmp_path, path="homes.csv", target="size", **SIZES)


def test_nothing_of_a_group_is_in_two_parts_whatever_the_seed(tmp_path):
    patient = np.arange(ROWS) // 3
    frame().assign(patient=patient).to_csv(tmp_path / "homes.csv", index=False)
    grouped = (
        read(tmp_path, group="patient"),
        labelled_table(tmp_path, path="homes.csv", target="kind", group="patient", **SIZES),
    )
    for found in grouped:
        assert "patient" not in found.names
        parts = [set(patient[np.asarray(part.index)]) for part in (found.train, found.valid, found.test)]
        assert sum(map(len, parts)) == len(set.union(*parts)) == len(set(patient))
    again, other = grouped[0].redrawn(1), redrawn(read(tmp_path), 1)
    values = [set((np.round(part.values / 2.5).astype(int)) // 3) for part in (again.train, again.valid, again.test)]
    assert sum(map(len, values)) == len(set(patient))
    assert len(other.train) == 24
    frame().assign(patient=np.arange(ROWS) // 20).to_csv(tmp_path / "homes.csv", index=False)
    with pytest.raises(ValueError, match="too few for training, validation and test"):
        read(tmp_path, group="patient")


def test_what_is_no_table_is_refused(tmp_path):
    for name, content, said in (
        ("empty.csv", b"", "is empty"),
        ("bytes.csv", bytes(range(256)) * 4, "is no text"),
        ("twice.csv", b"a,a\n1,2\n", "several columns called a"),
        ("ragged.csv", b"a,b\n1,2\n1,2,3\n", "is no table with cells between ','"),
        ("false.parquet", b"a,b\n1,2\n", "cannot be read as parquet"),
    ):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(MissingData, match=said):
            read(tmp_path, name)


def test_a_proposal_leaves_out_what_is_no_feature_and_can_be_used(tmp_path):
    odd = frame().assign(id=range(ROWS), size=[None, *range(39)])
    odd.to_csv(tmp_path / "homes.csv", index=False)
    found = proposed(tmp_path / "homes.csv", {})
    assert not found.labels
    assert found.settings == {"target": "price", "drop": ["id"], "missing": "fill"}
    assert len(read(tmp_path, **found.settings).names) == 4
    assert proposed(tmp_path / "homes.csv", {"target": "kind"}).labels
    assert (
        cells(
            tmp_path / "homes.csv",
            {"separator": None, "decimal": None, "header": None, "encoding": None, "missing_words": []},
        )[1].separator
        == ","
    )
