#!/usr/bin/env python3
"""Prints the README's table from the output of `peers`, and plots the times for the cached token.

    benches/plot.py peers.json --svg benches/peers/peers.svg
"""

import argparse
import json
import math
from html import escape
from pathlib import Path

HIT = "cached token"
THIS = "tower-m2m"
COLUMNS = [HIT, "new token", "no token", "garbage", "unknown kid", "bad signature"]


def time(ns):
    if ns < 999.5:
        return f"{ns:.0f} ns"
    us = ns / 1000
    return f"{us:.{2 if us < 9.995 else 1 if us < 99.95 else 0}f} µs"


def measured_on(machine):
    return f"{machine['date'][:10]}, {machine['rustc'].split(' (')[0]}, {machine['cpu']}, {machine['cores']} cores"


def contestants(report):
    """The rows without the bare handlers, fastest first."""
    rows = [row for row in report["rows"] if row["ratio"] is not None]
    return sorted(rows, key=lambda row: row["cases"][HIT]["over_ns"])


def name(row):
    return f"{row['contestant']} {row['version']}"


def backend(row):
    return row["backend"] + (" (chosen)" if row["chosen_backend"] else "")


def cell(figure, notes):
    """The time, and the status if it is not the expected one."""
    text = time(figure["over_ns"])
    if figure["status"] != figure["expected"]:
        text += f" ({figure['status']})"
        notes.add(f"In brackets: the status if it is not {figure['expected']}")
    return text


def table(report):
    notes = set()
    lines = ["| | crypto backend | " + " | ".join(COLUMNS) + " | × |", "|---|---|" + "---:|" * (len(COLUMNS) + 1)]
    for row in contestants(report):
        bold = "**" if row["contestant"] == THIS else ""
        cells = [f"{bold}{name(row)}{bold}", backend(row)]
        cells += [cell(row["cases"][column], notes) for column in COLUMNS]
        lines.append("| " + " | ".join([*cells, f"{row['ratio']:.0f}"]) + " |")
    absent = [f"{row['contestant']}: {row['absent']}" for row in report["rows"] if row["absent"]]
    notes = [f"Medians minus the bare handler, which a refused request does not call; {measured_on(report['machine'])}", *notes, *absent]
    return "\n".join([*lines, "", *(f"{note}." for note in notes)])


STYLE = """
  text { font: 13px system-ui, sans-serif; fill: #1f2328 }
  .small { font-size: 11px; fill: #59636e } .head { font-size: 15px; font-weight: 600 }
  .this { font-weight: 600 } .bar { fill: #8c959f } .bar.this { fill: #0969da } .grid { stroke: #d1d9e0 }
  @media (prefers-color-scheme: dark) {
    text { fill: #f0f6fc } .small { fill: #9198a1 }
    .bar { fill: #656c76 } .bar.this { fill: #4493f8 } .grid { stroke: #3d444d }
  }
"""
WIDTH, LEFT, RIGHT, TOP, STEP, BAR = 780, 280, 70, 52, 34, 16


def svg(report):
    rows = contestants(report)
    fastest = min(row["cases"][HIT]["over_ns"] for row in rows)
    slowest = max(row["cases"][HIT]["over_ns"] for row in rows)
    low, high = math.floor(math.log10(fastest / 2)), math.ceil(math.log10(slowest))  # leaves room for the shortest bar
    x = lambda ns: LEFT + (math.log10(ns) - low) / (high - low) * (WIDTH - LEFT - RIGHT)
    bottom = TOP + STEP * len(rows)
    title = "Added time per request for a cached token"
    label = [f"{name(row)}, {backend(row)}: {time(row['cases'][HIT]['over_ns'])}" for row in rows]
    out = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {bottom + 62}" width="{WIDTH}" role="img"'
        f' aria-label="{escape(title)}. {escape("; ".join(label))}">',
        f"<title>{escape(title)}</title><style>{STYLE}</style>",
        f'<text class="head" x="12" y="24">{escape(title)}</text>',
    ]
    for power in range(low, high + 1):
        at = x(10**power)
        out.append(f'<line class="grid" x1="{at:.1f}" y1="{TOP - 8}" x2="{at:.1f}" y2="{bottom}"/>')
        out.append(f'<text class="small" x="{at:.1f}" y="{bottom + 16}" text-anchor="middle">{decade(power)}</text>')
    for number, row in enumerate(rows):
        y, ns = TOP + STEP * number, row["cases"][HIT]["over_ns"]
        this = " this" if row["contestant"] == THIS else ""
        out += [
            f'<text class="{this.strip()}" x="{LEFT - 10}" y="{y + 9}" text-anchor="end">{escape(name(row))}</text>',
            f'<text class="small" x="{LEFT - 10}" y="{y + 22}" text-anchor="end">{escape(backend(row))}</text>',
            f'<rect class="bar{this}" x="{LEFT}" y="{y}" width="{x(ns) - LEFT:.1f}" height="{BAR}" rx="2"/>',
            f'<text class="{this.strip()}" x="{x(ns) + 6:.1f}" y="{y + 13}">{time(ns)}</text>',
        ]
    out += [
        f'<text class="small" x="12" y="{bottom + 36}">Median minus the bare handler, RS256, logarithmic scale.</text>',
        f'<text class="small" x="12" y="{bottom + 52}">{escape(measured_on(report["machine"]))}</text>',
        "</svg>",
    ]
    return "\n".join(out) + "\n"


def decade(power):
    return f"{10 ** (power % 3)} {['ns', 'µs', 'ms'][power // 3]}"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("report", type=Path, help="the file that `peers --out` wrote")
    parser.add_argument("--svg", type=Path, help="file for the plot")
    args = parser.parse_args()
    report = json.loads(args.report.read_text())
    print(table(report))
    if args.svg:
        args.svg.write_text(svg(report))


main()
