"""Scripts that a test puts into a page before the page's own: a faster clock, and ways to disturb it."""

from __future__ import annotations

INSIDE = """
  // `board` is the page's element, `inside` its shadow tree.
  Object.defineProperty(window, "board", { get: () => document.querySelector("live-scoreboard") });
  Object.defineProperty(window, "inside", { get: () => window.board?.shadowRoot });
"""

FAST = 12

FAST_CLOCK = f"""
(() => {{
  // Time that the page counts runs {FAST} times as fast: its minutes of patience pass while a test waits.
  const later = window.setTimeout, again = window.setInterval, now = Date.now, start = now();
  Date.now = () => start + (now() - start) * {FAST};
  window.setTimeout = (act, ms = 0, ...more) => later(act, ms / {FAST}, ...more);
  window.setInterval = (act, ms = 0, ...more) => again(act, ms / {FAST}, ...more);
}})()
"""

WATCHED_LINKS = """
(() => {
  // Every WebSocket of the page is in `links`; while `deaf` is set, what they receive does not get through.
  window.links = [];
  window.deaf = false;
  const Real = window.WebSocket;
  window.WebSocket = class extends Real {
    constructor(url, protocols) {
      super(url, protocols);
      Object.assign(this, { offered: protocols, made: Date.now() });
      window.links.push(this);
    }
    set onmessage(act) { super.onmessage = (event) => { if (!window.deaf) act(event); }; }
  };
})()
"""

NO_LINKS = """
(() => {
  // A proxy that lets no WebSocket through: each one closes without ever having been open. `attempts` has their times,
  // `Reached` is what makes real ones.
  window.Reached = window.WebSocket;
  window.attempts = [];
  window.WebSocket = class {
    constructor() { window.attempts.push(Date.now()); queueMicrotask(() => this.onclose?.({ code: 1006 })); }
    close() {}
  };
})()
"""

NO_STREAMS = """
(() => {
  // A proxy that lets no stream of events through. `streams` has the times of the attempts.
  window.streams = [];
  const real = window.fetch;
  window.fetch = (url, ...more) => {
    if (!String(url).includes("/sse/scoreboard")) return real(url, ...more);
    window.streams.push(Date.now());
    return Promise.reject(new TypeError("no stream"));
  };
})()
"""

NO_PUSH = f"{NO_LINKS};{NO_STREAMS}"
"""Neither gets through: only polls are answered."""

FORGED_POLLS = """
(() => {
  // While `forged` is set, polls are answered with it.
  window.forged = null;
  const real = window.fetch;
  window.fetch = (...call) => (window.forged ? Promise.resolve(Response.json(window.forged)) : real(...call));
})()
"""

COUNTED_MOVES = """
(() => {
  // `moves` counts the animations that shift a table row.
  window.moves = 0;
  const real = Element.prototype.animate;
  Element.prototype.animate = function (frames, options) {
    if (this.tagName === "TR" && frames.some((frame) => frame.transform)) window.moves += 1;
    return real.call(this, frames, options);
  };
})()
"""

VISIBILITY = """
(() => {
  // Whether somebody looks at the tab, as the test says: `look(false)`, `look(true)`.
  let seen = true;
  Object.defineProperty(document, "hidden", { get: () => !seen });
  Object.defineProperty(document, "visibilityState", { get: () => (seen ? "visible" : "hidden") });
  window.look = (now) => { seen = now; document.dispatchEvent(new Event("visibilitychange")); };
})()
"""

CLOCK_AHEAD = """
(() => {
  // The reader's clock is an hour ahead.
  const now = Date.now;
  Date.now = () => now() + 3_600_000;
})()
"""

TOLD = """
(() => {
  // `say(fields)` lets the page's link say more than the server does: an update at the next position.
  let seq = 1_000;
  window.say = (fields) => window.links.at(-1).dispatchEvent(new MessageEvent("message", { data: JSON.stringify(
    { type: "scoreboard_update", epoch: 1, seq: seq++, entries: [], generatedAt: new Date().toISOString(), ...fields },
  ) }));
  window.after = (seconds) => new Date(Date.now() + seconds * 1000).toISOString();
})()
"""

SHOWN_ROWS = """
[...inside.querySelectorAll("tbody tr:not([aria-hidden])")].map((row) =>
  ["[part=rank]", "[part=name]", "[part=score] > :last-child"].map((part) => row.querySelector(part).textContent))
"""

WORST_CONTRAST = """
(() => {
  // The lowest contrast between a visible text and what is painted behind it (WCAG 2.2, 1.4.3).
  const parts = (colour) => colour.match(/[\\d.]+/g).map(Number);
  const linear = (value) => (value <= 0.04045 ? value / 12.92 : ((value + 0.055) / 1.055) ** 2.4);
  const shares = [0.2126, 0.7152, 0.0722];
  const luminance = (colour) => shares.reduce((sum, share, at) => sum + share * linear(colour[at] / 255), 0);
  const behind = (node) => {
    const colour = parts(getComputedStyle(node).backgroundColor);
    return colour[3] === 0 ? behind(node.parentElement ?? node.getRootNode().host) : colour;
  };
  let worst = 21;
  for (const root of [document.body, inside].filter(Boolean)) {
    const walk = document.createTreeWalker(root, NodeFilter.SHOW_TEXT);
    while (walk.nextNode()) {
      const parent = walk.currentNode.parentElement;
      if (!walk.currentNode.textContent.trim() || !parent.checkVisibility({ opacityProperty: true })) continue;
      const both = [parts(getComputedStyle(parent).color), behind(parent)].map(luminance);
      worst = Math.min(worst, (Math.max(...both) + 0.05) / (Math.min(...both) + 0.05));
    }
  }
  return worst;
})()
"""
