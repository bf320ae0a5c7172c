/* A world of its own for a feed: a clock that a test moves, and a server that a test plays.

     const world = new World();
     const feed = world.feed({ board: "main" });
     feed.resume();
     await world.pass(5_000);                       five seconds go by, and every timer in them
     world.sockets[0].say(board(1, 7));

   Chance is fixed at 0.5, so every wait is the middle of its bounds. */

import { Feed } from "../../../server/pages/scoreboard.js";

export const board = (epoch, seq, ...rows) => ({
  epoch, seq, entries: rows.map(([userId, score], place) => ({ userId, score, rank: place + 1 })),
});
export const snapshot = (...told) => ({ type: "scoreboard_snapshot", ...board(...told) });
export const update = (...told) => ({ type: "scoreboard_update", ...board(...told) });

/** Lets promises that are settled go on. */
export const settle = async () => { for (let turn = 0; turn < 30; turn += 1) await null; };

export class World {
  now = 1_700_000_000_000;
  sockets = [];
  // { url, headers, at } of every request; `answer(request)` gives the answer, or throws.
  requests = [];
  answer = () => { throw new TypeError("nobody is there"); };
  // What the feed told: ["show", before, board], ["final", ended], ["state", name].
  told = [];
  #timers = new Map();
  #lastTimer = 0;

  constructor() {
    const world = this;
    const later = (act, milliseconds = 0, every = null) => {
      this.#timers.set(this.#lastTimer += 1, { at: this.now + milliseconds, act, every });
      return this.#lastTimer;
    };
    Object.assign(globalThis, {
      setTimeout: (act, milliseconds) => later(act, milliseconds),
      setInterval: (act, milliseconds) => later(act, milliseconds, milliseconds),
      clearTimeout: (timer) => this.#timers.delete(timer),
      clearInterval: (timer) => this.#timers.delete(timer),
      fetch: async (url, { headers, signal, mode }) => {
        const request = { url, headers, signal, mode, at: this.now };
        this.requests.push(request);
        return this.answer(request);
      },
      WebSocket: class {
        isOpen = true;
        constructor(url, protocols) { Object.assign(this, { url, protocols, at: world.now }); world.sockets.push(this); }
        say(message) { this.onmessage({ data: JSON.stringify(message) }); }
        end(code = 1006, reason = "") { this.isOpen = false; this.onclose({ code, reason }); }
        close() { this.isOpen = false; }
      },
    });
    Date.now = () => this.now;
    Math.random = () => 0.5;
  }

  feed(options = {}) {
    let state = "paused";
    const feed = new Feed(new URL("https://board.example/sub/"), options, {
      show: (before, shown) => this.told.push(["show", before, shown]),
      final: (ended) => this.told.push(["final", ended]),
      tell: () => { if (feed?.state !== state) this.told.push(["state", state = feed.state]); },
    });
    return feed;
  }

  /** Moves the clock on, and runs every timer on the way, in order. */
  async pass(milliseconds) {
    const end = this.now + milliseconds;
    for (;;) {
      await settle();
      const [id, next] = [...this.#timers].filter(([, timer]) => timer.at <= end).sort(([, a], [, b]) => a.at - b.at)[0] ?? [];
      if (!next) break;
      this.now = Math.max(this.now, next.at);
      if (next.every === null) this.#timers.delete(id); else next.at += next.every;
      next.act();
    }
    this.now = end;
    await settle();
  }

  /** The machine sleeps: the clock moves, and no timer runs. */
  sleep(milliseconds) { this.now += milliseconds; }

  get states() { return this.told.filter(([what]) => what === "state").map(([, state]) => state); }
  asked(part) { return this.requests.filter(({ url }) => String(url).includes(part)); }
}

/** An answer to a poll. */
export const polled = (told, { etag = `"${told.seq}"` } = {}) => Response.json(told, { headers: { ETag: etag } });
export const refused = (status, code, headers = {}) => Response.json({ error: { code, message: "As it says.", details: {} } }, { status, headers });

/** A stream of events: `response` is the answer, `say` sends a message, `end` ends it. */
export function stream() {
  let controller;
  const body = new ReadableStream({ start(given) { controller = given; } });
  const send = (text) => controller.enqueue(new TextEncoder().encode(text));
  return {
    response: new Response(body, { headers: { "Content-Type": "text/event-stream" } }),
    send,
    say: (message) => send(`data: ${JSON.stringify(message)}\n\n`),
    end: () => controller.close(),
    break: () => controller.error(new TypeError("cut")),
  };
}
