/** A row of a board. */
export interface Entry {
  userId: string;
  displayName?: string | null;
  score: number;
  rank: number;
  /** Places up (positive) or down since a day ago and since the period began; null for who is new. */
  change?: { day?: number | null; period?: number | null };
}

/** A board at one position. Times are milliseconds since 1970, 0 for none. */
export interface Board {
  epoch: number;
  seq: number;
  entries: Entry[];
  title: string;
  period: string;
  endsAt: number;
  over: boolean;
  frozenAt: number;
  revealed: number;
  /** Milliseconds since a stale replica heard of its leader; null on a fresh server. */
  age: number | null;
  history: string;
}

export type State = "connecting" | "live" | "polling" | "reconnecting" | "behind" | "stale" | "refused" | "paused";
export type Channel = "" | "websocket" | "events" | "polling";
export type Reason = "" | "board" | "private" | "token" | "expired" | "scope" | "malformed" | "address";
export type Token = string | (() => string | Promise<string>);

export interface ScoreboardEvents {
  "scoreboard-change": CustomEvent<{ board: Board; before: Board | null }>;
  "scoreboard-state": CustomEvent<{ state: State; channel: Channel; reason: Reason }>;
}

/** The element <live-scoreboard>; server/PAGES.md describes its attributes, parts and variables. */
export class LiveScoreboard extends HTMLElement {
  readonly board: Board | null;
  readonly state: State;
  readonly channel: Channel;
  token: Token;
  words: Partial<typeof WORDS>;
  addEventListener<K extends keyof ScoreboardEvents>(type: K, listener: (this: this, event: ScoreboardEvents[K]) => unknown, options?: boolean | AddEventListenerOptions): void;
  addEventListener(type: string, listener: EventListenerOrEventListenerObject, options?: boolean | AddEventListenerOptions): void;
}

/** What a feed tells. */
export interface View {
  show(before: Board | null, board: Board): void;
  /** A period ended. `expected` is the earlier telling that this one replaces. */
  final(ended: Ended, expected?: Ended): void;
  /** Anything may be new. */
  tell(): void;
}

export interface Ended {
  period: string;
  next: string | null;
  entries: Entry[];
  isFinal: boolean;
}

/** The connection to one board, without a document. */
export class Feed {
  constructor(service: URL, options: { board?: string; isLiveView?: boolean; token?: Token }, view: View);
  readonly state: State;
  readonly channel: Channel;
  readonly shown: Board | null;
  readonly refusal: { reason: Reason; text: string } | null;
  readonly isPaused: boolean;
  /** When the server last said or confirmed what is shown. */
  readonly freshAt: number;
  /** When a stale replica last heard of its leader; 0: the server is fresh. */
  readonly staleFrom: number;
  /** By how much the server's clock is ahead, in milliseconds. */
  readonly clockAhead: number;
  set token(token: Token);
  resume(): void;
  pause(): void;
}

/** The element's words; {0} and {1} are filled in. */
export const WORDS: Readonly<Record<string, string>>;

export function boardOf(body: object, history?: string): Board;
export function afterDelta(board: Board | null, delta: object): Board | null;
/** Whether `a` must not follow `b` on a screen. */
export function isOlder(a: Board, b: Board): boolean;
export function looksLike(a: Board, b: Board): boolean;
export function backoff(failures: number, from?: number, to?: number, random?: number): number;
export function retryAfterOf(header: string | null, now: number): number;
export function eventReader(onData: (data: string) => void, onRetry: (milliseconds: number) => void): (piece: string) => void;
export function serviceOf(src: string | URL, base: string): URL | null;
export function timeLeft(milliseconds: number): [string, ...(number | string)[]];

declare global {
  interface HTMLElementTagNameMap {
    "live-scoreboard": LiveScoreboard;
  }
}
