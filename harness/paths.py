"""Where things lie: the checkout, its configs, results of runs, and evidence that is committed."""

import os
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
CONF = ROOT / "conf"
RESULTS = Path(os.environ.get("LOSSBENCH_RESULTS") or ROOT / "results").absolute()
"""Working output: runs, studies, reports."""
MEASURED = ROOT / "results" / "measured"
"""Committed evidence; it belongs to the checkout, wherever working output goes."""
PUBLISHED = ROOT / "results" / "published"
"""Values printed in papers, committed."""
