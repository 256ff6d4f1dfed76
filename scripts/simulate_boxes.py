"""The simulation of box regression of the Distance-IoU paper (Zheng et al., AAAI 2020), for every loss of boxes.

``python -m scripts.simulate_boxes`` moves 1,715,000 boxes to their targets by gradient descent, 200 steps with each
loss, prints a table, and writes results/measured/box_simulation.csv (how far from their targets they end),
box_simulation_curves.csv (after every step) and box_simulation_map.npz (per starting point). docs/box_simulation.md
has the protocol and what was found. Three panels:

- true: the losses of this project, with their gradients;
- authors: the gradients that the authors' program works out by hand, and what becomes of them when one thing is mended;
- searched: learning rate, and the loss's own size, chosen on 50 other points by the mean error.

It keeps every finished trial in results/box_simulation, and a second start goes on from there.
"""

from __future__ import annotations

import argparse
import concurrent.futures
import json
import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor

from harness.errors import UsageError, guarded
from harness.hardware import machine
from harness.paths import MEASURED, RESULTS
from harness.records.store import whole, write_text
from losses import geometric, quantity
from scripts import authors_gradients
