"""How often the intervals of the forecast hold, and how wide they are, in 200 simulated runs.

In virtual time, with fixed seeds: the table is the same on every machine (half a minute).
"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from tests.results.forecast_runs import tally


def main() -> None:
    """Print the table."""
    print("| done | cost holds | width: median, widest | end holds | width: median, widest | limit steady: widest |")
    print("| ---: | ---: | ---: | ---: | ---: | ---: |")
    for part, found in tally().items():
        cost, end = sorted(found.cost_width), sorted(found.end_width)
        widths = [f"{100 * width[len(width) // 2]:.1f}%, {100 * width[-1]:.1f}%" for width in (cost, end)]
        held = [f"{100 * sum(holds) / len(holds):.1f}%" for holds in (found.cost, found.end)]
        steady = f"{100 * max(found.end_width_steady):.1f}%"
        print(f"| {100 * part:.0f}% | {held[0]} | {widths[0]} | {held[1]} | {widths[1]} | {steady} |")


if __name__ == "__main__":
    main()
