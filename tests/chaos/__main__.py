"""Kill `mibench run smoke` over and over, and see whether anything comes of it.

    cd tests && python -m chaos --kills 100 --out ../results/chaos

Runs `smoke` undisturbed; in storms on stores of their own, whose processes are killed at moments drawn over
the running time; by two and by four commands on one empty store; and over Ray. Writes `report.json`, and
ends with 1 where anything differs from the undisturbed run.
"""

import argparse
import sys
import tempfile
from pathlib import Path

from .campaign import Campaign, write_report


def main() -> int:
    """Read the options, do it all, and return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m chaos", description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=100, help="in all (default: 100)")
    parser.add_argument("--seed", type=int, default=0, help="of the moments and the victims (default: 0)")
    parser.add_argument("--out", type=Path, required=True, help="folder of report.json")
    parser.add_argument("--work", type=Path, help="empty folder for stores and logs, which stay there")
    parser.add_argument("--no-ray", action="store_true", help="leave Ray out")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="mibench-chaos-") as folder:
        campaign = Campaign(asked.work or Path(folder), seed=asked.seed, has_ray=not asked.no_ray)
        for report in campaign.go(asked.kills):
            write_report(asked.out / "report.json", report)
    return 0 if report["sound"] else 1


if __name__ == "__main__":
    sys.exit(main())
