// The videos or channels with the most, and those that gained the most.

import { json } from "./api.js";
import { announce, byId, cell, element, fault, heading, number, row, say, spanStart, time } from "./dom.js";
import { link } from "./video.js";

const form = byId("top-form");
let isRising = false;

const bar = (share) => {
  const made = element("div", "bar");
  made.style.width = `${Math.max(1, 100 * share)}%`;
  return made;
};

// The id, which leads to it, and what it is called.
const idCell = ({ video_id, video_name, channel_id, channel_name }, type) => {
  const [id, name, kind] = video_id === undefined ? [channel_id, channel_name, "channel"] : [video_id, video_name, "video"];
  const anchor = element("a", "", id);
  anchor.href = link(id, { types: type }, kind);
  const made = cell(anchor, "id");
  if (name) made.append(element("span", "note", ` ${name}`));
  return made;
};

const change = (value, before) => {
  const difference = value - before;
  return `${difference < 0 ? "−" : "+"}${number(Math.abs(difference))}`;
};

const show = ({ as_of, top }, { by, type, span }) => {
  const words = span === "all" ? "of all time" : form.elements.span.selectedOptions[0].textContent;
  say("top-note", `${type}, ${words}, as of ${time(as_of)}`);
  const heads = [heading("#", "number place"), heading(by === "channel" ? "Channel" : "Video", "id"), heading(isRising ? "Now" : "Count", "number")];
  if (isRising) heads.push(heading("Before", "number optional"), heading("Change", "number"));
  byId("top-head").replaceChildren(row(...heads));
  const weight = ({ value, before }) => (isRising ? Math.max(0, value - (before ?? 0)) : value);
  const most = Math.max(1, ...top.map(weight));
  const rows = top.map((each, place) => {
    const video = idCell(each, type);
    video.append(bar(weight(each) / most));
    const cells = [cell(place + 1, "number"), video, cell(number(each.value), "number")];
    if (isRising) {
      const before = each.before ?? 0;
      cells.push(cell(number(before), "number optional"), cell(change(each.value, before), "number"));
    }
    return row(...cells);
  });
  const none = cell(`No ${by} has events there.`);
  none.colSpan = heads.length;
  byId("top-body").replaceChildren(...(rows.length ? rows : [row(none)]));
  announce(top.length ? `${top[0].video_id ?? top[0].channel_id} is first with ${number(top[0].value)}` : `no ${by} has events there`);
};

export const run = async (params, signal) => {
  isRising = params.get("view") === "rising";
  say("top-title", isRising ? "Rising" : "Top");
  // Nothing of the other list may stand under this name.
  for (const id of ["top-note", "top-head", "top-body"]) byId(id).replaceChildren();
  // Before everything there is nothing to rise from.
  form.elements.span.querySelector("[value=all]").disabled = isRising;
  const by = params.get("by") === "channel" ? "channel" : "video";
  const wanted = { by, type: params.get("type") || "view", span: params.get("span") ?? (isRising ? "hour" : "24h"), k: params.get("k") ?? "10" };
  for (const [name, value] of Object.entries(wanted)) form.elements[name].value = value;
  try {
    const { frontier } = await json("/v1/status", { signal });
    const asked = { event_type: wanted.type, k: wanted.k };
    if (by === "channel") asked.by = by;
    if (isRising) asked.order = "rising";
    // These the server keeps running totals of.
    if (["hour", "day"].includes(wanted.span)) asked.span = wanted.span;
    else Object.assign(asked, { start: spanStart(wanted.span, frontier ?? 0), end: isRising ? (frontier ?? 0) : undefined });
    show(await json("/v1/top", { params: asked, signal }), wanted);
    fault(null);
  } catch (error) {
    if (!signal.aborted) fault(error.message);
  }
};

form.addEventListener("submit", (event) => {
  event.preventDefault();
  const query = new URLSearchParams(["by", "type", "span", "k"].map((name) => [name, form.elements[name].value]));
  const target = `#/${isRising ? "rising" : "top"}?${query}`;
  if (location.hash === target) dispatchEvent(new HashChangeEvent("hashchange"));
  else location.hash = target;
});
