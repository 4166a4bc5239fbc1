"""The race as a picture: picture.py OUT.svg TITLE=MEDIANS..., medians as scripts/medians keeps them. The same medians give the same bytes."""

import sys
import textwrap

import matplotlib

matplotlib.use("svg")
# Text stays text: small, and found by a search.
matplotlib.rcParams.update({"svg.fonttype": "none", "svg.hashsalt": "tidemark", "font.size": 10})
from matplotlib import pyplot

OURS, OTHERS, INK = "#1f6f8b", "#b9c4c9", "#444444"
BAR, CAPTION_LINE, CAPTION_WIDTH = 0.32, 0.17, 120


class Race:
    def __init__(self, argument):
        self.title, path = argument.split("=", 1)
        with open(path) as medians:
            self.caption = textwrap.wrap(medians.readline().strip(), CAPTION_WIDTH)
            columns, *rows = (line.rstrip("\n").split("\t") for line in medians)
        self.bars = [(row[0], row[columns.index("M records/s")]) for row in rows]
        self.height = 0.9 + BAR * len(self.bars) + CAPTION_LINE * len(self.caption)

    def draw(self, axes):
        names, speeds = zip(*self.bars)
        bars = axes.barh(names, [float(speed) for speed in speeds], color=[OURS if name.startswith("tidemark") else OTHERS for name in names])
        axes.bar_label(bars, speeds, padding=4, color=INK)
        axes.set_title(self.title, loc="left", weight="bold")
        axes.invert_yaxis()
        axes.margins(x=0.1)
        axes.xaxis.set_visible(False)
        axes.tick_params(axis="y", length=0)
        axes.spines[:].set_visible(False)
        axes.text(0, -0.02, "\n".join(self.caption), transform=axes.transAxes, va="top", size=8, color=INK)


out, *arguments = sys.argv[1:]
races = [Race(argument) for argument in arguments]
heights = [race.height for race in races]
figure, all_axes = pyplot.subplots(len(races), figsize=(9, sum(heights)), height_ratios=heights, squeeze=False)
figure.set_layout_engine("constrained", h_pad=0.12)
for race, axes in zip(races, all_axes.flat):
    race.draw(axes)
figure.savefig(out, metadata={"Date": None, "Creator": None})
