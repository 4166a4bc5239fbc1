// Server-Sent Events over fetch: EventSource can't send a token.

import { ask } from "./api.js";

const parse = (block) => {
  const message = { event: "message", data: [] };
  for (const line of block.split("\n")) {
    const colon = line.indexOf(":");
    const [field, value] = colon < 0 ? [line, ""] : [line.slice(0, colon), line.slice(colon + 1).replace(/^ /, "")];
    if (field === "event") message.event = value;
    if (field === "data") message.data.push(value);
  }
  return message;
};

// Yields { event, data } until the server ends the stream, with data from JSON. Comments keep a connection open and say nothing.
export async function* events(params, signal) {
  const response = await ask("/v1/stream", { params, signal });
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let text = "";
  for (;;) {
    const { value, done } = await reader.read();
    if (done) return;
    text = (text + value).replaceAll("\r\n", "\n");
    const blocks = text.split("\n\n");
    text = blocks.pop();
    for (const { event, data } of blocks.map(parse)) if (data.length) yield { event, data: JSON.parse(data.join("\n")) };
  }
}
