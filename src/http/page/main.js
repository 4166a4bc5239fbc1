// Which view is seen: by the hash, so that each has an address and the browser's back works.

import { byId, fault } from "./dom.js";
import * as overview from "./overview.js";
import * as top from "./top.js";
import * as video from "./video.js";

const views = {
  overview: { section: "overview", title: "Overview", run: overview.run },
  video: { section: "video", title: "Video", run: video.run },
  // Asked for by the same form.
  channel: { section: "video", title: "Channel", nav: "video", run: video.run },
  top: { section: "top", title: "Top", run: top.run },
  rising: { section: "top", title: "Rising", run: top.run },
};

const decode = (text) => {
  try {
    return decodeURIComponent(text);
  } catch {
    return text;
  }
};

// `#/video/ID?types=view` is the view, and its parameters with the id among them.
const parse = (hash) => {
  const [path, query = ""] = hash.replace(/^#\/?/, "").split("?");
  const [name, id] = path.split("/");
  const params = new URLSearchParams(query);
  const view = name in views ? name : "overview";
  params.set("view", view);
  if (id) params.set("id", decode(id));
  return { view, params };
};

let running = new AbortController();
let shown = null;

const route = () => {
  const { view, params } = parse(location.hash);
  running.abort();
  running = new AbortController();
  fault(null);
  for (const { section } of Object.values(views)) byId(section).hidden = section !== views[view].section;
  for (const anchor of document.querySelectorAll("nav a")) {
    if (anchor.dataset.view === (views[view].nav ?? view)) anchor.setAttribute("aria-current", "page");
    else anchor.removeAttribute("aria-current");
  }
  const id = params.get("id");
  document.title = `${id ?? views[view].title} – Tidemark`;
  // Whoever has moved here by a link goes on reading here.
  if (shown !== null && shown !== view) byId("content").focus({ preventScroll: true });
  shown = view;
  views[view].run(params, running.signal);
};

byId("skip").addEventListener("click", (event) => {
  event.preventDefault();
  byId("content").focus();
});
addEventListener("hashchange", route);
route();
