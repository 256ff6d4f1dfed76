"""python -m harness.tracking: mirror a study now (NAME), or open the dashboard (ui)."""

import sys

from harness.tracking.mirroring import main

if __name__ == "__main__":
    sys.exit(main())
