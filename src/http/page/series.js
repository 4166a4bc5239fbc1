// From answers to what is drawn: plain functions over { start, value, final }.

export const steps = { minute: 60_000, hour: 3_600_000, day: 86_400_000 };

// Of these a window without events is 0; of the others it has no value.
const additive = new Set(["count", "sum", "distinct"]);

// The first and the last window that any of several series has.
export const reach = (answers) => {
  const starts = answers.flatMap(({ series }) => (series.length ? [series[0].start, series.at(-1).start] : []));
  return { first: Math.min(...starts), last: Math.max(...starts) };
};

// The points of a line, from the first window to the last. An answer has only windows with events, so the ends of each gap are
// added: of a count they are 0, of a mean there is nothing to draw.
export const points = (series, step, fn, watermark, { first, last }) => {
  const drawn = [];
  const empty = additive.has(fn) ? 0 : null;
  const gap = (from, to) => {
    for (const start of new Set([from, to])) {
      if (from <= start && start <= to) drawn.push({ x: start, y: empty, final: start + step <= watermark });
    }
  };
  let next = first;
  for (const { start, value, final } of series) {
    gap(next, start - step);
    drawn.push({ x: start, y: value, final });
    next = start + step;
  }
  if (series.length) gap(next, last);
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
