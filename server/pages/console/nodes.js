/* ---- Nodes: health, lag, figures ------------------------------------------------------------------------------------- */

/* This node's figures come from its own /readyz and /metrics, every few seconds while they are looked at. A chart has
   what was seen since the part was first opened, at most SAMPLES_MAX values. */

const LOOK_EVERY = 5000;
const SAMPLES_MAX = 120;
const SAMPLES_MIN = 24;     // a chart is at least as wide as these
const RATE_OVER = 12;       // samples: quantiles are of the last minute

const samples = [];

/** Reads what the charts need of Prometheus' text format: sums by name, and histograms by their bounds. */
function readMetrics(text) {
  const sums = {};
  const buckets = {};
  for (const line of text.split("\n")) {
    const parts = /^(\w+)(?:\{(.*)\})? (\S+)$/.exec(line);
    if (!parts) continue;
    const [, name, labels = "", written] = parts;
    const value = written === "+Inf" ? Infinity : Number(written);
    const bound = name.endsWith("_bucket") ? /(?:^|,)le="([^"]+)"/.exec(labels) : null;
    if (bound) {
      const of = buckets[name.slice(0, -7)] ??= {};
      of[bound[1]] = (of[bound[1]] ?? 0) + value;
    } else {
      sums[name] = (sums[name] ?? 0) + value;
    }
    if (name === "scoreboard_build_info") sums.version = /(?:^|,)version="([^"]*)"/.exec(labels)?.[1] ?? "";
  }
  return { at: performance.now(), sums, buckets };
}

const gauge = (name) => (at) => samples[at].sums[name] ?? NaN;

/** By how much a counter grew in a second; NaN for the first sample, and where the process began anew. */
const rate = (name) => (at) => {
  if (at === 0) return NaN;
  const [before, now] = [samples[at - 1], samples[at]];
  const grown = (now.sums[name] ?? NaN) - (before.sums[name] ?? NaN);
  return grown < 0 ? NaN : grown / ((now.at - before.at) / 1000);
};

/** The upper bound of the bucket that 99 of 100 observations of the last minute lie in, in seconds. */
const slowest = (name) => (at) => {
  const [before, now] = [samples[Math.max(0, at - RATE_OVER)].buckets[name], samples[at].buckets[name]];
  if (at === 0 || !before || !now) return NaN;
  const bounds = Object.keys(now).map((bound) => [bound === "+Inf" ? Infinity : Number(bound), now[bound] - (before[bound] ?? 0)]).sort((one, other) => one[0] - other[0]);
  const all = bounds.at(-1)?.[1] ?? 0;
  return all > 0 ? bounds.find(([, seen]) => seen >= all * 0.99)[0] : NaN;
};

const plain = (value) => wholeNumber.format(Math.round(value));
const perSecond = (value) => `${value < 10 ? value.toFixed(1) : plain(value)}/s`;
const milliseconds = (value) => (value === Infinity ? "> 1 s" : `≤ ${(value * 1000).toLocaleString(undefined, { maximumFractionDigits: 1 })} ms`);
const seconds = (value) => (value < 120 ? `${value.toFixed(1)} s` : `${plain(value / 60)} min`);

function bytes(value) {
  const units = ["B", "KiB", "MiB", "GiB", "TiB"];
  const at = Math.min(units.length - 1, Math.max(0, Math.floor(Math.log2(Math.max(1, value)) / 10)));
  return `${(value / 1024 ** at).toLocaleString(undefined, { maximumFractionDigits: at ? 1 : 0 })} ${units[at]}`;
}

/** What is charted: a name, how a sample gives the value, how the value is written. A figure without a value is left out. */
const FIGURES = [
  ["Events", rate("scoreboard_seq"), perSecond],
  ["Requests", rate("scoreboard_request_seconds_count"), perSecond],
  ["Errors", rate("scoreboard_failures_total"), perSecond],
  ["Viewers", gauge("scoreboard_viewers"), plain],
  ["Records behind the leader", gauge("scoreboard_replica_lag_records"), plain],
  ["Seconds behind the leader", gauge("scoreboard_replica_lag_seconds"), seconds],
  ["99 % of requests", slowest("scoreboard_request_seconds"), milliseconds],
  ["99 % of disk writes", slowest("scoreboard_fsync_seconds"), milliseconds],
  ["Waiting commands", gauge("scoreboard_inbox_commands"), plain],
  ["Memory", gauge("process_resident_memory_bytes"), bytes],
  ["Log", gauge("scoreboard_log_bytes"), bytes],
  ["Disk free", gauge("scoreboard_disk_free_bytes"), bytes],
  ["Age of the snapshot", gauge("scoreboard_snapshot_age_seconds"), seconds],
  ["Open reviews", gauge("scoreboard_open_reviews"), plain],
  ["Erasures under way", gauge("scoreboard_erasures_pending"), plain],
];

function drawing(tag, attributes) {
  const made = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  return made;
}

/** A chart: the value of now in words, and a line from 0 to the largest value that was seen. */
function chart([name, valueAt, written]) {
  const values = samples.map((_, at) => valueAt(at));
  const now = values.at(-1);
  if (now === undefined || Number.isNaN(now)) return "";
  const known = values.map((value, at) => [at, value]).filter(([, value]) => Number.isFinite(value));
  const most = Math.max(...known.map(([, value]) => value), 0);
  const picture = drawing("svg", { viewBox: "0 0 100 30", preserveAspectRatio: "none", role: "img", "aria-label": `${name}: ${written(now)} now, at most ${written(most)}` });
  const width = Math.max(SAMPLES_MIN, samples.length);
  const across = (at) => (100 * (at + width - samples.length)) / (width - 1);
  picture.append(
    drawing("line", { x1: 0, x2: 100, y1: 30, y2: 30 }),
    drawing("polyline", { points: known.map(([at, value]) => `${across(at).toFixed(2)},${(30 - (most ? (28 * value) / most : 0)).toFixed(2)}`).join(" ") }));
  return make("div", { class: "chart" }, make("h3", {}, name), make("p", {}, written(now)), picture);
}

/** How this node is: ready or why not, and what it is. */
async function nodeState() {
  const place = {};
  try {
    const ready = await ask("GET", "readyz");
    Object.assign(place, { isReady: true, warnings: ready.warnings ?? [] });
  } catch (error) {
    if (!(error instanceof Refusal) || !error.code) throw error;
    Object.assign(place, { isReady: false, warnings: [error.message] });
  }
  const response = await send("GET", "metrics", {});
  if (!response.ok) throw new Refusal(`The figures could not be read: ${response.status}.`, { status: response.status });
  samples.push(readMetrics(await response.text()));
  if (samples.length > SAMPLES_MAX) samples.shift();
  return place;
}

/** The replicas that follow this node, and their lag. What a replica's own followers are, its console says. */
async function followersView() {
  const { followers } = await ask("GET", "replication/followers");
  const rows = followers.map((one) => [
    idText(one.address), one.shard ? `shard ${one.shard}` : "all boards", one.lagRecords ?? "another epoch", one.seq,
    one.durable ? "on its disk" : "in memory", timeText(one.connectedAt),
  ]);
  return make("div", {}, make("h3", {}, "Replicas that follow it"),
    rows.length ? table("", ["Address", "Holds", "Events behind", "Has event", "Keeps the log", "Linked since"], rows) : make("p", { class: "note" }, "None has a link now."));
}

/** The switch of the live channel, which every node obeys. */
async function liveFlagView(place) {
  const flag = await ask("GET", "flags/live");
  const turn = (event) => attempt(event.currentTarget, place, async () => {
    const verb = flag.enabled ? "Switch it off" : "Switch it on";
    const body = flag.enabled
      ? "All viewers of all nodes are closed, and new ones refused. Pages ask every few seconds instead. Counting goes on."
      : "Viewers come back to all nodes, spread over 30 seconds.";
    if (!await confirmed({ title: flag.enabled ? "Switch the live channel off?" : "Switch the live channel on?", body, verb })) return;
    await ask("PUT", "flags/live", { body: { enabled: !flag.enabled } });
    place.replaceChildren(await liveFlagView(place));
    say(flag.enabled ? "The live channel is off." : "The live channel is on.");
  });
  return make("div", {}, make("h3", {}, "Live channel"),
    make("p", {}, flag.enabled ? badge("on", "good") : badge("off", "bad"), flag.since ? [" since ", timeText(flag.since)] : ""),
    make("div", { class: "actions" }, button(flag.enabled ? "Switch the live channel off…" : "Switch the live channel on…", turn, flag.enabled ? "danger" : "main")));
}

function nodeView({ isReady, warnings }) {
  const { sums } = samples.at(-1);
  const isReplica = !Number.isNaN(sums.scoreboard_replica_leader_age_seconds ?? NaN);
  const written = (value, how) => (value === undefined || Number.isNaN(value) ? "" : how(value));
  return [
    facts([
      ["Node", isReplica ? "replica" : "leader"], ["Health", isReady ? badge("ready", "good") : badge("not ready", "bad")],
      ["Epoch", plain(sums.scoreboard_epoch)], ["Event", plain(sums.scoreboard_seq)],
      ["Leader heard", isReplica ? `${seconds(sums.scoreboard_replica_leader_age_seconds)} ago` : ""],
      ["Link to the leader", isReplica ? (sums.scoreboard_replica_connected ? "open" : "cut") : ""],
      ["Records behind", isReplica ? written(sums.scoreboard_replica_lag_records, plain) || "unknown" : ""],
      ["Replicas linked", written(sums.scoreboard_followers, plain)], ["Version", sums.version],
    ]),
    ...warnings.map((warning) => make("p", { class: "warning" }, warning)),
    make("div", { class: "charts" }, FIGURES.map(chart)),
  ];
}

const nodesPart = {
  id: "nodes",
  title: "Nodes",
  isAllowed: () => true,      // health and metrics are open to all

  async show(section) {
    const fault = make("div", {});
    const view = make("div", {});
    const followers = make("div", {});
    const live = make("div", {});
    section.replaceChildren(make("h2", { tabindex: "-1" }, "This node"), fault, view, followers, live);
    const look = async () => {
      if (!section.contains(view) || document.hidden) return;
      try {
        view.replaceChildren(...nodeView(await nodeState()));
        if (may("log:read") && !isRefused) followers.replaceChildren(await followersView());
        fault.replaceChildren();
      } catch (error) {
        if (!(error instanceof Refusal)) throw error;
        if (!fault.hasChildNodes()) showRefusal(fault, error);
      }
    };
    await look();
    if (may("admin")) live.replaceChildren(await liveFlagView(live));
    const timer = setInterval(() => { if (section.contains(view)) look(); else clearInterval(timer); }, LOOK_EVERY);
  },
};
