// From answers to what is drawn: plain functions over { start, value, final }.

export const steps = { minute: 60_000, hour: 3_600_000, day: 86_400_000 };

// Of these a window without events is 0; of the others it has no value.
const additive = new Set(["count", "sum", "distinct"]);

// The points of a line. An answer has only windows with events, so the ends of each gap are added: of a count they are 0, of a
// mean there is nothing to draw.
export const points = (series, step, fn, watermark) => {
  const drawn = [];
  const empty = additive.has(fn) ? 0 : null;
  const gap = (start) => drawn.push({ x: start, y: empty, final: start + step <= watermark });
  let previous = null;
  for (const { start, value, final } of series) {
    if (previous !== null && previous + step < start) {
      gap(previous + step);
      if (previous + 2 * step < start) gap(start - step);
    }
    drawn.push({ x: start, y: value, final });
    previous = start;
  }
  return drawn;
};

// Rows of a table over several series: every window that one of them has, the newest first.
export const tabulate = (answers) => {
  const rows = new Map();
  answers.forEach(({ series }, place) => {
    for (const { start, value, final } of series) {
      if (!rows.has(start)) rows.set(start, { start, values: Array(answers.length).fill(null), final });
      rows.get(start).values[place] = value;
    }
  });
  return [...rows.values()].sort((a, b) => b.start - a.start);
};
