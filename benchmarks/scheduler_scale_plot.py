"""Draws what `scheduler_scale.py` measured: CPU of an event by how many requests wait.

python benchmarks/scheduler_scale_plot.py benchmarks/results/scheduler_scale.json \\
    docs/scheduler_scale.svg
"""

from __future__ import annotations

import json
import math
import statistics
import sys
from pathlib import Path
from typing import Any

WIDTH, HEIGHT, LEFT, RIGHT, TOP, BOTTOM = 640, 320, 60, 20, 40, 50
SERIES = ((False, "#0b6e99", "nothing in common"), (True, "#b5541c", "conversations"))
Runs = list[dict[str, Any]]


def micros(runs: Runs) -> list[float]:
    """CPU microseconds per event of each run."""
    return [1e6 * run["cpu_s"] / run["events"] for run in runs]


def drawn(runs: Runs) -> str:
    """Every run a dot, and lines through the medians; the queue's depth is on a log scale."""
    depths = sorted({run["waiting"] for run in runs})
    low, high = math.log10(depths[0]), math.log10(depths[-1])
    top_us = 10 * math.ceil(max(micros(runs)) / 10 + 0.5)

    def x(depth: int) -> float:
        return LEFT + (WIDTH - LEFT - RIGHT) * (math.log10(depth) - low) / (high - low)

    def y(us: float) -> float:
        return HEIGHT - BOTTOM - (HEIGHT - TOP - BOTTOM) * us / top_us

    parts = [_text(LEFT, 20, "CPU per event, microseconds", "start")]
    for us in range(0, top_us + 1, 10):
        parts.append(
            f'<line x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y(us):.1f}" y2="{y(us):.1f}"'
            ' stroke="#ddd"/>'
        )
        parts.append(_text(LEFT - 8, y(us) + 4, str(us), "end"))
    parts += [_text(x(depth), HEIGHT - BOTTOM + 18, f"{depth:,}") for depth in depths]
    parts.append(_text((LEFT + WIDTH - RIGHT) / 2, HEIGHT - 10, "requests that wait"))
    for place, (conversations, colour, name) in enumerate(SERIES):
        own = [run for run in runs if run["conversations"] is conversations]
        points = []
        for depth in sorted({run["waiting"] for run in own}):
            found = micros([run for run in own if run["waiting"] == depth])
            points.append(f"{x(depth):.1f},{y(statistics.median(found)):.1f}")
            for each in found:
                parts.append(
                    f'<circle cx="{x(depth):.1f}" cy="{y(each):.1f}" r="2.5" fill="{colour}"/>'
                )
        line = " ".join(points)
        parts.append(f'<polyline points="{line}" fill="none" stroke="{colour}" stroke-width="2"/>')
        parts.append(_text(WIDTH - RIGHT - 150 * place, 20, name, "end", colour))
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}"'
    font = ' font-family="sans-serif" font-size="12">'
    return "\n".join(
        [head + font, '<rect width="100%" height="100%" fill="white"/>', *parts, "</svg>\n"]
    )


def _text(x: float, y: float, text: str, anchor: str = "middle", colour: str = "#333") -> str:
    place = f'x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" fill="{colour}"'
    return f"<text {place}>{text}</text>"


def main() -> None:
    results, picture = map(Path, sys.argv[1:3])
    runs = json.loads(results.read_text("utf-8"))["runs"]
    picture.write_text(drawn(runs), "utf-8")


if __name__ == "__main__":
    main()
