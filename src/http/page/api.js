// Requests to the API of this same server, with the token where it wants one.

import { byId } from "./dom.js";

const tokenKey = "tidemark-token";

export class Problem extends Error {
  constructor(status, body) {
    super(body?.detail ?? `the server answered ${status}`);
    this.status = status;
    this.body = body;
  }
}

// Several requests may find at once that a token is needed: it is asked for once.
let asking = null;

const askForToken = () => {
  asking ??= new Promise((resolve) => {
    const dialog = byId("token-dialog");
    dialog.addEventListener("close", () => {
      sessionStorage.setItem(tokenKey, byId("token-form").elements.token.value);
      byId("token-form").reset();
      asking = null;
      resolve();
    }, { once: true });
    // There is nothing to see without it.
    dialog.addEventListener("cancel", (event) => event.preventDefault());
    dialog.showModal();
  });
  return asking;
};

// A response that is not a refusal.
export const ask = async (path, { params, body, signal } = {}) => {
  const query = new URLSearchParams();
  for (const [name, value] of Object.entries(params ?? {})) if (value !== undefined) query.set(name, value);
  // A space would be a plus in a form's encoding, and a plus is a plus to the server.
  const text = query.toString().replaceAll("+", "%20");
  const url = text ? `${path}?${text}` : path;
  for (;;) {
    const token = sessionStorage.getItem(tokenKey);
    const headers = token ? { authorization: `Bearer ${token}` } : {};
    const init = { headers, signal, cache: "no-store" };
    if (body !== undefined) Object.assign(init, { method: "POST", body: JSON.stringify(body) });
    const response = await fetch(url, init);
    if (response.ok) return response;
    if (response.status === 401) {
      await askForToken();
      continue;
    }
    throw new Problem(response.status, await response.json().catch(() => null));
  }
};

export const json = async (path, options) => (await ask(path, options)).json();

let documented = null;

// The functions that this server knows, by its own document.
export const functions = async () => {
  documented ??= json("/openapi.json");
  const { parameters } = (await documented).paths["/v1/videos/{video_id}/stats"].get;
  return parameters.find(({ name }) => name === "function").schema.enum;
};
