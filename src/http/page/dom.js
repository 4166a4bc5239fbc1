// Small helpers: elements, texts, numbers and times. User data goes through textContent only.

export const byId = (id) => document.getElementById(id);

export const say = (id, text) => {
  const element = byId(id);
  if (element.textContent !== text) element.textContent = text;
};

// An element of a tag, a class and children, which are elements or texts.
export const element = (tag, className, ...children) => {
  const made = document.createElement(tag);
  if (className) made.className = className;
  made.append(...children);
  return made;
};

export const cell = (text, className = "") => element("td", className, text);

export const row = (...cells) => element("tr", "", ...cells);

export const heading = (text, className = "") => {
  const made = element("th", className, text);
  made.scope = "col";
  return made;
};

export const number = (value, digits = 2) =>
  value === null || value === undefined ? "–" : value.toLocaleString("en", { maximumFractionDigits: digits });

const bytesUnits = ["B", "KiB", "MiB", "GiB", "TiB"];

export const bytes = (value) => {
  const power = Math.min(Math.floor(Math.log2(Math.max(value, 1)) / 10), bytesUnits.length - 1);
  return `${number(value / 1024 ** power, 1)} ${bytesUnits[power]}`;
};

// The greatest time that a Date can hold; later ones mean that nothing can follow.
const datesEnd = 8.64e15;
const yearsEnd = 253402300800000;

export const time = (ms, seconds = true) => {
  if (ms === null || ms === undefined) return "–";
  if (datesEnd < ms || yearsEnd <= ms) return "the end of time";
  return new Date(ms).toISOString().slice(0, seconds ? 19 : 16).replace("T", " ");
};

export const duration = (ms) => {
  if (ms < 10_000) return `${number(ms / 1000, 1)} s`;
  const seconds = Math.round(ms / 1000);
  if (seconds < 120) return `${seconds} s`;
  if (seconds < 7200) return `${Math.round(seconds / 60)} min`;
  if (seconds < 48 * 3600) return `${Math.round(seconds / 3600)} h`;
  return `${number(Math.round(seconds / 86400))} days`;
};

export const spans = { "1h": 3_600_000, "6h": 21_600_000, "24h": 86_400_000, "7d": 604_800_000 };

// Where a span before the frontier begins; nothing where it is everything.
export const spanStart = (span, frontier) => (span in spans ? Math.max(0, frontier - spans[span]) : undefined);

// Tells a screen reader what was asked for. Numbers that change by themselves are told seldom, or nothing else would be heard.
let announced = -Infinity;
export const announce = (text, everyMs = 0) => {
  if (performance.now() < announced + everyMs) return;
  announced = performance.now();
  say("announcer", text);
};

export const seldomMs = 10_000;

export const fault = (text) => {
  byId("fault").hidden = !text;
  say("fault", text ?? "");
};

// Resolves after a while, or as soon as the signal aborts.
export const pause = (ms, signal) =>
  new Promise((resolve) => {
    const timer = setTimeout(resolve, ms);
    signal.addEventListener("abort", () => (clearTimeout(timer), resolve()), { once: true });
  });
