// One video: its curve, its totals, as of now or as of a frontier that is retained; live, by the stream or by asking again.

import { functions, json, Problem } from "./api.js";
import { Curve, lineColour } from "./curve.js";
import { announce, byId, cell, element, fault, heading, number, pause, row, say, seldomMs, spanStart, time } from "./dom.js";
import { points, reach, steps, tabulate } from "./series.js";
import { events } from "./stream.js";

const pollMs = 2000;
const rowsMax = 500;
// A browser has six connections to a server: more types than this are polled for.
const streamsMax = 4;

let curve = null;
const form = byId("video-form");
const slider = byId("as-of");

// Of a video, or of a channel.
export const link = (id, params = {}, kind = "video") => {
  const query = new URLSearchParams(params).toString();
  return `#/${kind}/${encodeURIComponent(id)}${query ? `?${query}` : ""}`;
};

const typesOf = (text) => [...new Set(text.split(",").map((type) => type.trim()).filter(Boolean))];

// ------------------------------------------------------------------------------------------------------------ showing

const swatch = (place) => {
  const made = element("span", "swatch");
  made.style.background = lineColour(place);
  return made;
};

const showTotals = (answers) => {
  const tiles = answers.map(({ event_type, function: fn, total, error }, place) => {
    const what = element("span", "what", swatch(place), fn === "count" ? event_type : `${fn} of ${event_type}`);
    const tile = element("li", "", what, element("span", "value", number(total)));
    // Of an estimate, as a part of the value.
    if (error !== undefined) tile.append(element("span", "note", error ? `within about ${number(100 * error, 1)} %` : "exact"));
    return tile;
  });
  byId("totals").replaceChildren(...tiles);
};

const showTable = (answers) => {
  const heads = answers.map(({ event_type }) => heading(event_type, "number"));
  byId("table-head").replaceChildren(row(heading("Window (UTC)"), ...heads, heading("State")));
  const rows = tabulate(answers);
  const cut = rows.slice(0, rowsMax);
  byId("table-body").replaceChildren(...cut.map(({ start, values, final }) =>
    row(cell(time(start, false)), ...values.map((value) => cell(number(value), "number")),
      cell(final ? "final" : "provisional", final ? "" : "provisional"))));
  const counts = `${number(rows.length)} windows with events`;
  say("table-note", cut.length < rows.length ? `${counts}; the newest ${number(rowsMax)} are shown` : counts);
};

const showLabels = (wanted, { video_name, channel_id, channel_name }) => {
  const parts = [];
  if (wanted.kind === "channel") parts.push(channel_name);
  else {
    parts.push(video_name);
    if (channel_id) {
      const anchor = element("a", "", channel_name ?? channel_id);
      anchor.href = link(channel_id, { types: wanted.types.join(",") }, "channel");
      parts.push(element("span", "", "of ", anchor));
    }
  }
  byId("video-labels").replaceChildren(...parts.filter(Boolean).flatMap((part) => [part, " "]));
};

const show = (wanted, answers) => {
  const [{ as_of, watermark }] = answers;
  const step = steps[wanted.granularity];
  byId("video-answer").hidden = false;
  say("video-name", wanted.id);
  showLabels(wanted, answers[0]);
  say("video-frontier", `As of ${time(as_of)}; final before ${time(watermark)}.`);
  showTotals(answers);
  const min = spanStart(wanted.span, as_of);
  const bounds = reach(answers);
  const lines = answers.map(({ event_type, series }) => ({
    label: event_type,
    points: points(series, step, wanted.function, watermark, bounds),
  }));
  const isEmpty = lines.every((line) => line.points.length === 0);
  curve.draw(lines, isEmpty ? { min: min ?? as_of - step, max: as_of } : {});
  const totals = answers.map(({ event_type, total }) => `${event_type} ${number(total)}`).join(", ");
  byId("curve").setAttribute("aria-label", `${wanted.function} by ${wanted.granularity} of ${wanted.id}: ${totals}. A table follows.`);
  showTable(answers);
  announce(`${wanted.id}: ${totals}`, wanted.live ? seldomMs : 0);
};

const showMode = (text) => {
  byId("video-live").hidden = !text;
  say("video-live", text ?? "");
};

// ------------------------------------------------------------------------------------------------------------- asking

const status = (signal) => json("/v1/status", { signal });

// All types at one frontier.
const askOnce = async (wanted, as_of, signal) => {
  const { frontier } = as_of === undefined ? await status(signal) : { frontier: as_of };
  const question = { function: wanted.function, granularity: wanted.granularity };
  if (as_of !== undefined) question.as_of = as_of;
  const start = spanStart(wanted.span, frontier ?? 0);
  if (start !== undefined) question.start = start;
  const questions = wanted.types.map((event_type) => ({ ...question, event_type }));
  if (wanted.kind === "video") return json("/v1/stats", { body: questions.map((each) => ({ video_id: wanted.id, ...each })), signal });
  const path = `/v1/channels/${encodeURIComponent(wanted.id)}/stats`;
  return Promise.all(questions.map((params) => json(path, { params: { ...params, as_of: as_of ?? frontier }, signal })));
};

const poll = async (wanted, signal) => {
  showMode("live, asked every 2 s");
  while (!signal.aborted) {
    if (!document.hidden) show(wanted, await askOnce(wanted, undefined, signal));
    await pause(pollMs, signal);
  }
};

// What one stream has told so far.
class Followed {
  #windows = new Map();
  #told = null;
  #labels = {};

  constructor(event_type, fn) {
    this.event_type = event_type;
    this.function = fn;
  }

  take({ event, data }) {
    if (event === "state") {
      this.#windows.clear();
      const { video_name, channel_id, channel_name } = data;
      this.#labels = { video_name, channel_id, channel_name };
    }
    for (const point of event === "state" ? data.series : data.changed) this.#windows.set(point.start, point);
    this.#told = data;
  }

  get isThere() {
    return this.#told !== null;
  }

  get answer() {
    const { as_of, watermark, total, error } = this.#told;
    const series = [...this.#windows.values()].sort((a, b) => a.start - b.start);
    return { ...this.#labels, event_type: this.event_type, function: this.function, as_of, watermark, total, error, series };
  }
}

const follow = async (wanted, signal) => {
  const { frontier } = await status(signal);
  const { id: video_id, function: fn, granularity } = wanted;
  const followed = wanted.types.map((event_type) => new Followed(event_type, fn));
  const one = async (stream) => {
    const params = { video_id, event_type: stream.event_type, function: fn, granularity, start: spanStart(wanted.span, frontier ?? 0) };
    for await (const message of events(params, signal)) {
      stream.take(message);
      if (!followed.every(({ isThere }) => isThere)) continue;
      show(wanted, followed.map(({ answer }) => answer));
      showMode("live, by the stream");
    }
  };
  await Promise.all(followed.map(one));
};

const live = async (wanted, signal) => {
  // There is no stream of a channel.
  const canFollow = wanted.kind === "video" && wanted.types.length <= streamsMax;
  while (canFollow && !signal.aborted) {
    try {
      await follow(wanted, signal);
    } catch (error) {
      // A server without the stream, or one that has no room for another: asking again goes on.
      if (signal.aborted) return;
      if (error instanceof Problem) break;
    }
    await pause(pollMs, signal);
  }
  await poll(wanted, signal);
};

// ------------------------------------------------------------------------------------------------------ what was asked

const setSlider = async (signal) => {
  const { oldest_as_of, frontier } = await status(signal);
  // What is the oldest now may be gone in a moment. Whole steps from the newest, or the slider would stop short of it.
  const stepMs = Number(slider.step);
  const back = Math.max(0, Math.floor((frontier - (oldest_as_of ?? frontier) - 5000) / stepMs) * stepMs);
  Object.assign(slider, { min: frontier - back, max: frontier, value: frontier });
  slider.setAttribute("aria-valuetext", "newest");
  say("as-of-text", "newest");
};

const isNewest = () => slider.value === slider.max;

const sayAsOf = () => {
  const ago = Math.round((Number(slider.max) - Number(slider.value)) / 1000);
  const text = isNewest() ? "newest" : `${time(Number(slider.value)).slice(11)}, ${ago} s back`;
  slider.setAttribute("aria-valuetext", text);
  say("as-of-text", text);
};

const attempt = async (work, signal) => {
  try {
    await work();
    fault(null);
  } catch (error) {
    if (!signal.aborted) fault(error.message);
  }
};

const listenToSlider = (wanted, signal) => {
  let moved = new AbortController();
  const ask = async () => {
    sayAsOf();
    moved.abort();
    moved = new AbortController();
    const either = AbortSignal.any([moved.signal, signal]);
    // A hand on a slider makes many of these: the last one counts.
    await pause(120, either);
    if (either.aborted) return;
    showMode(null);
    await attempt(async () => show(wanted, await askOnce(wanted, isNewest() ? undefined : Number(slider.value), either)), either);
  };
  slider.addEventListener("input", ask, { signal });
  byId("newest").addEventListener("click", async () => {
    await attempt(() => setSlider(signal), signal);
    await ask();
  }, { signal });
};

// At once, as somebody may be typing by the time that an answer is there.
const fillIn = (wanted) => {
  const title = wanted.kind === "channel" ? "Channel" : "Video";
  say("video-title", title);
  say("id-label", `${title} id`);
  for (const name of ["kind", "id", "granularity", "span"]) form.elements[name].value = wanted[name];
  form.elements.types.value = wanted.types.join(", ");
  form.elements.live.checked = wanted.live;
};

const offerFunctions = async (wanted) => {
  const options = (await functions()).map((fn) => element("option", "", fn));
  form.elements.function.replaceChildren(...options);
  form.elements.function.value = wanted.function;
};

export const run = async (params, signal) => {
  curve ??= new Curve(byId("curve"));
  const wanted = {
    kind: params.get("view"),
    id: params.get("id") ?? "",
    types: typesOf(params.get("types") ?? "view"),
    function: params.get("function") ?? "count",
    granularity: params.get("granularity") in steps ? params.get("granularity") : "minute",
    span: params.get("span") ?? "6h",
    live: params.get("live") === "yes",
  };
  if (wanted.types.length === 0) wanted.types = ["view"];
  byId("video-answer").hidden = true;
  showMode(null);
  fillIn(wanted);
  await attempt(() => offerFunctions(wanted), signal);
  if (!wanted.id) return form.elements.id.focus();
  slider.disabled = wanted.live;
  byId("newest").disabled = wanted.live;
  listenToSlider(wanted, signal);
  await attempt(() => setSlider(signal), signal);
  await attempt(() => (wanted.live ? live(wanted, signal) : askOnce(wanted, undefined, signal).then((answers) => show(wanted, answers))), signal);
};

const submit = () => {
  const { kind, id, types, function: fn, granularity, span, live: isLive } = form.elements;
  const params = { types: typesOf(types.value).join(","), function: fn.value || "count", granularity: granularity.value, span: span.value };
  if (isLive.checked) params.live = "yes";
  const target = link(id.value, params, kind.value);
  if (location.hash === target) dispatchEvent(new HashChangeEvent("hashchange"));
  else location.hash = target;
};

form.addEventListener("submit", (event) => {
  event.preventDefault();
  submit();
});
form.elements.kind.addEventListener("change", () => say("id-label", form.elements.kind.value === "channel" ? "Channel id" : "Video id"));
form.elements.live.addEventListener("change", () => form.elements.id.value && submit());
