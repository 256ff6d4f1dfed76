"""Tables: disjoint parts, as many gross errors as asked for, files of one's own."""

import numpy as np
import pytest
from sklearn.datasets import load_diabetes

from datasets.sources.diabetes import diabetes
from datasets.sources.table import table
from datasets.splits import MissingData

SIZES = {"train_size": None, "valid_size": 110, "test_size": 110, "split_seed": 0}
CALM = {**SIZES, "outliers": 0.0, "outlier_size": 10.0}


def test_diabetes_is_scikit_learns_in_three_disjoint_parts():
    found = diabetes(**CALM)
    official = load_diabetes(scaled=False)
    parts = [found.train, found.valid, found.test]
    assert [len(part) for part in parts] == [222, 110, 110]
    assert sorted(np.concatenate([part.index for part in parts])) == list(range(442))
    for part in parts:
        np.testing.assert_allclose(part.features, official["data"][part.index], rtol=1e-6)
        np.testing.assert_array_equal(part.values, official["target"][part.index].astype(np.float32))
    assert found.names[:2] == ("age", "sex")


def test_outliers_are_gross_errors_of_training_values_alone():
    calm = diabetes(**CALM)
    few, many = (diabetes(**{**CALM, "outliers": share}) for share in (0.1, 0.3))
    moved = few.train.values - calm.train.values
    assert (moved > 0).sum() == 22
    np.testing.assert_allclose(moved[moved > 0], 10 * calm.train.values.std(), rtol=1e-5)
    more = many.train.values - calm.train.values
    assert ((more > 0) >= (moved > 0)).all()  # a larger share keeps the errors of a smaller one
    np.testing.assert_array_equal(few.test.values, calm.test.values)
    assert few.checksum != calm.checksum == diabetes(**CALM).checksum


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"outliers": 0.5}, "outliers is 0.5; it must be at least 0 and below 0.5"),
        ({"train_size": 300}, "train_size is 300, but diabetes has 442 rows in all"),
        ({"valid_size": 400}, "442 rows in all"),
        ({"split_seed": -1}, "split_seed is -1"),
    ],
)
def test_what_cannot_be_had_is_said(change, message):
    with pytest.raises(ValueError, match=message):
        diabetes(**{**CALM, **change})


def test_a_file_of_ones_own_words_become_columns(tmp_path):
    lines = ["size,kind,price", *(f"{i / 4},{'ab'[i % 2]},{10 * i}" for i in range(30))]
    (tmp_path / "homes.csv").write_text("\n".join(lines))
    sizes = {**CALM, "valid_size": 5, "test_size": 5}
    found = table(tmp_path, path="homes.csv", target="price", **sizes)
    assert found.names == ("size", "kind_a", "kind_b")
    assert np.corrcoef(found.train.values, found.train.features[:, 0])[0, 1] > 1 - 1e-9
    assert set(found.test.features[:, 1]) <= {0.0, 1.0}
    with pytest.raises(ValueError, match=r"has no column cost: set dataset.target to one of size, kind, price"):
        table(tmp_path, path="homes.csv", target="cost", **sizes)
    with pytest.raises(ValueError, match="holds words"):
        table(tmp_path, path="homes.csv", target="kind", **sizes)
    with pytest.raises(MissingData, match=r"none.csv does not exist: give dataset.path"):
        table(tmp_path, path="none.csv", target="price", **sizes)
    (tmp_path / "holes.csv").write_text("a,b\n1,2\n,3\n")
    with pytest.raises(ValueError, match=r"1 of 2 rows of .* lack a value"):
        table(tmp_path, path="holes.csv", target="b", **sizes)
