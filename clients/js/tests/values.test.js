/* What needs neither clock nor network: positions, deltas, events, waits, addresses, words. */

import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { test } from "node:test";

import * as element from "../../../server/pages/scoreboard.js";

const { WORDS, afterDelta, backoff, boardOf, eventReader, isOlder, looksLike, retryAfterOf, serviceOf, timeLeft } = element;
const entry = (userId, score, rank) => ({ userId, score, rank });
const BEFORE = boardOf({ epoch: 1, seq: 4, entries: [entry("a", 30, 1), entry("b", 20, 2)], history: "h" });

test("the module has every name that its types have, and no other", () => {
  const types = readFileSync(new URL("../scoreboard.d.ts", import.meta.url), "utf8");
  const declared = [...types.matchAll(/^export (?:class|const|function) (\w+)/gm)].map(([, name]) => name);
  assert.deepEqual(declared.sort(), Object.keys(element).sort());
});

test("a delta takes out, adds and sorts by rank", () => {
  const after = afterDelta(BEFORE, { epoch: 1, baseSeq: 4, seq: 5, changed: [entry("c", 40, 1), entry("a", 30, 2)], left: ["b"] });
  assert.deepEqual(after.entries.map(({ userId }) => userId), ["c", "a"]);
  assert.deepEqual([after.seq, after.history], [5, "h"]);
});

test("equal ranks stay in the order in which the delta has them", () => {
  const after = afterDelta(BEFORE, { epoch: 1, baseSeq: 4, seq: 5, changed: [entry("b", 20, 2), entry("c", 20, 2)] });
  assert.deepEqual(after.entries.map(({ userId }) => userId), ["a", "b", "c"]);
});

test("a delta of another board, position or epoch is none", () => {
  for (const wrong of [{ baseSeq: 3 }, { epoch: 2 }, { changed: [entry("c", 1, 7)] }]) {
    assert.equal(afterDelta(BEFORE, { epoch: 1, baseSeq: 4, seq: 5, ...wrong }), null);
  }
  assert.equal(afterDelta(null, { epoch: 1, baseSeq: 4, seq: 5 }), null);
});

test("what a delta leaves out has its default again", () => {
  const frozen = boardOf({ epoch: 1, seq: 4, entries: [], frozenAt: "2026-01-01T00:00:00.000Z", title: "Cup" });
  assert.equal(frozen.frozenAt, Date.UTC(2026, 0, 1));
  const after = afterDelta(frozen, { epoch: 1, baseSeq: 4, seq: 5 });
  assert.deepEqual([after.frozenAt, after.title], [0, ""]);
});

test("positions: the epoch first, then seq; of two histories the one that is not stale", () => {
  const at = (epoch, seq, more = {}) => boardOf({ epoch, seq, entries: [], ...more });
  assert.ok(isOlder(at(1, 4), at(1, 5)));
  assert.ok(!isOlder(at(1, 5), at(1, 5)));
  assert.ok(!isOlder(at(2, 1), at(1, 900)));
  assert.ok(isOlder(at(1, 900), at(2, 1)));
  assert.ok(!isOlder(at(1, 1, { history: "x" }), at(1, 9, { history: "y" })));
  assert.ok(isOlder(at(1, 9, { history: "x", stale: true, ageMs: 5 }), at(1, 1, { history: "y" })));
});

test("two boards look the same if people see no difference", () => {
  assert.ok(looksLike(BEFORE, { ...BEFORE, seq: 9 }));
  assert.ok(!looksLike(BEFORE, { ...BEFORE, period: "2026-W01" }));
  assert.ok(!looksLike(BEFORE, { ...BEFORE, entries: [entry("a", 31, 1), entry("b", 20, 2)] }));
});

test("events are read whatever the pieces and the ends of lines", () => {
  const text = ": hello\nretry: 3271\nretry: soon\n\nid: 1-2\ndata: {\"a\":\ndata:1}\n\n:\n\ndata: b\r\n\r\ndata: c\r\r\n";
  for (const size of [1, 2, 3, 1000]) {
    const seen = [];
    const read = eventReader((data) => seen.push(data), (wait) => seen.push(wait));
    for (let at = 0; at < text.length; at += size) read(text.slice(at, at + size));
    assert.deepEqual(seen, [3271, '{"a":\n1}', "b", "c"], `pieces of ${size}`);
  }
});

test("waits double up to a bound, and begin at nothing", () => {
  assert.deepEqual([0, 1, 2, 3, 30].map((failures) => backoff(failures, 500, 15_000, 1)), [500, 1000, 2000, 4000, 15_000]);
  assert.equal(backoff(9, 500, 15_000, 0), 0);
});

test("Retry-After is seconds or a date, two minutes at most", () => {
  const now = Date.UTC(2026, 0, 1);
  for (const [header, wait] of [[null, 0], ["", 0], ["3", 3000], ["-3", 0], ["9999", 120_000], ["soon", 0], ["Thu, 01 Jan 2026 00:00:05 GMT", 5000], ["Thu, 01 Jan 2025 00:00:05 GMT", 0]]) {
    assert.equal(retryAfterOf(header, now), wait, String(header));
  }
});

test("an address ends in a slash, and is one of http", () => {
  const base = "https://site.example/page/one?x=1#y";
  for (const [src, url] of [
    ["https://board.example", "https://board.example/"], ["https://board.example/sub?a=b#c", "https://board.example/sub/"],
    ["/board", "https://site.example/board/"], ["//board.example:81/", "https://board.example:81/"],
  ]) assert.equal(serviceOf(src, base).href, url);
  for (const src of ["ftp://board.example", "javascript:alert(1)", "https://"]) assert.equal(serviceOf(src, base), null);
});

test("the time that is left has a word, and every word can be said", () => {
  for (const [seconds, ...said] of [
    [2 * 86400 + 3 * 3600, "endsDays", 2, 3], [3 * 3600 + 1200, "endsHours", 3, 20], [65, "endsMinutes", 1, "05"], [0, "endsNow"],
  ]) {
    assert.deepEqual(timeLeft(seconds * 1000), said);
    assert.ok(WORDS[said[0]]);
  }
});
