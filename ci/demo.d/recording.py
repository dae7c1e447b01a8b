#!/usr/bin/env python3
"""Makes docs/demo.svg, an animated terminal, from what ci/demo prints about distributor.

recording.py OUTPUT   takes that part of the output of ci/demo (`ci/demo | tee OUTPUT`) into recording.txt, and makes the picture
recording.py          makes the picture from recording.txt
recording.py --check  fails unless the picture is that of recording.txt
"""

import pathlib
import sys
from xml.sax.saxutils import escape

HERE = pathlib.Path(__file__).resolve().parent
RECORDING, PICTURE = HERE / "recording.txt", HERE.parents[1] / "docs/demo.svg"
FIRST, LAST = "80 % of a Deployment's pods", "placement.podshaper.dev/"
# The lines before a picture of the pods.
PROGRESS = (" pods:", "on the way:", "rolled out:")
# Pixels: a character of the font, a line, and the margin.
CHARACTER, LINE, MARGIN = 7.9, 19, 16
COLUMNS = 122
# Seconds from line to line, and before the lines that a rollout takes time for.
STEP, PAUSE = 0.18, 0.9


def part(output):
    """The part about distributor: from its first line to the table of ledgers."""
    lines = output.splitlines()
    first = next(i for i, line in enumerate(lines) if line.startswith(FIRST))
    last = next(i for i, line in enumerate(lines) if i > first and line.startswith(LAST))
    return "\n".join(lines[first : last + 1]) + "\n"


def lines(recording):
    """The lines of the picture: no ledgers, and columns of the table without the prefix of the API group."""
    table = [i for i, line in enumerate(recording) if line.startswith("NAME ")]
    kept = recording[: table[1]] if len(table) > 1 else recording
    prefix = "poddistributor.versprei.versprei.io/"
    shown = []
    for line in kept:
        if line.startswith("NAME "):
            line = "NAME " + line[len("NAME ") + len(prefix) :]
        shown.append(line.removeprefix(prefix).rstrip()[:COLUMNS])
    while shown and not shown[-1]:
        shown.pop()
    return shown


def style(line):
    if line.endswith(PROGRESS) or line.startswith((FIRST, "A rollout")):
        return "head"
    return "bar" if "█" in line else "text"


def picture(recording):
    shown = lines(recording.splitlines())
    width = round(COLUMNS * CHARACTER + 2 * MARGIN)
    height = (len(shown) + 1) * LINE + 2 * MARGIN
    at, rows = 0.2, []
    for number, line in enumerate(shown):
        at += PAUSE if line.endswith(PROGRESS) or line.startswith("NAME ") else STEP
        if line:
            rows.append(
                f'<text class="{style(line)}" x="{MARGIN}" y="{MARGIN + (number + 1) * LINE}" '
                f'style="animation-delay:{at:.2f}s">{escape(line)}</text>'
            )
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" viewBox="0 0 {width} {height}" role="img">\n'
        "<title>A Deployment of 10, 200 and 37 pods, spread 80 to 20, and a rollout; the PodDistributor is balanced</title>\n"
        "<style>\n"
        "text { font: 13px ui-monospace, SFMono-Regular, Menlo, Consolas, monospace; white-space: pre; fill: #d6deeb;\n"
        "  animation: show 0.01s linear both; }\n"
        ".head { fill: #ffffff; font-weight: bold; } .bar { fill: #7fdbca; }\n"
        "@keyframes show { from { opacity: 0; } to { opacity: 1; } }\n"
        "@media (prefers-reduced-motion: reduce) { text { animation: none; } }\n"
        "</style>\n"
        f'<rect width="{width}" height="{height}" rx="8" fill="#0b1522"/>\n' + "\n".join(rows) + "\n</svg>\n"
    )


def main(arguments):
    if arguments and arguments[0] != "--check":
        RECORDING.write_text(part(pathlib.Path(arguments[0]).read_text(encoding="utf-8")), encoding="utf-8")
    recording = RECORDING.read_text(encoding="utf-8")
    made = picture(recording)
    if arguments == ["--check"]:
        row = next(line for line in recording.splitlines() if line.startswith("poddistributor"))
        balanced = row.split()[-2]
        if balanced != "True":
            raise SystemExit(f"ci/demo.d/recording.txt ends with BALANCED {balanced}")
        if PICTURE.read_text(encoding="utf-8") != made:
            raise SystemExit("docs/demo.svg is not that of ci/demo.d/recording.txt: run ci/demo.d/recording.py")
    else:
        PICTURE.write_text(made, encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1:])
