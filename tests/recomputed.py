"""A second way to every verdict: from the published files alone, with numpy, scipy and pandas.

Nothing of the harness is imported here, and nothing is shared with it: the rules are written down again from the text
of docs/design.md, in other words and with other formulas where there are any (the crossed effects by explicit
matrices of who was tested on what, the sequential bound by root finding), so that a slip on either side shows.
"""

import json
import math
from pathlib import Path

import numpy as np
import pandas as pd
from scipy import optimize, sparse
from scipy import stats as scipy_stats

ALPHA = 0.05


def read(folder, name):
    """Return the manifest, the rows and what runs scored on every test item, of a published study."""
    folder = Path(folder)
    manifest = json.loads((folder / f"{name}.json").read_text())
    texts = dict.fromkeys(["key", "setting", "label"], str)
    table = next(folder / file for file in (f"{name}.csv", f"{name}.csv.gz") if file in manifest["files"])
    rows = pd.read_csv(table, dtype=texts, low_memory=False)
    settings = pd.read_csv(folder / f"{name}_settings.csv", dtype=texts, low_memory=False)
    rows = rows.merge(settings, on="setting", how="left", suffixes=("", "_of_setting"))
    shared = {column: value for column, value in manifest.get("shared", {}).items() if column not in rows}
    rows = pd.concat([rows, pd.DataFrame(shared, index=rows.index)], axis=1)
    items = {}
    for path in sorted(folder.glob(f"{name}_items_*.npz")):
        with np.load(path) as stored:
            for group in {key.split("/")[0] for key in stored.files}:
                names = [key for key in stored.files if key.startswith(f"{group}/") and not key.endswith("/row")]
                for i, run in enumerate(stored[f"{group}/key"]):
                    items[str(run)] = {
                        key.removeprefix(f"{group}/"): stored[key][stored[f"{key}/row"][i]]
                        for key in names
                        if key != f"{group}/key"
                    }
    return manifest, rows, items


def item_scores(arrays, metric):
    """Return ids and scores of test items whose mean is the metric, or None."""
    test_set, _, name = metric.rpartition(".")
    own = {key.rpartition("/")[2]: value for key, value in arrays.items() if key.rpartition("/")[0] == test_set}
    if "correct" in own:
        bits = np.unpackbits(own["correct"])[: len(own["item"])].astype(float)
        classes, counts = np.unique(own["target"], return_counts=True)
        if name == "top1":
            return own["item"], bits
        recall = {c: bits[own["target"] == c].mean() for c in classes}
        size = dict(zip(classes, counts, strict=True))
        n, k = len(bits), len(classes)
        moved = np.array([(b - recall[t]) * n / size[t] for b, t in zip(bits, own["target"], strict=True)])
        if name == "balanced_accuracy":
            return own["item"], np.mean(list(recall.values())) + moved / k
        if name == "gmean" and min(recall.values()) > 0:
            value = math.exp(np.mean(np.log(list(recall.values()))))
            return own["item"], value + value * moved / np.array([recall[t] for t in own["target"]]) / k
        return None
    if "error" in own:
        squares, target = own["error"].astype(float) ** 2, own["target"]
        spread = (target - target.mean()) ** 2
        if name == "r2":
            ratio = squares.mean() / spread.mean()
            return own["item"], 1 - ratio - squares / spread.mean() + ratio * spread / spread.mean()
        if name == "rmse":
            root = math.sqrt(squares.mean())
            return own["item"], root + (squares - root**2) / (2 * root)
        return (own["item"], np.abs(own["error"].astype(float))) if name == "mae" else None
    if name in ("found50", "found75") and "iou" in own:
        return own["item"], (own["iou"] >= float(name[-2:]) / 100).astype(float)
    return (own["item"], own[name].astype(float)) if name in own else None


def learnt(values, chance, typical, up):
    """Return which runs learnt, by the two rules."""
    v = np.array(values, dtype=float) * (1 if up else -1)
    chance, typical = (x * (1 if up else -1) for x in (chance, typical))
    middle = np.median(v)
    good = np.ones(len(v), dtype=bool)
    if not math.isnan(chance):
        good &= v - chance > max(0.0, typical - chance) / 10
        gain = middle - chance
    else:
        gain = abs(middle)
    if gain > 0 and len(v) >= 3:
        deviation = max(1.4826 * np.median(np.abs(v - middle)), gain / 100)
        far = (v < middle - gain / 4) & (v < middle - 5 * deviation)
        good &= ~far
    return good


def crossed(pairs):
    """Return standard error and degrees of freedom of a mean over seeds and items, by matrices."""
    ids = np.concatenate([p[0] for p in pairs])
    d = np.concatenate([p[1] for p in pairs])
    n = len(d)
    seed = np.repeat(np.arange(len(pairs)), [len(p[0]) for p in pairs])
    item = pd.factorize(ids)[0]
    ones = np.ones(n)
    z = [sparse.csr_matrix((ones, (np.arange(n), codes))) for codes in (seed, item, np.arange(n))]
    centred = d - d.mean()
    found = np.array([((each.T @ centred) ** 2).sum() for each in z])

    def trace(a, b):  # of M a a' M b b', M the projection off the mean; never written out, n x n
        first = (a.T @ b).power(2).sum()
        once = (a @ (a.T @ ones)) @ (b @ (b.T @ ones))
        return first - 2 * once / n + ((a.T @ ones) ** 2).sum() * ((b.T @ ones) ** 2).sum() / n**2

    expected = np.array([[trace(a, b) for b in z] for a in z])
    variances = np.linalg.lstsq(expected, found, rcond=None)[0]
    residual = max(variances[2], 0) / n
    shares = [variances[i] * ((z[i].T @ ones) ** 2).sum() / n**2 for i in (0, 1)]
    variance = sum(max(share, 0) for share in shares) + residual
    sizes = len(pairs) - 1, max(len(np.unique(item)) - 1, 1)
    below = sum(max(share + residual, 0) ** 2 / size for share, size in zip(shares, sizes, strict=True))
    return (math.sqrt(variance), variance**2 / max(below, 1e-300)) if variance > 0 else (0.0, sizes[0])


def half_width(error, freedom, n, alpha, sequential):
    """Return half an interval."""
    if not sequential:
        return scipy_stats.t.ppf(1 - alpha / 2, freedom) * error

    def log_e(t):
        v = n - 1
        wide = 1 + 4 * n  # effects have a variance of 4 beforehand
        return -0.5 * math.log(wide) + n / 2 * (math.log1p(t * t / v) - math.log1p(t * t / (v * wide)))

    wanted = -math.log(alpha)
    if log_e(1e12) <= wanted:
        return math.inf
    return optimize.brentq(lambda t: log_e(t) - wanted, 0, 1e12, xtol=1e-14, rtol=1e-14) * error


def compare(differences, pairs, alpha, margin, span, grain, up, sequential):
    """Return difference, interval and verdict."""
    d = np.array(differences, dtype=float)
    n = len(d)
    if n < 2:
        return (float(d.mean()) if n else math.nan), math.nan, math.nan, "not decidable"
    least = max(grain / math.sqrt(6), 1e-12 * max(1.0, np.abs(d).max()))
    half = half_width(max(np.std(d, ddof=1), least) / math.sqrt(n), n - 1, n, alpha, sequential)
    if pairs is not None:
        error, freedom = crossed(pairs)
        error = max(error, least / math.sqrt(n))
        half = max(half, half_width(error, freedom, n, alpha, sequential))
    low, high = max(-span, d.mean() - half), min(span, d.mean() + half)
    if margin and low > -margin and high < margin:
        word = "equivalent"
    elif low > 0 or high < 0:
        word = "better" if (low > 0) == up else "worse"
    else:
        word = "not decidable"
    return float(d.mean()), low, high, word


def verdicts(folder, name):
    """Yield cell, loss, difference, low, high and verdict of the numbers alone, for all comparisons of a study."""
    manifest, rows, items = read(folder, name)
    metric = manifest["metric"]
    short = metric.rpartition(".")[2]
    about = next(each for each in manifest["metrics"] if each["key"] == short)
    up, low, high = about["higher_is_better"], about["low"], about["high"]
    span = math.inf if low is None or high is None else high - low
    sequential = manifest.get("until") == "decided" or bool(manifest.get("looks"))
    known = rows[rows["status"].isin(["done"]) & (rows["role"] == "run")]
    planned = rows[rows["role"] == "run"]
    device = known["env.device"].astype(str) + known["env.torch"].astype(str).str.split(".").str[0]
    known = known[device == device.mode()[0]] if len(known) else known
    cell_columns = ["dataset", "model", *sorted(c for c in rows.columns if c.startswith("axis."))]
    for cell, group in planned.groupby(cell_columns, dropna=False, sort=False):
        family = group["label"].nunique() - 1
        done = known[known.index.isin(group.index)].copy()
        done[metric] = pd.to_numeric(done[metric])
        done = done[done[metric].notna()].drop_duplicates(["label", "seed"])
        base = done[done["label"] == manifest["baseline"]]
        if base.empty:
            continue
        chance = math.nan
        if f"data.trivial.{short}" in group and pd.to_numeric(group[f"data.trivial.{short}"]).notna().any():
            chance = float(pd.to_numeric(group[f"data.trivial.{short}"]).dropna().iloc[0])
        elif short == "top1" and "data.classes" in group:
            classes = str(group["data.classes"].dropna().iloc[0])
            chance = 1 / (len(json.loads(classes)) if classes.startswith("[") else float(classes))
        grain = 0.0
        if about.get("grain") == "item" and "data.test" in group:
            grain = 1 / float(group["data.test"].dropna().iloc[0])
        typical = float(base[metric].median())

        def good(frame, chance=chance, typical=typical):
            mask = learnt(frame[metric], chance, typical, up)
            kept = frame[mask] if mask.mean() >= 0.5 else frame  # what most runs do is the way of the loss
            return kept.set_index("seed").sort_index()

        base = good(base)
        for label in dict.fromkeys(group["label"]):
            if label == manifest["baseline"]:
                continue
            own = done[done["label"] == label]
            own = good(own) if len(own) else own.set_index("seed")
            seeds = [seed for seed in own.index if seed in base.index]
            differences = [own.at[s, metric] - base.at[s, metric] for s in seeds]
            pairs = []
            for s in seeds:
                mine, other = (item_scores(items.get(side.at[s, "key"], {}), metric) for side in (own, base))
                if mine is None or other is None or not np.array_equal(mine[0], other[0]):
                    pairs = None
                    break
                pairs.append((mine[0], mine[1] - other[1]))
            pairs = pairs if pairs is not None and len(pairs) > 1 else None
            margin = float(manifest.get("margin") or 0)
            found = compare(differences, pairs, ALPHA / max(1, family), margin, span, grain, up, sequential)
            yield cell, label, *found
