/* The connection: the ladder down and up, waits, tokens, sleeps, and what is never shown. */

import assert from "node:assert/strict";
import { beforeEach, test } from "node:test";

import { World, board, polled, refused, settle, snapshot, stream, update } from "./world.js";

const ADA = ["ada", 10];
let world;
beforeEach(() => { world = new World(); });

/** Polls are answered with `told`, streams refused. */
const onlyPolls = (told = board(1, 1, ADA)) => (request) => String(request.url).includes("/sse/") ? refused(403, "UNAUTHORIZED") : polled(told);

test("a socket speaks: live, with the boards that it tells", async () => {
  const feed = world.feed({ board: "a/b" });
  feed.resume();
  await settle();
  const [socket] = world.sockets;
  assert.equal(String(socket.url), "wss://board.example/sub/ws/scoreboard?boardId=a%2Fb");
  assert.deepEqual(socket.protocols, ["scoreboard.delta.v1", "scoreboard.v1"]);
  assert.equal(feed.state, "connecting");
  socket.say(snapshot(1, 1, ADA));
  socket.say({ type: "scoreboard_delta", epoch: 1, baseSeq: 1, seq: 2, changed: [{ userId: "bob", score: 20, rank: 1 }, { userId: "ada", score: 10, rank: 2 }] });
  assert.deepEqual([feed.state, feed.channel, feed.shown.seq, feed.shown.entries.length], ["live", "websocket", 2, 2]);
  await world.pass(9_000);
  assert.equal(world.requests.length, 0);
});

test("WebSockets that are refused give way to events, and are tried again later", async () => {
  const events = stream();
  world.answer = (request) => String(request.url).includes("/sse/") ? events.response : polled(board(1, 1, ADA));
  const feed = world.feed();
  feed.resume();
  await settle();
  for (let tries = 1; tries <= 3; tries += 1) {
    assert.equal(world.sockets.length, tries);
    world.sockets.at(-1).end();
    await world.pass(4_100);
  }
  assert.equal(world.sockets.length, 3);
  assert.equal(feed.state, "polling");
  events.send("retry: 3000\n\n");
  events.say(snapshot(1, 2, ADA));
  await settle();
  assert.deepEqual([feed.state, feed.channel, feed.shown.seq], ["live", "events", 2]);

  await world.pass(120_000);
  assert.equal(world.sockets.length, 4);
  world.sockets[3].end();
  await settle();
  assert.deepEqual([feed.state, feed.channel], ["live", "events"]);
  await world.pass(120_000);
  world.sockets[4].say(snapshot(1, 3, ADA));
  assert.deepEqual([feed.channel, feed.shown.seq], ["websocket", 3]);
  assert.ok(world.asked("/sse/").every(({ signal }) => signal.aborted));
});

test("events that are refused, too, leave polling; both are tried once a minute", async () => {
  world.answer = onlyPolls();
  const feed = world.feed();
  feed.resume();
  const blocked = async (milliseconds) => {
    for (const end = world.now + milliseconds; world.now < end;) {
      await world.pass(250);
      for (const socket of world.sockets.filter(({ isOpen }) => isOpen)) socket.end();
    }
  };
  await blocked(40_000);
  assert.deepEqual([feed.state, world.sockets.length, world.asked("/sse/").length], ["polling", 3, 3]);
  await blocked(60_000);
  assert.deepEqual([feed.state, world.sockets.length, world.asked("/sse/").length], ["polling", 4, 4]);
});

test("a proxy that swallows the upgrade costs ten seconds, not thirty", async () => {
  const events = stream();
  world.answer = (request) => String(request.url).includes("/sse/") ? events.response : polled(board(1, 1, ADA));
  const feed = world.feed();
  feed.resume();
  await world.pass(10_000);
  events.say(snapshot(1, 1, ADA));
  await settle();
  assert.deepEqual([feed.channel, world.sockets.length, world.sockets[0].isOpen], ["events", 1, false]);
});

test("a server that is down says nothing of the WebSocket", async () => {
  const feed = world.feed();
  feed.resume();
  for (let second = 0; second < 60; second += 1) {
    await world.pass(1_000);
    for (const socket of world.sockets.filter(({ isOpen }) => isOpen)) socket.end();
  }
  assert.equal(feed.state, "reconnecting");
  assert.equal(world.asked("/sse/").length, 0);
  world.answer = onlyPolls();
  for (let tries = 0; tries < 200 && !world.sockets.at(-1).isOpen; tries += 1) await world.pass(100);
  world.sockets.at(-1).say(snapshot(1, 1, ADA));
  assert.deepEqual([feed.channel, world.asked("/sse/").length], ["websocket", 0]);
});

test("503 with Retry-After: no poll comes earlier, whatever the links do", async () => {
  world.answer = (request) => refused(503, "OVERLOADED", String(request.url).includes("/sse/") ? {} : { "Retry-After": "20" });
  const feed = world.feed();
  feed.resume();
  await settle();
  world.sockets[0].end();
  for (let tries = 0; tries < 600; tries += 1) {
    await world.pass(100);
    for (const socket of world.sockets.filter(({ isOpen }) => isOpen)) socket.end();
  }
  const polls = world.asked("/scoreboard/top").map(({ at }) => at);
  assert.ok(polls.length >= 2 && world.sockets.length > 3);
  assert.deepEqual(polls.filter((at, place) => at - polls[place - 1] < 20_000), []);
});

test("a stream that gets 503 waits as long as the server wants, and begins with the WebSocket", async () => {
  world.answer = (request) => String(request.url).includes("/sse/") ? refused(503, "OVERLOADED", { "Retry-After": "29" }) : polled(board(1, 1, ADA));
  const feed = world.feed();
  feed.resume();
  await world.pass(10_000);
  const [{ at }] = world.asked("/sse/");
  await world.pass(31_000);
  assert.deepEqual(world.sockets.map((socket) => socket.at - at), [-10_000, 29_500]);
  world.sockets[1].say(snapshot(1, 2, ADA));
  assert.deepEqual([feed.channel, world.asked("/sse/").length], ["websocket", 1]);
});

test("a stream that the server ends is opened again when it said", async () => {
  const streams = [stream(), stream()];
  world.answer = (request) => String(request.url).includes("/sse/") ? streams[world.asked("/sse/").length - 1].response : polled(board(1, 1, ADA));
  const feed = world.feed();
  feed.resume();
  await world.pass(10_000);
  streams[0].send("retry: 7000\n\n");
  streams[0].say(snapshot(1, 1, ADA));
  await settle();
  streams[0].end();
  await settle();
  const ended = world.now;
  await world.pass(6_999);
  assert.equal(world.asked("/sse/").length, 1);
  await world.pass(1);
  assert.equal(world.asked("/sse/")[1].at - ended, 7_000);
});

test("an older position is never shown, a newer epoch is", async () => {
  const feed = world.feed();
  feed.resume();
  await settle();
  const [socket] = world.sockets;
  for (const [epoch, seq] of [[1, 5], [1, 3], [2, 1], [1, 9], [2, 2]]) socket.say(update(epoch, seq, ["ada", epoch * 100 + seq]));
  const shown = world.told.filter(([what]) => what === "show").map(([, , { epoch, seq }]) => `${epoch}/${seq}`);
  assert.deepEqual(shown, ["1/5", "2/1", "2/2"]);
});

test("an older board that stays is told as behind", async () => {
  const feed = world.feed();
  feed.resume();
  await settle();
  world.sockets[0].say(update(1, 5, ADA));
  world.sockets[0].say(update(1, 4, ["bob", 3]));
  await world.pass(6_000);
  assert.equal(feed.state, "behind");
});

test("a callback gives the token, and a new one when it is no longer good", async () => {
  const given = [];
  const feed = world.feed({ token: async () => { given.push(`t${given.length}`); return given.at(-1); } });
  world.answer = onlyPolls();
  feed.resume();
  await settle();
  assert.equal(world.sockets[0].protocols.at(-1), "scoreboard.token.t0");
  world.sockets[0].say(snapshot(1, 1, ADA));
  world.sockets[0].end(1008, "token expired");
  await world.pass(1_000);
  assert.equal(world.sockets[1].protocols.at(-1), "scoreboard.token.t1");
  assert.ok(!world.states.includes("refused"));

  world.sockets[1].end();
  world.answer = ({ headers }) => headers.Authorization === "Bearer t2" ? polled(board(1, 2, ADA)) : refused(401, "UNAUTHENTICATED");
  await world.pass(6_000);
  assert.deepEqual([given, feed.shown.seq], [["t0", "t1", "t2"], 2]);
  assert.ok(!world.states.includes("refused"));
  assert.ok(world.requests.every(({ url }) => !/t\d/.test(new URL(url).search)));
});

test("a callback that fails, or never ends, is tried again", async () => {
  let tries = 0;
  const feed = world.feed({ token: () => { tries += 1; if (tries === 1) throw new Error("no network"); return tries === 2 ? new Promise(() => {}) : "good"; } });
  world.answer = onlyPolls();
  feed.resume();
  await world.pass(60_000);
  assert.equal(world.sockets[0].protocols.at(-1), "scoreboard.token.good");
});

test("a text that expires is refused, and a new one goes on at once", async () => {
  const feed = world.feed({ token: "old" });
  world.answer = () => refused(401, "UNAUTHENTICATED");
  feed.resume();
  await settle();
  world.sockets[0].say(snapshot(1, 1, ADA));
  world.sockets[0].end(1008, "token expired");
  assert.deepEqual([feed.state, feed.refusal.reason], ["refused", "expired"]);
  await world.pass(35_000);
  assert.equal(feed.refusal.reason, "token");
  world.answer = onlyPolls();
  feed.token = "new";
  await settle();
  assert.equal(world.sockets[1].protocols.at(-1), "scoreboard.token.new");
  world.sockets[1].say(snapshot(1, 1, ADA));
  assert.equal(feed.state, "live");
});

test("what is no token is never sent", async () => {
  const feed = world.feed({ token: "not a token" });
  feed.resume();
  await world.pass(60_000);
  assert.deepEqual([feed.refusal.reason, world.sockets.length, world.requests.length], ["malformed", 0, 0]);
});

test("a paused feed sends nothing, and asks at once when it goes on", async () => {
  const feed = world.feed();
  world.answer = onlyPolls(board(1, 8, ADA));
  feed.resume();
  await settle();
  world.sockets[0].say(snapshot(1, 1, ADA));
  feed.pause();
  assert.deepEqual([feed.state, world.sockets[0].isOpen], ["paused", false]);
  await world.pass(600_000);
  assert.deepEqual([world.sockets.length, world.requests.length], [1, 0]);
  feed.resume();
  await settle();
  assert.deepEqual([feed.shown.seq, world.sockets.length], [8, 2]);
});

test("after a sleep it asks at once, and leaves a link that missed something", async () => {
  const feed = world.feed();
  world.answer = onlyPolls(board(1, 8, ["bob", 99]));
  feed.resume();
  await settle();
  world.sockets[0].say(snapshot(1, 1, ADA));
  await world.pass(5_000);
  world.sleep(3_600_000);
  await world.pass(1_000);
  assert.equal(feed.shown.entries[0].userId, "bob");
  await world.pass(4_000);
  assert.deepEqual([world.sockets[0].isOpen, world.sockets.length], [false, 2]);
});

test("after close 1013 it comes back within half a minute, after 1012 sooner", async () => {
  for (const [code, wait] of [[1013, 15_000], [1012, 6_000]]) {
    world = new World();
    world.answer = onlyPolls();
    const feed = world.feed();
    feed.resume();
    await settle();
    world.sockets[0].say(snapshot(1, 1, ADA));
    world.sockets[0].end(code);
    await world.pass(60_000);
    assert.equal(world.sockets[1].at - world.sockets[0].at, wait, `code ${code}`);
  }
});

test("a refusal says why, by what the server answered", async () => {
  for (const [status, token, reason] of [[404, "", "board"], [400, "", "board"], [401, "", "private"], [401, "t", "token"], [403, "t", "scope"]]) {
    world = new World();
    world.answer = () => refused(status, "ANY");
    const feed = world.feed({ token });
    feed.resume();
    await settle();
    world.sockets[0].end();
    await world.pass(300);
    assert.deepEqual([feed.state, feed.refusal.reason, feed.refusal.text], ["refused", reason, "As it says."]);
  }
});

test("a page of another origin that may not read learns why, once", async (context) => {
  const warned = [];
  context.mock.method(console, "warn", (line) => warned.push(line));
  globalThis.location = { origin: "https://site.example" };
  context.after(() => { delete globalThis.location; });
  const feed = world.feed();
  feed.resume();
  await world.pass(20_000);
  assert.ok(world.asked("healthz").length > 0);
  assert.deepEqual(warned, []);

  world.answer = ({ mode }) => { if (mode === "no-cors") return Response.error(); throw new TypeError("Failed to fetch"); };
  await world.pass(120_000);
  assert.equal(warned.length, 1);
  for (const part of ["https://board.example", "https://site.example", "[live] allowed_origins"]) assert.ok(warned[0].includes(part), warned[0]);

  globalThis.location.origin = "https://board.example";
  world.requests.length = 0;
  const own = world.feed();
  own.resume();
  await world.pass(60_000);
  assert.deepEqual([world.asked("healthz").length, warned.length], [0, 1]);
});
