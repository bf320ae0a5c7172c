/* ---- The API --------------------------------------------------------------------------------------------------------- */

const ANSWER_WITHIN = 120_000;                                                          // a reversal may read a large log
const here = new URL(location.pathname.replace(/\/$/, ""), location.href).href;         // the API lies beside the page

/** Why something was not done, in the server's words. `code` is "" where no server of ours answered. */
class Refusal extends Error {
  constructor(message, { status = 0, code = "", details = {}, retryAfter = "" } = {}) {
    super(message);
    Object.assign(this, { status, code, details, retryAfter });
  }

  /** Whether the request may have been carried out all the same. */
  get isUnknown() { return this.status === 0 || this.code === "OUTCOME_UNKNOWN"; }
}

/** Sends a request; gives the answer's JSON. Throws `Refusal`. */
async function ask(method, path, { query = {}, body } = {}) {
  const response = await send(method, path, query, body);
  const answer = await response.json().catch(() => ({}));
  if (response.ok) return answer;
  const { code = "", message = `The server answered ${response.status}.`, details = {} } = answer.error ?? {};
  if (response.status === 401) tokenRefused(message);
  throw new Refusal(message, { status: response.status, code, details, retryAfter: response.headers.get("retry-after") ?? "" });
}

async function send(method, path, query, body) {
  const url = new URL(path, here);
  for (const [name, value] of Object.entries(query)) if (isShown(value)) url.searchParams.set(name, value);
  const headers = { Authorization: `Bearer ${token.text}` };
  if (body !== undefined) headers["Content-Type"] = "application/json";
  let response;
  try {
    response = await fetch(url, {
      method, headers, body: body === undefined ? undefined : JSON.stringify(body),
      cache: "no-store", credentials: "omit", redirect: "manual", signal: AbortSignal.timeout(ANSWER_WITHIN),
    });
  } catch {
    throw new Refusal(method === "GET" ? "The server did not answer." : "The server did not answer. It may have done it: look before you try again.");
  }
  // A replica sends changes to its leader, and a page may not follow with its token to another origin.
  if (response.type === "opaqueredirect") throw new Refusal("This node is a replica. Changes are made in the leader's console.", { status: 307, code: "NOT_LEADER" });
  return response;
}

/** Shows a refusal: its sentence, its field and its code. A field of `within` that has the name is marked and focused. */
function showRefusal(place, refusal, within = null) {
  const { details, code } = refusal;
  const told = [details.field ? `Field: ${details.field}` : "", details.leader ? `Leader: ${details.leader}` : "", refusal.retryAfter ? `Try again in ${refusal.retryAfter} s` : "", code];
  place.replaceChildren(make("div", { class: "fault", role: "alert" }, make("p", {}, refusal.message), make("p", { class: "note" }, told.filter(Boolean).join(" · "))));
  const names = String(details.field ?? "").split(".");
  const control = within && [...within.querySelectorAll("[name]")].find((one) => one.name === names[0]);
  if (!control) return;
  control.setAttribute("aria-invalid", "true");
  control.addEventListener("input", () => control.removeAttribute("aria-invalid"), { once: true });
  control.focus();
}

/** Does some work for a button: once at a time, and with its refusal shown in `place`. */
async function attempt(pressed, place, work) {
  if (pressed?.getAttribute("aria-disabled") === "true") return;
  pressed?.setAttribute("aria-disabled", "true");
  const within = pressed?.closest("form") ?? null;
  for (const control of within?.querySelectorAll("[aria-invalid]") ?? []) control.removeAttribute("aria-invalid");
  place.replaceChildren();
  try {
    await work();
  } catch (error) {
    if (!(error instanceof Refusal)) throw error;
    showRefusal(place, error, within);
  } finally {
    pressed?.removeAttribute("aria-disabled");
  }
}
