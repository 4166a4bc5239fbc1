"""The tables of scripts/bench-growth: growth.py POINTS AXES FIXED [PLOT.svg]; exit 1 where the plan is off by more than 20 %."""

import json
import sys

OFF_MAX = 0.20
MIB = 1 << 20

points_file, axes_file, fixed, *plot = sys.argv[1:]
fixed = fixed.split()
points = {}
for line in open(points_file):
    fields = line.rstrip("\n").split("\t")
    records, ms, peak_kib, checkpoint = map(int, fields[6:10])
    points[tuple(fields[:6])] = {
        "records": records,
        "k/s": records / ms,
        "peak": peak_kib * 1024,
        "checkpoint": checkpoint,
        "plan": json.loads(fields[10]),
    }


def size(bytes):
    return f"{bytes / MIB:,.0f}" if 10 * MIB <= bytes else f"{bytes / MIB:.1f}"


def times(now, before):
    return "" if before is None else f"{now / before:.2f}"


def off(planned, measured):
    by = planned / measured - 1
    return f"{by:+.0%}" + (" **off**" if OFF_MAX < abs(by) else "")


wrong = 0
curves = []
for line in open(axes_file):
    axis, place, values = line.rstrip("\n").split("\t")
    others = ", ".join(f"{value} {name}" for at, (name, value) in enumerate(zip(["events", "videos", "of event time", "partitions", "workers", "processes"], fixed)) if at != int(place))
    print(f"\n### {axis.capitalize()}\n\n{others}.\n")
    print(f"| {axis} | k records/s | peak MiB | × | bytes a record | plan | off | checkpoint MiB | × | bytes a record | plan | off |")
    print("|---|---|---|---|---|---|---|---|---|---|---|---|")
    before = {}
    curve = []
    for value in values.split():
        point = points[tuple(value if at == int(place) else other for at, other in enumerate(fixed))]
        planned = {"peak": point["plan"]["memory"]["total_bytes"], "checkpoint": point["plan"]["disk"]["checkpoint_bytes"]}
        cells = [value, f"{point['k/s']:,.0f}"]
        for what in ["peak", "checkpoint"]:
            cells += [size(point[what]), times(point[what], before.get(what)), f"{point[what] / point['records']:,.0f}", size(planned[what]), off(planned[what], point[what])]
            wrong += OFF_MAX < abs(planned[what] / point[what] - 1)
        print("| " + " | ".join(cells) + " |")
        before = point
        curve.append((value, point, planned))
    curves.append((axis, curve))

if plot:
    import matplotlib

    matplotlib.use("svg")
    from matplotlib import pyplot
    from matplotlib.ticker import LogLocator

    figure, sides = pyplot.subplots(3, len(curves), figsize=(3 * len(curves), 7), sharey="row", squeeze=False)
    for (axis, curve), column in zip(curves, sides.T):
        names = [value for value, _, _ in curve]
        column[0].plot(names, [point["k/s"] for _, point, _ in curve], marker="o", label="measured")
        for what, side in zip(["peak", "checkpoint"], column[1:]):
            side.plot(names, [point[what] / MIB for _, point, _ in curve], marker="o", label="measured")
            side.plot(names, [planned[what] / MIB for _, _, planned in curve], marker="x", linestyle="--", label="planned")
            side.set_yscale("log")
            side.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
            side.yaxis.set_major_formatter("{x:,.0f}")
            side.yaxis.set_minor_formatter("")
        for side in column:
            side.set_xlabel(axis)
            side.grid(alpha=0.3)
    for side, what in zip(sides[:, 0], ["k records/s", "peak memory, MiB", "checkpoint, MiB"]):
        side.set_ylabel(what)
    sides[0][0].set_ylim(bottom=0)
    sides[1][0].legend()
    figure.tight_layout()
    figure.savefig(plot[0], metadata={"Date": None})

if wrong:
    sys.exit(f"the plan is off by more than {OFF_MAX:.0%} in {wrong} places")
