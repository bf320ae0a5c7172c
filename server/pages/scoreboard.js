/* <live-scoreboard>: the live top ten of a board, on any page. One file, no dependency.

     <script type="module" src="https://board.example/scoreboard.js"></script>
     <live-scoreboard board="main" rows="10"></live-scoreboard>

   Three parts, each uses only those above it: plain values and functions, without a clock, a network or a document;
   `Feed`, which talks to a server and has no document; `LiveScoreboard`, which draws. server/PAGES.md is the reference.

   Invariants:
   - A position is (epoch, seq). A feed never goes back to an older position than the one it shows. If a server offers
     only older ones, it keeps what it has and says so. Two leaders of one epoch have different histories, whose
     positions say nothing of each other: the feed goes to the one that is not stale.
   - A link's `board` is what this link has said so far, `shown` is what people see. They differ because a poll may be
     ahead of a link. A delta is only ever applied to the board that it names (same epoch, baseSeq = its seq).
   - `shown` moves on at once, always. When a period ends, its last rows (`final`) only cover it for a few seconds.
   - At most one link speaks, one link is opening, and one poll is under way. Every wait is drawn by lot: many pages
     look at one server.
   - The ladder is WebSocket, events, polling. A rung is left after REFUSALS_MAX tries in a row that never spoke, and
     only while polls are answered: a server that is down says nothing of a rung. From below, the WebSocket is tried
     again now and then.
   - Names are hostile text: they only ever become text nodes, never markup. No style is an attribute in markup, so the
     element needs no style-src in the policy of its page.
   - The token travels as a subprotocol or as a header, never in the URL of a request.
   - The server's clock counts, as far as it is known: `clockAhead` is by how much it is ahead of the reader's.

   The server sends scoreboard.min.js, which `npm run build` in clients/js makes of this file. */

const SECOND = 1000;
// Some proxies swallow the upgrade and never answer.
const FIRST_MESSAGE_WITHIN = 10 * SECOND;
// After this a poll fills the board while the link is still trying.
const FIRST_DATA_WITHIN = 2.5 * SECOND;
const ANSWER_WITHIN = 8 * SECOND;
const TOKEN_WITHIN = 8 * SECOND;
const BACKOFF_FROM = 0.5 * SECOND;
const BACKOFF_TO = 15 * SECOND;
// After close 1012 or 1013 every viewer comes back: not all at once.
const RESTART_SPREAD = 8 * SECOND;
const CLOSED_SPREAD = 30 * SECOND;
// A link that lived this long starts again with a short backoff.
const STABLE_AFTER = 10 * SECOND;
const POLL_EVERY = 5 * SECOND;
const REFUSALS_MAX = 3;
// While polling, links are tried only now and then; while events come, the WebSocket even less.
const REFUSED_EVERY = 60 * SECOND;
const UP_EVERY = 120 * SECOND;
// A bad board or token: a wall screen recovers once that is put right.
const REFUSED_POLL_EVERY = 30 * SECOND;
// A quiet board or a dead link? JavaScript does not see pings.
const SILENCE_MAX = 60 * SECOND;
const CATCH_UP_WITHIN = 3 * SECOND;
// The clock stood still for this long between two ticks: the machine slept.
const SLEPT_AFTER = 30 * SECOND;
// A tab that nobody looks at lets its link go after this.
const HIDDEN_MAX = 15 * SECOND;
const BEHIND_AFTER = 5 * SECOND;
const BAD_AFTER = 5 * SECOND;
const RETRY_AFTER_MAX = 120 * SECOND;
const GAIN_SHOWN = 2.5 * SECOND;
const COUNT_FOR = 600;
const ANNOUNCE_EVERY = 30 * SECOND;
const FINAL_SHOWN = 6 * SECOND;
// The clock is put back only by more than a message may be under way.
const CLOCK_TRUST = 2 * SECOND;
const ROWS_MAX = 10;
const NAME_SHRINKS_TO = 0.65;
const LADDER = ["websocket", "events"];

/* ---- Values ------------------------------------------------------------------------------------------------------ */

const jittered = (milliseconds) => milliseconds * (0.75 + Math.random() * 0.5);

/** How long to wait after so many failures in a row, by full jitter: from 0 to a bound that doubles. */
export const backoff = (failures, from = BACKOFF_FROM, to = BACKOFF_TO, random = Math.random()) =>
  random * Math.min(to, from * 2 ** failures);

/** Milliseconds of a Retry-After header, a number of seconds or a date; 0 without one, two minutes at most. */
export function retryAfterOf(header, now) {
  const seconds = Number(header);
  const wait = Number.isNaN(seconds) ? Date.parse(header) - now : seconds * SECOND;
  return Math.min(Math.max(wait || 0, 0), RETRY_AFTER_MAX);
}

const isElsewhere = (a, b) => a.epoch === b.epoch && Boolean(a.history && b.history) && a.history !== b.history;

/** Whether board `a` must not follow board `b` on a screen. */
export const isOlder = (a, b) => isElsewhere(a, b) ? a.age !== null : a.epoch < b.epoch || (a.epoch === b.epoch && a.seq < b.seq);

const ageOf = (body) => body.stale === true ? Number(body.ageMs) || 0 : null;
// What is left out has its default.
const aboutOf = (body) => ({
  title: body.title ?? "", period: body.period ?? "", endsAt: Date.parse(body.endsAt) || 0, over: body.over === true,
  frozenAt: Date.parse(body.frozenAt) || 0, revealed: Number(body.revealed) || 0,
});

/** The board that a message or an answer tells of. Times are milliseconds; `age` is null, or that of stale data. */
export const boardOf = (body, history = "") =>
  ({ ...aboutOf(body), epoch: body.epoch, seq: body.seq, entries: body.entries, age: ageOf(body), history: body.history || history });

const isBoard = (body) => Number.isInteger(body?.epoch) && Number.isInteger(body.seq) && Array.isArray(body.entries);
const nameOf = (entry) => entry.displayName?.trim() || entry.userId;

/** Whether two boards look the same to people. */
export const looksLike = (a, b) => Object.keys(aboutOf({})).every((field) => a[field] === b[field])
  && a.entries.length === b.entries.length && a.entries.every((entry, place) =>
    ["userId", "score", "rank", "displayName"].every((field) => entry[field] === b.entries[place][field])
    && ["day", "period"].every((since) => entry.change?.[since] === b.entries[place].change?.[since]));

/** The board after a delta, or null when the delta does not belong to it. Of equal ranks a delta has all rows or none. */
export function afterDelta(board, delta) {
  if (!board || delta.epoch !== board.epoch || delta.baseSeq !== board.seq) return null;
  const { left = [], changed = [] } = delta;
  const out = new Set([...left, ...changed.map((entry) => entry.userId)]);
  const entries = [...board.entries.filter((entry) => !out.has(entry.userId)), ...changed].sort((a, b) => a.rank - b.rank);
  // 1, 2, 3 or 1, 2, 2, 4 or 1, 2, 2, 3.
  const fits = entries.every(({ rank }, place) => {
    const above = entries[place - 1]?.rank ?? 0;
    return rank === above + 1 || rank === place + 1 || (rank === above && place > 0);
  });
  return fits ? boardOf({ ...delta, entries }, board.history) : null;
}

/** Reads server-sent events: pieces of text of any size go in, each event's data and each `retry` come out. */
export function eventReader(onData, onRetry) {
  let rest = "";
  let data = [];
  return (piece) => {
    // A carriage return at the end may be half of a line's end.
    const lines = (rest + piece).split(/\r\n|\n|\r(?!$)/);
    rest = lines.pop();
    for (const line of lines) {
      const [, field, value] = /^([^:]*):? ?(.*)$/s.exec(line);
      if (field === "data") data.push(value);
      else if (field === "retry" && /^\d+$/.test(value)) onRetry(Number(value));
      else if (!line && data.length) onData(data.splice(0).join("\n"));
    }
  };
}

/** The address of a board's service, with a slash at its end; null for what is no address. */
export function serviceOf(src, base) {
  let url;
  try { url = new URL(src, base); } catch { return null; }
  if (!/^https?:$/.test(url.protocol)) return null;
  url.search = url.hash = "";
  if (!url.pathname.endsWith("/")) url.pathname += "/";
  return url;
}

/* ---- The feed: one board of one server --------------------------------------------------------------------------- */

/* States: connecting, live (a link speaks), polling (none does, but polls are answered), reconnecting (nothing answers),
   behind (what answers is older than what is shown), stale (a replica answers that has not heard of its leader),
   refused (the server said why it will not answer), paused (nobody looks). */
export class Feed {
  shown = null;
  // When the server last said or confirmed what is shown; when a stale replica last heard of its leader.
  freshAt = 0;
  staleFrom = 0;
  clockAhead = 0;
  // { reason, text }: why the server will not answer.
  refusal = null;
  isPaused = true;
  #service; #query; #view;
  // What was given: a text or a function. What it gave: a promise, kept until the token is no longer good.
  #source = "";
  #credential = null;
  #behindSince = 0;
  #link = null;
  #opening = null;
  #rung = 0;
  #attempts = 0;
  #refusals = {};
  #connectTimer = 0;
  #polled = null;
  #etag = "";
  #asking = null;
  #pollFailures = 0;
  #hasHinted = false;
  #pollAnswered = false;
  #pollTimer = 0;
  // What Retry-After said, and a draw.
  #pollFrom = 0;
  #catchUpTimer = 0;
  #ticker = 0;
  #tickedAt = 0;
  #silenceMax = jittered(SILENCE_MAX);

  /** `view` hears: `show(before, board)`, `final(ended)` when a period ends, and `tell()` when anything may be new. */
  constructor(service, { board = "main", isLiveView = false, token = "" }, view) {
    this.#service = service;
    this.#query = `boardId=${encodeURIComponent(board)}${isLiveView ? "&view=live" : ""}`;
    this.#source = token;
    this.#view = view;
  }

  get state() {
    if (this.isPaused) return "paused";
    if (this.refusal) return "refused";
    if (this.#behindSince && Date.now() - this.#behindSince > BEHIND_AFTER) return "behind";
    if (this.staleFrom && (this.#link || this.#pollAnswered)) return "stale";
    if (this.#link) return "live";
    if (this.#pollAnswered) return "polling";
    return this.shown || this.#attempts + this.#pollFailures > 2 ? "reconnecting" : "connecting";
  }

  /** How boards come in now: websocket, events, polling, or nothing. */
  get channel() {
    return this.#link?.kind ?? (this.#pollAnswered ? "polling" : "");
  }

  get #renews() {
    return typeof this.#source === "function";
  }

  /** Begins with another token, at once. */
  set token(source) {
    this.#source = source;
    this.#credential = null;
    const isRunning = !this.isPaused;
    this.#release();
    this.refusal = null;
    this.#etag = "";
    if (isRunning) this.resume();
  }

  /** Lets go of the server until `resume`. */
  pause() {
    this.#release();
    this.#view.tell();
  }

  #release() {
    this.isPaused = true;
    this.#drop(this.#link);
    this.#drop(this.#opening);
    for (const timer of [this.#connectTimer, this.#pollTimer, this.#catchUpTimer]) clearTimeout(timer);
    clearInterval(this.#ticker);
    this.#asking?.abort();
    this.#asking = null;
  }

  /** Begins, or makes sure of what is shown after a pause, a sleep or a network that was away. */
  resume() {
    clearInterval(this.#ticker);
    this.isPaused = false;
    this.#tickedAt = Date.now();
    this.#ticker = setInterval(() => this.#tick(), SECOND);
    if (this.#link) { this.#poll(); return; }
    this.#attempts = this.#rung = 0;
    this.#refusals = {};
    const isKnown = this.shown !== null;
    if (!this.refusal) this.#connect();
    if (isKnown || !this.#opening) this.#poll(); else if (!this.#asking) this.#pollIn(FIRST_DATA_WITHIN);
    this.#view.tell();
  }

  #tick() {
    const now = Date.now();
    const slept = now - this.#tickedAt > SLEPT_AFTER;
    this.#tickedAt = now;
    if (slept) this.resume();
    else if (this.#link && now - this.#link.heardAt > this.#silenceMax) this.#poll();
    this.#view.tell();
  }

  /** The token, asked for once until it is no longer good. Rejects for a callback that fails and for what is no token. */
  #token() {
    return this.#credential ??= this.#askToken().catch((error) => { this.#credential = null; throw error; });
  }

  async #askToken() {
    const given = this.#renews ? await within(TOKEN_WITHIN, this.#source()) : this.#source;
    const token = String(given ?? "");
    if (/^[\w.-]*$/.test(token)) return token;
    this.#refuse("malformed");
    throw new TypeError("not a token");
  }

  /** Takes a board from any channel: shows it, unless it is older than what is shown. */
  #offer(board) {
    this.refusal = null;
    this.staleFrom = board.age === null ? 0 : this.staleFrom || Date.now() - board.age;
    const before = this.shown;
    if (before && isOlder(board, before)) {
      // A board may be the same at two positions: points for someone below the top 10 also move seq.
      if (looksLike(board, before)) this.#confirm(); else this.#behindSince ||= Date.now();
    } else {
      this.shown = board;
      this.#confirm();
      this.#view.show(before, board);
    }
    this.#view.tell();
  }

  #confirm() {
    this.#behindSince = 0;
    this.freshAt = Date.now();
  }

  /** Learns the server's clock. A time is never ahead of it, and may be old: an edition is made once, for all who come. */
  #learnClock(time, isFresh) {
    const ahead = time - Date.now();
    if (ahead > this.clockAhead || (isFresh && ahead < this.clockAhead - CLOCK_TRUST)) this.clockAhead = ahead;
  }

  /* Links */

  #connectIn(milliseconds) {
    clearTimeout(this.#connectTimer);
    this.#connectTimer = setTimeout(() => this.#connect(), milliseconds);
  }

  #connect() {
    clearTimeout(this.#connectTimer);
    if (this.isPaused || this.#opening) return;
    const link = this.#opening = { kind: LADDER[this.#rung], board: null, from: 0, heardAt: 0, close() {} };
    link.timer = setTimeout(() => this.#lost(link, { isLate: true }), FIRST_MESSAGE_WITHIN);
    this.#token().then((token) => {
      if (this.#opening !== link) return;
      if (link.kind === "websocket") this.#openSocket(link, token); else this.#openStream(link, token);
    }, () => this.#lost(link, { isUnrelated: true }));
  }

  #openSocket(link, token) {
    const url = new URL(`ws/scoreboard?${this.#query}`, this.#service);
    url.protocol = url.protocol.replace("http", "ws");
    const protocols = ["scoreboard.delta.v1", "scoreboard.v1", ...(token ? [`scoreboard.token.${token}`] : [])];
    let socket;
    try { socket = new WebSocket(url, protocols); } catch { this.#lost(link, {}); return; }
    socket.onmessage = (event) => this.#receive(link, event.data);
    socket.onclose = (event) => this.#lost(link, event);
    link.close = () => socket.close();
  }

  async #openStream(link, token) {
    const ending = new AbortController();
    link.close = () => ending.abort();
    let wait, closedFor;
    try {
      const url = new URL(`sse/scoreboard?${this.#query}`, this.#service);
      const headers = token ? { Authorization: `Bearer ${token}` } : {};
      const answer = await fetch(url, { headers, signal: ending.signal, cache: "no-store" });
      if (answer.status === 503) closedFor = retryAfterOf(answer.headers.get("Retry-After"), Date.now());
      else if (answer.ok && /^text\/event-stream/.test(answer.headers.get("Content-Type"))) {
        const read = eventReader((data) => this.#receive(link, data), (milliseconds) => { wait = milliseconds; });
        const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
        for (let piece = await reader.read(); !piece.done; piece = await reader.read()) {
          link.heardAt = Date.now();
          read(piece.value);
        }
      }
    } catch {
      // The stream broke, or was never there.
    }
    this.#lost(link, { wait, closedFor });
  }

  #receive(link, data) {
    if (link !== this.#link && link !== this.#opening) return;
    let message;
    try { message = JSON.parse(data); } catch { return; }
    const type = message?.type;
    let next;
    if (type === "scoreboard_period" && link.board && Array.isArray(message.entries)) {
      this.#view.final({ period: message.period, next: message.next, entries: message.entries, isFinal: true });
      return;
    }
    // Only the first message names the history.
    const history = link.board?.epoch === message?.epoch ? link.board?.history : "";
    if (type === "scoreboard_snapshot" || type === "scoreboard_update") next = isBoard(message) ? boardOf(message, history) : null;
    else if (type === "scoreboard_delta") next = afterDelta(link.board, message);
    // A later version may say more; it is not for us.
    else return;
    // Something was missed: a new link begins with a snapshot.
    if (!next) { this.#lost(link, { isUnrelated: true }); return; }
    if (link === this.#opening) this.#spoke(link);
    link.board = next;
    link.heardAt = Date.now();
    this.#learnClock(Date.parse(message.generatedAt), type !== "scoreboard_snapshot");
    this.#offer(next);
  }

  /** The first message of a link: from here on it carries the board, and polling ends. */
  #spoke(link) {
    this.#drop(this.#link);
    clearTimeout(link.timer);
    clearTimeout(this.#pollTimer);
    this.#link = link;
    this.#opening = null;
    link.from = Date.now();
    this.#refusals = {};
    if (link.kind !== LADDER[0]) this.#tryAbove();
  }

  #tryAbove() {
    this.#rung = 0;
    this.#connectIn(jittered(UP_EVERY));
  }

  #drop(link) {
    if (!link) return;
    clearTimeout(link.timer);
    clearTimeout(this.#catchUpTimer);
    if (link === this.#link) this.#link = null; else this.#opening = null;
    link.close();
  }

  /** A link is gone, or given up: comes back after a while and polls until then. `wait` is what the server told a link
      that spoke, `closedFor` what it told one that it does not want now. */
  #lost(link, why) {
    const { code, reason } = why;
    const lived = link === this.#link;
    if (!lived && link !== this.#opening) return;
    this.#drop(link);
    if (this.isPaused || this.refusal) return;
    if (code === 1008 && reason === "token expired") {
      if (!this.#renews) { this.#refuse("expired"); return; }
      this.#credential = null;
    }
    if (this.#link) { this.#tryAbove(); return; }
    this.#attempts = lived && Date.now() - link.from > STABLE_AFTER ? 0 : this.#attempts + 1;
    if (lived) {
      this.#pollAnswered = false;
      this.#rung = LADDER.indexOf(link.kind);
    }
    this.#connectIn(this.#waitAfter(link, lived, why));
    // Never spoken: the poll tells why at once. Was live: most links are back before the first poll is due.
    this.#pollIn(lived ? jittered(POLL_EVERY) : Math.random() * 300);
    this.#view.tell();
  }

  #waitAfter({ kind }, lived, { code, wait, closedFor, isLate, isUnrelated }) {
    if (code === 1012) return jittered(RESTART_SPREAD / 4) + Math.random() * RESTART_SPREAD;
    if (code === 1013) return Math.random() * CLOSED_SPREAD;
    if (lived && wait) return wait;
    if (closedFor !== undefined) {
      this.#rung = 0;
      return Math.max(closedFor, backoff(this.#attempts)) + Math.random() * SECOND;
    }
    if (!lived && !isUnrelated) {
      this.#refusals[kind] = (this.#refusals[kind] ?? 0) + (isLate ? REFUSALS_MAX : 1);
      if (this.#refusals[kind] >= REFUSALS_MAX && this.#pollAnswered) {
        this.#rung = (LADDER.indexOf(kind) + 1) % LADDER.length;
        return this.#rung ? 0 : jittered(REFUSED_EVERY);
      }
    }
    return backoff(this.#attempts);
  }

  /* Polling */

  #pollIn(milliseconds) {
    clearTimeout(this.#pollTimer);
    this.#pollTimer = setTimeout(() => this.#poll(), Math.max(milliseconds, this.#pollFrom - Date.now()));
  }

  /** Asks once and takes the answer; unless a link speaks, asks again later. */
  async #poll() {
    clearTimeout(this.#pollTimer);
    if (this.isPaused || this.#asking) return;
    const asking = this.#asking = new AbortController();
    const deadline = setTimeout(() => asking.abort(), ANSWER_WITHIN);
    const answer = await this.#ask(asking.signal);
    clearTimeout(deadline);
    // Paused or given another token meanwhile.
    if (this.#asking !== asking) return;
    this.#asking = null;
    if (answer.refusal) { this.#refuse(answer.refusal, answer.text); return; }
    this.#pollAnswered = answer.board !== undefined;
    if (!this.#pollAnswered) { this.#pollFailed(answer); return; }
    const isBack = this.#pollFailures > 0 || this.refusal !== null;
    const before = this.shown;
    const polled = this.#polled = answer.board;
    this.#pollFailures = 0;
    this.#etag = answer.etag;
    if (!this.#link && before?.period && polled.period !== before.period && !isOlder(polled, before)) this.#askFinal(before, polled);
    this.#offer(polled);
    if (this.#link) { this.#compare(polled); return; }
    this.#pollIn(jittered(POLL_EVERY));
    // The server answers again: so may a link.
    if (!isBack) return;
    this.#attempts = this.#rung = 0;
    this.#refusals = {};
    if (!this.#opening) this.#connectIn(Math.random() * 2 * SECOND);
  }

  #pollFailed({ retryAfter = 0, isBusy }) {
    this.#pollFailures += 1;
    if (this.#link) {
      // No answer at all means that the link is dead too; a busy server says nothing about the link.
      this.#link.heardAt = Date.now();
      if (!isBusy) this.#lost(this.#link, {});
    } else {
      if (retryAfter) this.#pollFrom = Date.now() + retryAfter + Math.random() * Math.max(retryAfter, POLL_EVERY);
      this.#pollIn(POLL_EVERY / 2 + backoff(this.#pollFailures, POLL_EVERY) / 2);
    }
    this.#view.tell();
  }

  /** One request. Gives { board, etag }, { refusal, text } or { retryAfter, isBusy }. */
  async #ask(signal, isRenewed = false) {
    try {
      const [token, headers] = await this.#credentials();
      if (this.#etag) headers["If-None-Match"] = this.#etag;
      const response = await fetch(this.#topUrl(), { headers, signal, cache: "no-store" })
        .catch((error) => { if (!signal.aborted) this.#hint(); throw error; });
      this.#learnClock(Date.parse(response.headers.get("Date")) + SECOND / 2, true);
      if (response.status === 304) return { board: this.#polled, etag: this.#etag };
      if (response.status === 401 && this.#renews && !isRenewed) {
        this.#credential = null;
        return await this.#ask(signal, true);
      }
      const body = await response.json();
      if (response.ok && isBoard(body)) return { board: boardOf(body), etag: response.headers.get("ETag") || "" };
      const refusal = typeof body?.error?.code === "string" && refusalOf(response.status, token);
      if (refusal) return { refusal, text: body.error.message };
      return { retryAfter: retryAfterOf(response.headers.get("Retry-After"), Date.now()), isBusy: true };
    } catch {
      // No answer, not one of ours, or no token.
      return this.refusal?.reason === "malformed" ? { refusal: "malformed" } : { isBusy: false };
    }
  }

  /** Tells the console, once, why a page of another origin gets nothing from a server that is there. */
  async #hint() {
    const here = globalThis.location?.origin;
    const { origin } = this.#service;
    if (this.shown || this.#hasHinted || !here || here === origin) return;
    try {
      // Its answer can't be read, but it comes.
      await fetch(new URL("healthz", this.#service), { mode: "no-cors", cache: "no-store" });
      if (this.shown || this.#hasHinted) return;
      this.#hasHinted = true;
      console.warn(`<live-scoreboard>: ${origin} answers, but this page may not read it. Is ${here} in its [live] allowed_origins?`);
    } catch {
      // Nobody is there.
    }
  }

  async #credentials() {
    const token = await this.#token();
    return [token, token ? { Authorization: `Bearer ${token}` } : {}];
  }

  #topUrl(more = "") {
    return new URL(`scoreboard/top?${this.#query}&limit=${ROWS_MAX}${more}`, this.#service);
  }

  /** A poll found the next period: the last known rows stay until the final ones of the period are here, or time is up. */
  async #askFinal(before, next) {
    const ended = { period: before.period, next: next.period, entries: before.entries, isFinal: false };
    this.#view.final(ended);
    try {
      const [, headers] = await this.#credentials();
      const signal = AbortSignal.timeout(ANSWER_WITHIN);
      const response = await fetch(this.#topUrl("&period=previous"), { headers, signal, cache: "no-store" });
      const body = await response.json();
      if (response.ok && isBoard(body) && body.period === ended.period) this.#view.final({ ...ended, entries: body.entries, isFinal: true }, ended);
    } catch {
      // Without an answer the last known rows were shown.
    }
  }

  #refuse(reason, text = "") {
    this.refusal = { reason, text };
    this.#pollAnswered = false;
    this.#drop(this.#link);
    this.#drop(this.#opening);
    clearTimeout(this.#connectTimer);
    // A text that is no token stays none.
    if (reason === "malformed" && !this.#renews) clearTimeout(this.#pollTimer); else this.#pollIn(jittered(REFUSED_POLL_EVERY));
    this.#view.tell();
  }

  /** Is a silent link dead, or is nothing going on? What a poll knows must come over the link, soon. */
  #compare(expected) {
    const link = this.#link;
    link.heardAt = Date.now();
    const missed = () => link === this.#link && isOlder(link.board, expected) && !looksLike(link.board, expected);
    clearTimeout(this.#catchUpTimer);
    if (missed()) this.#catchUpTimer = setTimeout(() => { if (missed()) this.#lost(link, { isUnrelated: true }); }, CATCH_UP_WITHIN);
  }
}

const within = (milliseconds, promise) => Promise.race([promise, new Promise((_, reject) => {
  setTimeout(() => reject(new Error("too late")), milliseconds);
})]);

function refusalOf(status, token) {
  if (status === 400 || status === 404) return "board";
  if (status === 401) return token ? "token" : "private";
  return status === 403 ? "scope" : "";
}

/* ---- Words: each can be replaced by `element.words` --------------------------------------------------------------- */

/** {0} and {1} are filled in. */
export const WORDS = {
  connecting: "Connecting", live: "Live", polling: "Polling", reconnecting: "Reconnecting", behind: "Server is behind",
  stale: "Out of date", refused: "Not available", paused: "Paused",
  liveWhy: "Changes show up as they happen.",
  pollingWhy: "The live channel is not available; the page asks every few seconds instead.",
  reconnectingWhy: "The server does not answer. This is the last known state.",
  staleWhy: "The server has lost its source. This is the last state that it heard of.",
  behindWhy: "The server offers an older state than the one shown. Reload the page to see it.",
  position: "Position: epoch {0}, seq {1}.",
  now: "now", seconds: "{0} s ago", minutes: "{0} min ago", hours: "{0} h ago",
  heading: "Scoreboard", top: "Top {0}", rank: "Rank", change: "Change", name: "Name", score: "Score",
  empty: "No scores yet", emptyWhy: "The first score shows up here by itself.",
  fresh: "new", freshDay: "Not among the first 100 a day ago", freshPeriod: "Not among the first 100 of the last period",
  up: "{0} places up {1}", upOne: "1 place up {1}", down: "{0} places down {1}", downOne: "1 place down {1}",
  day: "in 24 hours", period: "since the last period",
  final: "final: {0}", ended: "ended: {0}", then: "then {0}", over: "over", isEnded: "ended", endsNow: "ends now",
  endsDays: "ends in {0} d {1} h", endsHours: "ends in {0} h {1} min", endsMinutes: "ends in {0}:{1}",
  frozen: "frozen", since: "since {0}", sincePublic: "since {0} for the public", revealed: "{0} revealed",
  saysFrozen: "The board is frozen since {0}.", saysThawed: "The board is no longer frozen.",
  saysLeads: "{0} leads with {1}.", saysEnded: "{0} has ended.", saysFirst: "{0} is first with {1}.",
  saysFresh: "The scoreboard is up to date again.",
  address: "“{0}” is not the address of a scoreboard.", addressWhy: "It begins with http:// or https://.",
  board: "There is no board “{0}” here.",
  token: "The token is not accepted.", tokenWhy: "It may have expired.",
  private: "This board is not public.", privateWhy: "It needs a token.",
  scope: "This token may not read the board.", scopeWhy: "It needs the scope scores:read.",
  expired: "The token has expired.", expiredWhy: "It needs a fresh one.",
  malformed: "What was given as a token is not a token.", malformedWhy: "Something else was copied with it, perhaps.",
};

/** 2 d 3 h, then 3 h 20 min, in the last hour 19:05: the word and its values for a time that is left. */
export function timeLeft(milliseconds) {
  const seconds = Math.ceil(milliseconds / SECOND);
  const [minutes, hours, days] = [60, 3600, 86400].map((unit) => Math.floor(seconds / unit));
  if (seconds <= 0) return ["endsNow"];
  if (days) return ["endsDays", days, hours % 24];
  return hours ? ["endsHours", hours, minutes % 60] : ["endsMinutes", minutes, String(seconds % 60).padStart(2, "0")];
}

/** How far the ranks have moved since a day ago; on a younger board since its period began. Null: nothing to show. */
const movesOf = (entries) => ["day", "period"].find((since) => entries.some((entry) => Number.isInteger(entry.change?.[since]))) ?? null;

/* ---- The look ---------------------------------------------------------------------------------------------------- */

const colours = (values) => Object.entries(values).map(([name, value]) => `--${name}: var(--scoreboard-${name}, ${value});`).join("");
const LIGHT = colours({
  paper: "#fdfdfc", ink: "#14171d", muted: "#5a6170", line: "#e7e8ea", bar: "#c6cad1", plate: "#f3f4f5",
  accent: "#9c4a05", "accent-bar": "#f5a30a", "accent-soft": "#fff3d9", good: "#15803d", bad: "#b42318",
});
const DARK = colours({
  paper: "#0d1014", ink: "#f1f3f6", muted: "#98a1af", line: "#20252d", bar: "#39414d", plate: "#181c22",
  accent: "#ffbd45", "accent-bar": "#ffb02e", "accent-soft": "#2b2212", good: "#4ade80", bad: "#ff8f84",
});
const CLEAR = colours({
  paper: "transparent", ink: "#fff", muted: "#e2e6ec", line: "#ffffff40", bar: "#ffffff8c", plate: "#000000a6",
  accent: "#ffcf6b", "accent-bar": "#ffb02e", "accent-soft": "#00000080", good: "#4ade80", bad: "#ff8f84",
});

/* One accent, and it means one thing: what leads or what just changed. Everything else is ink on paper. Sizes hang on
   the width of the element and on the font size around it. */
const STYLE = `
:host {
  display: block; min-inline-size: min(100%, 14rem); color-scheme: light dark;
  font-style: normal; font-weight: 400; letter-spacing: normal; text-transform: none; white-space: normal; text-align: start; line-height: 1.5;
}
:host([hidden]), [hidden] { display: none !important; }
* { box-sizing: border-box; margin: 0; }
[part=board] {
  ${LIGHT}
  --row: var(--scoreboard-row, 3.1em); --text: min(calc(var(--row) * .43), 5.3vw); --text: min(calc(var(--row) * .43), 5.3cqi);
  position: relative; padding: 0 var(--scoreboard-padding, 1.1rem); container-type: inline-size; overflow: hidden; overflow: clip;
  background: var(--paper); color: var(--ink);
}
:host([theme=light]) { color-scheme: light; }
:host([theme=dark]) { color-scheme: dark; }
@media (prefers-color-scheme: dark) { :host(:not([theme=light])) [part=board] { ${DARK} } }
:host([theme=dark]) [part=board] { ${DARK} }
:host([theme=transparent]) [part=board] { ${CLEAR} text-shadow: 0 0 .15em #000, 0 .05em .3em #000; }

[part=header] { position: relative; display: flex; align-items: baseline; justify-content: space-between; gap: 1.5rem; padding: 1.1rem 0 1.4rem; }
[part=title] { min-width: 0; font-size: 1.3rem; font-weight: 700; letter-spacing: -.015em; line-height: 1.2; }
[part=title], [part=season] span, [part=season] time { overflow: hidden; text-overflow: ellipsis; white-space: nowrap; }
/* It lies in the header's padding, so nothing moves when it comes or goes. */
[part=season] { position: absolute; inset: auto 0 .15rem; display: flex; gap: .75em; font-size: .8rem; line-height: 1.2rem; color: var(--muted); font-variant-numeric: tabular-nums; }
[part=season] span, [part=season] time { min-width: 0; }
[part=season] :empty { display: none; }
[part=season] > :not(#period) { flex: none; }
[part=season] #final, [part=season] #freeze { padding: 0 .5em; border-radius: .25em; font-weight: 600; background: var(--plate); color: var(--ink); }
[part=season] #final { background: var(--accent-soft); color: var(--accent); }

[part~=status] { flex: none; display: flex; align-items: baseline; gap: .4em; margin-inline-start: auto; font-size: .8rem; color: var(--muted); white-space: nowrap; font-variant-numeric: tabular-nums; }
#age:empty { display: none; }
[part~=status]::before { content: ""; width: .55em; height: .55em; border-radius: 50%; border: .12em solid var(--muted); }
[part~=status][part~=live]::before { border-color: var(--good); background: var(--good); }
[part~=status]:is([part~=reconnecting], [part~=behind], [part~=stale])::before { border-color: var(--accent-bar); background: var(--accent-bar); animation: breathe 1.6s ease-in-out infinite alternate; }
[part~=status][part~=refused]::before { border-color: var(--bad); background: var(--bad); border-radius: 0; }
@keyframes breathe { to { opacity: .25; } }

/* A real table, laid out as a list of grids: the explicit roles keep it a table for assistive technology. */
table, tbody { display: block; }
tbody { position: relative; }
thead tr, .unseen { position: absolute; width: 1px; height: 1px; overflow: hidden; clip-path: inset(50%); white-space: nowrap; }
[part~=row] {
  position: relative; display: grid; grid-template-columns: 1.75em auto minmax(0, 1fr) auto; align-items: center; column-gap: .5em;
  width: 100%; height: var(--row); font-size: var(--text); line-height: 1.3; background: var(--paper); isolation: isolate;
  box-shadow: inset 0 calc(-1 * max(1px, .03em)) var(--line);
}
/* The wash of a changed row, wider than the row. */
[part~=row]::before { content: ""; position: absolute; inset: 0 -.6em; border-radius: .25em; z-index: -1; background: var(--accent-soft); opacity: 0; }
/* The line below a row is as long as its share of the leader's score. */
[part=bar] {
  position: absolute; inset: auto 0 0; height: max(2px, .08em); background: var(--bar); forced-color-adjust: none;
  transform: scaleX(var(--share)); transform-origin: left; transition: transform .6s cubic-bezier(.2, .8, .2, 1);
}
[dir=rtl] [part=bar] { transform-origin: right; }
[part~=leads] [part=bar] { background: var(--accent-bar); }
tbody th, tbody td { display: block; padding: 0; font-weight: inherit; text-align: start; }
[part=rank] { color: var(--muted); font-variant-numeric: tabular-nums; font-size: .85em; }
:is([part~=second], [part~=third]) [part=rank] { color: inherit; font-weight: 700; }
[part~=leads] [part=rank] { color: var(--accent); font-weight: 700; }
[part=name] { grid-column: 3; min-width: 0; overflow: hidden; text-overflow: ellipsis; white-space: nowrap; unicode-bidi: isolate; contain: paint; font-weight: 500; }
/* A name, or a sentence, of the other direction begins where the others do. */
[part=name], section p { text-align: left; }
[part=board][dir=rtl] :is([part=name], section p) { text-align: right; }
[part~=leads] :is([part=name], [part=score]) { font-weight: 700; }
[part=change] { width: 4em; margin-inline-end: -.8em; color: var(--muted); font-size: .62em; font-weight: 600; font-variant-numeric: tabular-nums; white-space: nowrap; }
[part=change].up { color: var(--accent); }
.still [part=change], .still thead th:nth-child(2) { display: none; }
.still [part~=row] { grid-template-columns: 1.25em auto minmax(0, 1fr) auto; }
tbody [part=score] { grid-column: 4; display: flex; justify-content: end; align-items: baseline; font-variant-numeric: tabular-nums; font-weight: 500; white-space: nowrap; }
[part=score].long { font-size: .68em; }
.gain { margin-inline-end: .7em; font-size: .72em; font-weight: 600; color: var(--accent); opacity: 0; }
/* What may be old loses its colour, but only after a while: a quick reconnect should not flicker. */
tbody { transition: filter .5s, color .5s; }
.old tbody { filter: grayscale(1); color: var(--muted); transition-delay: 6s; }

[part=notice], [part=empty] { max-width: 38rem; padding: max(1.5rem, var(--scoreboard-space, 1.5rem)) 0 4rem; }
[part=notice].above { padding: 0 0 1rem; }
.lead { font-size: 1.75rem; font-weight: 700; letter-spacing: -.02em; line-height: 1.2; text-wrap: balance; }
.lead + p { margin-top: .6rem; color: var(--muted); overflow-wrap: anywhere; }
.above .lead { font-size: 1.05rem; letter-spacing: 0; }
@container (max-width: 40rem) {
  .gain { margin-inline-end: .5em; }
  .long .gain, #since:has(+ #revealed:not(:empty)) { display: none; }
  [part=season] { gap: .5em; max-width: 100%; }
}
@media (prefers-reduced-motion: reduce) { *, *::before { animation: none !important; transition: none !important; } }
`;

/* ---- The element -------------------------------------------------------------------------------------------------- */

// Where the board is unless `src` says it: where this file came from.
const HOME = new URL(".", import.meta.url);
const THEMES = ["auto", "light", "dark", "transparent"];
const RIGHT_TO_LEFT = /^(ar|arc|ckb|dv|fa|he|ku-arab|nqo|ps|sd|syr|ug|ur|yi)(-|$)/i;
const setText = (node, text) => { if (node.textContent !== text) node.textContent = text; };
const setAttribute = (node, name, value) => { if (node.getAttribute(name) !== value) node.setAttribute(name, value); };

function make(tag, attributes = {}, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
  node.append(...children);
  return node;
}

export class LiveScoreboard extends (globalThis.HTMLElement ?? class {}) {
  static observedAttributes = ["src", "board", "view", "rows", "title", "heading", "theme", "lang", "dir"];
  #feed = null;
  #token = "";
  #words = {};
  #listening = null;
  #isRestarting = false;
  #pauseTimer = 0;
  // { period, next, entries, isFinal }: what covers the board for a while after a period's end.
  #final = null;
  #finalTimer = 0;
  // userId → what makes up a row.
  #rows = new Map();
  #announcedAt = 0;
  #announcedTimer = 0;
  #announcedBad = false;
  #badSince = 0;
  #toldState = "";
  #number; #gain; #timeOfDay; #fullTime;
  #root; #table; #body; #nodes = {};
  #sizes; #calm;

  constructor() {
    super();
    this.#calm = matchMedia("(prefers-reduced-motion: reduce)");
    this.#sizes = new ResizeObserver(() => this.#fitNames());
    this.#build();
    this.#chooseLanguage();
  }

  /** The board that is shown, as a plain value; null before the first one. */
  get board() { return this.#feed?.shown ?? null; }
  get state() { return this.#feed?.state ?? (this.#listening ? "refused" : "paused"); }
  get channel() { return this.#feed?.channel ?? ""; }

  /** A token, or a function that gives one, perhaps later. The function is called again when the token is no longer good. */
  get token() { return this.#token; }
  set token(token) {
    this.#token = token ?? "";
    if (this.#feed) this.#feed.token = this.#token;
  }

  /** Words of another language, by the keys of WORDS. */
  get words() { return this.#words; }
  set words(words) {
    this.#words = words ?? {};
    this.#redraw();
  }

  connectedCallback() {
    // What was set before this file was loaded.
    for (const name of ["token", "words"]) {
      if (!Object.hasOwn(this, name)) continue;
      const value = this[name];
      delete this[name];
      this[name] = value;
    }
    if (this.#listening) return;
    this.#listening = new AbortController();
    const { signal } = this.#listening;
    const wake = () => { if (!document.hidden) { clearTimeout(this.#pauseTimer); this.#feed?.resume(); } };
    addEventListener("online", wake, { signal });
    addEventListener("pagehide", () => this.#feed?.pause(), { signal });
    addEventListener("pageshow", (event) => { if (event.persisted) wake(); }, { signal });
    document.addEventListener("visibilitychange", () => { if (document.hidden) this.#pauseLater(); else wake(); }, { signal });
    this.#sizes.observe(this.#body);
    this.#restart();
  }

  disconnectedCallback() {
    // An element that is only moved goes on.
    queueMicrotask(() => {
      if (this.isConnected || !this.#listening) return;
      this.#listening.abort();
      this.#listening = null;
      this.#sizes.disconnect();
      for (const timer of [this.#pauseTimer, this.#finalTimer, this.#announcedTimer]) clearTimeout(timer);
      this.#final = null;
      this.#finalTimer = 0;
      this.#feed?.pause();
    });
  }

  attributeChangedCallback(name) {
    if (name === "lang") this.#chooseLanguage();
    if (!this.#listening) return;
    if (name !== "src" && name !== "board" && name !== "view") { this.#redraw(); return; }
    // Several attributes that change together begin one feed.
    if (this.#isRestarting) return;
    this.#isRestarting = true;
    queueMicrotask(() => { this.#isRestarting = false; if (this.#listening) this.#restart(); });
  }

  get #boardId() { return this.getAttribute("board") || "main"; }
  get #isLiveView() { return this.getAttribute("view") === "live"; }

  get #rowsMax() {
    const rows = this.getAttribute("rows") ?? ROWS_MAX;
    return Number.isInteger(Number(rows)) && rows >= 1 && rows <= ROWS_MAX ? Number(rows) : this.#complain("rows", `a number from 1 to ${ROWS_MAX}`, ROWS_MAX);
  }

  #complain(name, what, instead) {
    console.warn(`<live-scoreboard>: ${name}="${this.getAttribute(name)}" is not ${what}.`);
    return instead;
  }

  #say(key, ...values) {
    return (this.#words[key] ?? WORDS[key]).replace(/\{(\d)\}/g, (_, place) => values[place]);
  }

  #restart() {
    const old = this.#feed;
    this.#feed = null;
    old?.pause();
    clearTimeout(this.#finalTimer);
    clearTimeout(this.#announcedTimer);
    this.#final = null;
    this.#finalTimer = 0;
    this.#rows.clear();
    this.#body.replaceChildren();
    const service = serviceOf(this.getAttribute("src") ?? HOME, document.baseURI);
    if (service) {
      const view = Object.fromEntries(["show", "final", "tell"].map((name) => [name, (...told) => { if (this.#feed === feed) this.#heard[name](...told); }]));
      const feed = this.#feed = new Feed(service, { board: this.#boardId, isLiveView: this.#isLiveView, token: this.#token }, view);
      feed.resume();
      // Opened in the background.
      if (document.hidden) this.#pauseLater();
    }
    this.#redraw();
  }

  #pauseLater() {
    clearTimeout(this.#pauseTimer);
    this.#pauseTimer = setTimeout(() => this.#feed?.pause(), jittered(HIDDEN_MAX));
  }

  #heard = {
    show: (before, board) => {
      if (!this.#final) this.#render(before, board);
      this.#announceChange(before, board);
      if (before && looksLike(before, board) && before.epoch === board.epoch) return;
      this.#dispatch("change", { board, before });
    },
    final: (ended, expected) => { if (!expected || this.#final === expected) this.#showFinal(ended); },
    tell: () => this.#tell(),
  };

  #dispatch(name, detail) {
    this.dispatchEvent(new CustomEvent(`scoreboard-${name}`, { detail, bubbles: true, composed: true }));
  }

  /** Covers the board with the last rows of a period that ended. Further ones do not make that longer. */
  #showFinal(ended) {
    const [first] = ended.entries;
    const sentences = [this.#say("saysEnded", ended.period), ...(first ? [this.#say("saysFirst", nameOf(first), this.#number.format(first.score))] : [])];
    this.#announceNow(() => sentences.join(" "));
    if (!first || document.hidden) return;
    const before = this.#final ?? this.board;
    this.#final = ended;
    this.#render(before, ended);
    this.#finalTimer ||= setTimeout(() => {
      const was = this.#final;
      this.#final = null;
      this.#finalTimer = 0;
      this.#render(was, this.board);
      this.#tell();
    }, FINAL_SHOWN);
    this.#tell();
  }

  /* Drawing */

  #build() {
    const keep = (id, node) => { node.id = id; return this.#nodes[id] = node; };
    const part = (name, tag, ...children) => keep(name, make(tag, { part: name }, ...children));
    const head = () => make("th", { role: "columnheader", scope: "col" });
    // They may be English on a board that runs from right to left.
    const sentences = () => [make("p", { class: "lead", dir: "auto" }), make("p", { dir: "auto" })];
    this.#nodes.heads = [head(), head(), head(), head()];
    this.#body = make("tbody", { role: "rowgroup" });
    this.#table = part("table", "table", make("thead", { role: "rowgroup" }, make("tr", { role: "row" }, ...this.#nodes.heads)), this.#body);
    this.#table.setAttribute("role", "table");
    this.#root = part("board", "div",
      part("header", "div",
        part("title", "div"),
        part("status", "p", keep("state", make("span")), keep("age", make("span"))),
        part("season", "p", ...["final", "period"].map((id) => keep(id, make("span"))), keep("ends", make("time")),
          keep("freeze", make("span", {}, keep("frozen", make("span")), keep("since", make("time")), keep("revealed", make("span")))))),
      keep("announcement", make("p", { class: "unseen", role: "status", "aria-live": "polite" })),
      part("notice", "section", ...sentences(), make("slot", { name: "refused" })),
      part("empty", "section", ...sentences(), make("slot", { name: "empty" })),
      this.#table);
    for (const name of ["notice", "empty", "table", "freeze"]) this.#nodes[name].hidden = true;
    // The element's own `title` is a heading, not a hint that follows the pointer.
    this.#root.title = "";
    this.#nodes.title.dir = "auto";
    this.#nodes.title.setAttribute("role", "heading");
    const sheet = new CSSStyleSheet();
    sheet.replaceSync(STYLE);
    const shadow = this.attachShadow({ mode: "open" });
    shadow.adoptedStyleSheets = [sheet];
    shadow.append(this.#root);
  }

  #chooseLanguage() {
    let language = this.getAttribute("lang") || undefined;
    try { Intl.getCanonicalLocales(language); } catch { language = this.#complain("lang", "a language tag"); }
    this.#number = new Intl.NumberFormat(language, { useGrouping: "always" });
    this.#gain = new Intl.NumberFormat(language, { useGrouping: "always", signDisplay: "always" });
    this.#timeOfDay = new Intl.DateTimeFormat(language, { hour: "2-digit", minute: "2-digit" });
    this.#fullTime = new Intl.DateTimeFormat(language, { dateStyle: "full", timeStyle: "long" });
  }

  /** Draws everything anew, because an attribute or a word has changed. */
  #redraw() {
    if (!THEMES.includes(this.getAttribute("theme") ?? "auto")) this.#complain("theme", `one of ${THEMES.join(", ")}`);
    ["rank", "change", "name", "score"].forEach((key, place) => setText(this.#nodes.heads[place], this.#say(key)));
    const seen = this.#final ?? this.board;
    if (seen) this.#render(null, seen); else this.#table.hidden = true;
    this.#tell();
  }

  #createRow() {
    const cell = (tag, part, ...children) => make(tag, { part, role: tag === "th" ? "rowheader" : "cell" }, ...children);
    const row = { rank: cell("td", "rank"), moved: cell("td", "change"), name: cell("th", "name"), score: make("span"), gain: make("span", { class: "gain" }), bar: make("span", { part: "bar" }), value: null, seen: 0, gained: 0, gainedUntil: 0, counting: 0 };
    row.name.scope = "row";
    row.name.dir = "auto";
    row.gain.ariaHidden = row.bar.ariaHidden = "true";
    row.scoreCell = cell("td", "score", row.bar, row.gain, row.score);
    row.element = make("tr", { part: "row", role: "row" }, row.rank, row.moved, row.name, row.scoreCell);
    return row;
  }

  #fillMoved(cell, moved, since) {
    const places = this.#number.format(Math.abs(moved));
    const one = Math.abs(moved) === 1 ? "One" : "";
    setText(cell, moved === null ? this.#say("fresh") : moved > 0 ? `▲${places}` : moved < 0 ? `▼${places}` : "");
    cell.title = moved === null ? this.#say(since === "day" ? "freshDay" : "freshPeriod") : moved ? this.#say((moved > 0 ? "up" : "down") + one, places, this.#say(since)) : "";
    cell.ariaLabel = cell.title || null;
    cell.classList.toggle("up", moved > 0);
  }

  #fillRow(row, entry, leader, since) {
    const name = nameOf(entry);
    const score = this.#number.format(entry.score);
    setText(row.rank, this.#number.format(entry.rank));
    setText(row.name, name);
    row.name.title = name;
    this.#fillMoved(row.moved, since ? entry.change?.[since] ?? null : 0, since);
    row.counting += 1;
    setText(row.score, score);
    row.scoreCell.classList.toggle("long", score.length > 13);
    ["leads", "second", "third"].forEach((part, above) => row.element.part.toggle(part, entry.rank === above + 1));
    // The least score may lead, too.
    const share = Math.min(entry.score, leader) / Math.max(entry.score, leader) || 0;
    row.element.style.setProperty("--share", share.toFixed(4));
  }

  /** Shows `board`; what changed since `before` moves, counts up and is marked. */
  #render(before, board) {
    const entries = board.entries.slice(0, this.#rowsMax);
    const lively = before !== null && !document.hidden;
    const moving = lively && !this.#calm.matches;
    // Scores of two periods have nothing to do with each other.
    const compared = lively && before.period === board.period;
    const from = moving ? this.#places() : null;
    const present = new Set(entries.map((entry) => entry.userId));
    for (const [userId, row] of this.#rows) if (!present.has(userId)) { this.#rows.delete(userId); this.#leave(row, from?.get(userId)); }
    const since = movesOf(entries);
    this.#table.classList.toggle("still", since === null);
    const changed = [];
    entries.forEach((entry, place) => {
      let row = this.#rows.get(entry.userId);
      if (!row) this.#rows.set(entry.userId, row = this.#createRow());
      row.flight?.cancel();
      const seen = row.counts ? row.seen : row.value;
      this.#fillRow(row, entry, entries[0].score, since);
      if (this.#body.children[place] !== row.element) this.#body.insertBefore(row.element, this.#body.children[place] ?? null);
      if (compared && row.value !== entry.score) changed.push([row, row.value === null ? 0 : entry.score - row.value, seen]);
      row.value = entry.score;
    });
    this.#table.hidden = entries.length === 0;
    this.#fitNames();
    if (moving) this.#move(from);
    for (const [row, gain, seen] of changed) {
      if (moving && seen !== null) this.#count(row, seen);
      this.#mark(row, gain);
    }
  }

  /** Lets a score run from what is seen to what it is. A later change takes over. */
  #count(row, from) {
    const turn = row.counting;
    const to = row.value;
    let began;
    row.counts = true;
    const step = (now) => {
      if (row.counting !== turn) return;
      began ??= now;
      const part = Math.min(1, (now - began) / COUNT_FOR);
      row.counts = part < 1;
      row.seen = part < 1 ? Math.round(from + (to - from) * (1 - (1 - part) ** 3)) : to;
      setText(row.score, this.#number.format(row.seen));
      if (part < 1) requestAnimationFrame(step);
    };
    row.seen = from;
    setText(row.score, this.#number.format(from));
    requestAnimationFrame(step);
  }

  /** A name that is too long for its place shrinks before it is cut. */
  #fitNames() {
    const names = [...this.#rows.values()].map((row) => row.name);
    for (const name of names) name.style.fontSize = "";
    const shares = names.map((name) => name.clientWidth / name.scrollWidth);
    names.forEach((name, place) => { if (shares[place] < 1) name.style.fontSize = `${Math.max(NAME_SHRINKS_TO, shares[place] - 0.01)}em`; });
  }

  /** Where each row is seen now, in the middle of a movement too. */
  #places() {
    const top = this.#body.getBoundingClientRect().top;
    return new Map([...this.#rows].map(([userId, row]) => [userId, row.element.getBoundingClientRect().top - top]));
  }

  /** First, last, invert, play: rows are already in their new places and come there from where they were seen. */
  #move(from) {
    const to = this.#places();
    for (const [userId, row] of this.#rows) {
      const start = from.get(userId);
      const by = start === undefined ? row.element.offsetHeight / 2 : start - to.get(userId);
      row.element.style.zIndex = Math.abs(by) < 0.5 ? "" : by > 0 ? "2" : "1";
      if (Math.abs(by) < 0.5) continue;
      const entering = start === undefined ? { opacity: 0 } : {};
      row.flight = row.element.animate([{ transform: `translateY(${by}px)`, ...entering }, { transform: "none" }],
        { duration: 550, easing: "cubic-bezier(.2, .8, .2, 1)" });
      row.flight.onfinish = () => { row.element.style.zIndex = ""; };
    }
  }

  #leave(row, top) {
    row.flight?.cancel();
    row.counting += 1;
    if (top === undefined) { row.element.remove(); return; }
    row.element.ariaHidden = "true";
    Object.assign(row.element.style, { position: "absolute", top: `${top}px`, zIndex: "0" });
    this.#body.append(row.element);
    row.element.animate([{ opacity: 1 }, { opacity: 0, transform: "translateY(.5em)" }], { duration: 300, easing: "ease-in", fill: "forwards" })
      .onfinish = () => row.element.remove();
  }

  /** A wash over the row, and +N beside the score. Gains that follow each other closely add up. */
  #mark(row, gain) {
    row.element.animate([{ opacity: 1 }, { opacity: 0 }], { duration: GAIN_SHOWN, easing: "ease-in", pseudoElement: "::before" });
    if (gain <= 0) return;
    const now = Date.now();
    row.gained = gain + (now < row.gainedUntil ? row.gained : 0);
    row.gainedUntil = now + GAIN_SHOWN;
    row.gain.textContent = this.#gain.format(row.gained);
    row.chip?.cancel();
    row.chip = row.gain.animate([{ opacity: 1 }, { opacity: 1, offset: 0.75 }, { opacity: 0 }], { duration: GAIN_SHOWN });
    row.chip.onfinish = () => { row.gain.textContent = ""; };
  }

  /* Telling */

  /** Writes down the state: for eyes in the header, for assistive technology only when it turns bad or good again. */
  #tell() {
    const { state, channel, board } = this;
    const refusal = this.#feed ? this.#feed.refusal : this.#listening && { reason: "address", text: "" };
    const seen = this.#final ?? board;
    const { status, notice, empty, title, state: word, age } = this.#nodes;
    this.#announceState(state, refusal);
    this.#root.dir = !this.hasAttribute("dir") && RIGHT_TO_LEFT.test(this.getAttribute("lang") ?? "") ? "rtl" : getComputedStyle(this).direction;
    this.#root.classList.toggle("old", state === "reconnecting" || state === "stale" || state === "refused");
    setAttribute(status, "part", `status ${state}`);
    setText(word, this.#say(state));
    setText(age, this.#ageOf(state));
    const why = [WORDS[`${state}Why`] && this.#say(`${state}Why`), board && this.#say("position", board.epoch, board.seq)].filter(Boolean).join(" ");
    // Isolated, so that it has a direction of its own.
    status.title = why && `\u2068${why}\u2069`;
    notice.hidden = !refusal;
    notice.classList.toggle("above", Boolean(seen?.entries.length));
    if (refusal) {
      const { reason, text } = refusal;
      setText(notice.children[0], this.#say(reason, reason === "address" ? this.getAttribute("src") : this.#boardId));
      setText(notice.children[1], WORDS[`${reason}Why`] ? this.#say(`${reason}Why`) : text);
    }
    empty.hidden = Boolean(refusal) || !seen || seen.entries.length > 0;
    setText(empty.children[0], this.#say("empty"));
    setText(empty.children[1], this.#say("emptyWhy"));
    setText(title, this.getAttribute("title") ?? (board?.title || (this.#boardId === "main" ? this.#say("heading") : this.#boardId)));
    title.hidden = !title.textContent;
    setAttribute(title, "aria-level", this.getAttribute("heading") || "2");
    this.#tellSeason(board ?? {});
    const told = [state, channel, refusal?.reason].join();
    if (told === this.#toldState) return;
    this.#toldState = told;
    this.#dispatch("state", { state, channel, reason: refusal?.reason ?? "" });
  }

  #ageOf(state) {
    if (!this.board) return "";
    const seconds = Math.max(0, Math.round((Date.now() - (state === "stale" ? this.#feed.staleFrom : this.#feed.freshAt)) / SECOND));
    if (state === "live" && seconds < 20) return "";
    const said = seconds < 2 ? this.#say("now")
      : seconds < 100 ? this.#say("seconds", seconds)
      : seconds < 6000 ? this.#say("minutes", Math.round(seconds / 60)) : this.#say("hours", Math.round(seconds / 3600));
    return `· ${said}`;
  }

  /** Period, the time to its end, and the freeze. The countdown needs no timer: this is called each second. */
  #tellSeason({ period = "", endsAt = 0, over = false, frozenAt = 0, revealed = 0 }) {
    const final = this.#final;
    const { freeze, frozen, since, revealed: shown } = this.#nodes;
    const caption = final ? this.#say(final.isFinal ? "final" : "ended", final.period) : "";
    this.#table.ariaLabel = this.#say("top", this.#rowsMax) + (caption && `, ${caption}`);
    setText(this.#nodes.final, caption);
    setText(this.#nodes.period, !final ? period : final.next ? this.#say("then", final.next) : "");
    const left = timeLeft(endsAt - Date.now() - (this.#feed?.clockAhead ?? 0));
    // A frozen board may show a period that has ended since.
    if (left[0] === "endsNow" && frozenAt) left[0] = "isEnded";
    this.#setTime("ends", endsAt, final ? "" : over ? this.#say("over") : endsAt ? this.#say(...left) : "");
    freeze.hidden = !frozenAt;
    setText(frozen, this.#say("frozen"));
    this.#setTime("since", frozenAt, frozenAt ? ` ${this.#say(this.#isLiveView ? "sincePublic" : "since", this.#timeOfDay.format(frozenAt))}` : "");
    setText(shown, revealed > 0 ? ` · ${this.#say("revealed", this.#number.format(revealed))}` : "");
    freeze.title = since.title;
  }

  #setTime(id, time, text) {
    const node = this.#nodes[id];
    setText(node, text);
    node.dateTime = time ? new Date(time).toISOString() : "";
    node.title = time ? this.#fullTime.format(time) : "";
  }

  /** Says one thing at a time, and not more often than every half minute; of several the last one counts. */
  #announce(sentence) {
    clearTimeout(this.#announcedTimer);
    this.#announcedTimer = setTimeout(() => {
      this.#announcedAt = Date.now();
      setText(this.#nodes.announcement, sentence());
    }, Math.max(0, this.#announcedAt + ANNOUNCE_EVERY - Date.now()));
  }

  /** The same at once, for what happens rarely. */
  #announceNow(sentence) {
    this.#announcedAt = 0;
    this.#announce(sentence);
  }

  #announceChange(before, after) {
    if (!before) return;
    const [leader] = after.entries;
    if (!this.#final && leader && before.entries[0]?.userId !== leader.userId) {
      this.#announce(() => {
        const first = this.board?.entries[0];
        return first ? this.#say("saysLeads", nameOf(first), this.#number.format(first.score)) : "";
      });
    }
    if (Boolean(before.frozenAt) !== Boolean(after.frozenAt)) {
      this.#announceNow(() => after.frozenAt ? this.#say("saysFrozen", this.#timeOfDay.format(after.frozenAt)) : this.#say("saysThawed"));
    }
  }

  /** A link that is back within seconds is not worth a word. */
  #announceState(state, refusal) {
    const isGood = state === "live" || state === "polling";
    if (isGood) this.#badSince = 0; else this.#badSince ||= Date.now();
    if (isGood && this.#announcedBad) { this.#announcedBad = false; this.#announce(() => this.#say("saysFresh")); }
    if (isGood || this.#announcedBad || document.hidden || Date.now() - this.#badSince < BAD_AFTER) return;
    this.#announcedBad = true;
    this.#announce(() => refusal ? this.#say(refusal.reason, this.#boardId) : WORDS[`${this.state}Why`] ? this.#say(`${this.state}Why`) : "");
  }
}

globalThis.customElements?.define("live-scoreboard", LiveScoreboard);
