"""Run ``python -m MODULE --help`` in this process and say whether it imported the slow libraries."""

import contextlib
import runpy
import sys

if __name__ == "__main__":
    module = sys.argv[1]
    sys.argv = [module, "--help"]
    with contextlib.suppress(SystemExit):
        runpy.run_module(module, run_name="__main__", alter_sys=True)
    print("torch imported:", "torch" in sys.modules)
    print("mlflow imported:", "mlflow" in sys.modules)
