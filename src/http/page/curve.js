// Chart.js as this page uses it: lines over time, solid where final and dashed where provisional.

import { number, time } from "./dom.js";

const { Chart } = globalThis;
Chart.defaults.animation = false;
Chart.defaults.font.family = "system-ui, 'DejaVu Sans', sans-serif";

const minute = 60_000;
const hour = 60 * minute;
const day = 24 * hour;
const tickSteps = [1000, 5000, 15_000, 30_000, minute, 2 * minute, 5 * minute, 10 * minute, 15 * minute, 30 * minute, hour, 2 * hour,
  3 * hour, 6 * hour, 12 * hour, day, 2 * day, 7 * day, 14 * day, 30 * day, 90 * day, 365 * day];

const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim();

export const lineColour = (place) => colour(`line-${(place % 6) + 1}`);

// Chart.js's own steps are decimal, and hours are not.
const ticksOfTime = (scale) => {
  const room = Math.max(2, Math.floor(scale.width / 90));
  const step = tickSteps.find((each) => (scale.max - scale.min) / each <= room) ?? 365 * day;
  const ticks = [];
  for (let at = Math.ceil(scale.min / step) * step; at <= scale.max; at += step) ticks.push({ value: at });
  scale.ticks = ticks;
};

const tickText = (at, seconds) => {
  const text = time(at, seconds);
  return at % day === 0 ? text.slice(0, 10) : text.slice(11);
};

export class Curve {
  #chart;
  #datasets = [];

  constructor(canvas, { seconds = false } = {}) {
    const scales = {
      x: {
        type: "linear",
        afterBuildTicks: ticksOfTime,
        ticks: { callback: (at) => tickText(at, seconds), maxRotation: 0, autoSkipPadding: 12 },
      },
      y: { beginAtZero: true, ticks: { callback: (value) => number(value), precision: 0, maxTicksLimit: 6 } },
    };
    const tooltip = {
      callbacks: {
        title: ([item]) => `${time(item.parsed.x, seconds)} UTC`,
        label: ({ dataset, raw }) => `${dataset.label}: ${number(raw.y)}${raw.final === false ? " (provisional)" : ""}`,
      },
    };
    this.#chart = new Chart(canvas, {
      type: "line",
      data: { datasets: [] },
      options: {
        parsing: false, normalized: true, responsive: true, maintainAspectRatio: false, scales,
        interaction: { mode: "nearest", axis: "x", intersect: false },
        plugins: { legend: { display: false }, tooltip },
      },
    });
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => this.draw(this.#datasets));
  }

  // Each of { label, points: [{ x, y, final }] }.
  draw(datasets, bounds = {}) {
    this.#datasets = datasets;
    const { options, data } = this.#chart;
    for (const scale of [options.scales.x, options.scales.y]) {
      scale.ticks.color = colour("soft");
      scale.grid = { color: colour("rule") };
      scale.border = { color: colour("rule") };
    }
    Object.assign(options.scales.x, { min: bounds.min, max: bounds.max });
    data.datasets = datasets.map(({ label, points }, place) => ({
      label,
      data: points,
      borderColor: lineColour(place),
      backgroundColor: lineColour(place),
      borderWidth: 2,
      pointRadius: points.length <= 120 ? 2.5 : points.length === 1 ? 4 : 0,
      pointBackgroundColor: ({ raw }) => (raw?.final === false ? colour("card") : lineColour(place)),
      segment: {
        borderDash: ({ p1 }) => (p1.raw?.final === false ? [6, 4] : undefined),
        borderColor: ({ p1 }) => (p1.raw?.final === false ? `${lineColour(place)}99` : undefined),
      },
    }));
    this.#chart.update();
  }
}
