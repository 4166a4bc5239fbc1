// How the process does, asked once a second.

import { json } from "./api.js";
import { Curve } from "./curve.js";
import { announce, byId, bytes, cell, duration, fault, number, pause, row, say, seldomMs, time } from "./dom.js";

const pollMs = 1000;
const kept = 120;

const reasons = {
  late: "behind its partition's clock by more than time.lateness",
  future: "stamped too far ahead of its arrival",
  malformed: "not an event",
  oversize: "over 1 MiB",
};
const accounts = ["read", "counted", "duplicate", "late", "future", "malformed", "oversize"];

let curve = null;
// { at, read } of each poll, by the wall clock.
let polls = [];

const rates = () =>
  polls.slice(1).map(({ at, read }, place) => {
    const before = polls[place];
    return { x: at, y: Math.max(0, ((read - before.read) * 1000) / (at - before.at)), final: true };
  });

const showRate = (ledger) => {
  polls = [...polls, { at: Date.now(), read: ledger?.read ?? 0 }].slice(-kept - 1);
  const points = rates();
  const newest = points.at(-1)?.y ?? null;
  say("rate", number(newest, 1));
  say("counted", ledger ? `${number(ledger.counted)} counted of ${number(ledger.read)} read` : "");
  // At first the axis is short, or the line would be a dot at its end.
  const max = polls.at(-1).at;
  const min = Math.min(polls[0].at, max - 30 * pollMs);
  curve.draw([{ label: "events a second", points }], { min, max });
  return newest;
};

const heldBy = (held) => {
  if (held === null) return "";
  if (held.partition === null) return `held by ${held.words}`;
  const clock = held.clock === null ? "no event came there yet" : `its clock is the least, ${time(held.clock)}`;
  return `held by partition ${held.partition}: ${clock}`;
};

const showCheckpoint = ({ last, failed }) => {
  say("checkpoint", last ? `no. ${number(last.number)}` : "none yet");
  const what = last ? `${duration(last.age_ms)} ago, ${bytes(last.bytes)} written in ${duration(last.duration_ms)}` : "";
  say("checkpoint-note", failed ? `${what}; ${number(failed)} failed` : what);
};

const showLedgers = ({ ledger, partitions }) => {
  const letters = Object.entries(reasons).map(([reason, meaning]) =>
    row(cell(reason), cell(number(ledger?.[reason]), "number"), cell(meaning, "note")));
  byId("letters").replaceChildren(...letters);
  const rows = partitions.map((at) =>
    row(cell(at.partition), cell(at.clock === null ? "no event yet" : time(at.clock)), cell(number(at.next_offset), "number"),
      ...accounts.map((account) => cell(number(at.ledger[account]), "number")), cell(at.ledger.balances ? "yes" : "NO")));
  byId("partitions").replaceChildren(...rows);
};

const show = (status) => {
  const isUp = `Ready, up for ${duration(status.uptime_ms)}, generation ${number(status.generation)}.`;
  say("summary", status.ready ? isUp : status.summary);
  const rate = showRate(status.ledger);
  say("lag", status.lag_ms === null ? "–" : `${duration(status.lag_ms)} behind`);
  say("frontier", status.frontier === null ? "no frontier yet" : `all before ${time(status.frontier)} is counted`);
  say("watermark", time(status.watermark || null));
  say("held-by", heldBy(status.watermark_held_by));
  say("bottleneck", status.bottleneck);
  showCheckpoint(status.checkpoints);
  showLedgers(status);
  if (rate !== null) announce(`${number(rate, 0)} events a second, ${duration(status.lag_ms ?? 0)} behind`, seldomMs);
};

export const run = async (_params, signal) => {
  curve ??= new Curve(byId("rate-chart"), { seconds: true });
  polls = [];
  while (!signal.aborted) {
    if (!document.hidden) {
      try {
        show(await json("/v1/status", { signal }));
        fault(null);
      } catch (error) {
        if (signal.aborted) return;
        fault(`No answer from the server: ${error.message}`);
      }
    }
    await pause(pollMs, signal);
  }
};
