/* ---- The token ------------------------------------------------------------------------------------------------------- */

const STORED_AS = `scoreboard-console ${here}`;     // two servers below one host have a token each
const SCOPES = ["scores:read", "scores:write", "scores:correct", "scores:review", "users:write", "users:erase", "boards:write", "log:read", "admin"];
const NO_TOKEN = { text: "", claims: {}, scopes: new Set() };
let token = NO_TOKEN;
let isRefused = false;      // the server did not take the token, whatever it says of itself

/** Whether the token has one of these scopes. */
const may = (...scopes) => token.scopes.has("admin") || scopes.some((scope) => token.scopes.has(scope));

/** Reads what was pasted: a JWT, maybe with "Bearer" in front. Throws an error whose message is for people. */
function readToken(pasted) {
  const text = pasted.trim().replace(/^(authorization:\s*)?bearer\s+/i, "");
  const parts = text.split(".");
  let claims = null;
  try {
    const bytes = Uint8Array.from(atob(parts[1].replaceAll("-", "+").replaceAll("_", "/")), (letter) => letter.charCodeAt(0));
    claims = JSON.parse(new TextDecoder().decode(bytes));
  } catch { /* said below */ }
  if (parts.length !== 3 || /[^\x21-\x7e]/.test(text) || claims === null || typeof claims !== "object") throw new Error("This is not a JWT: it has three parts with dots between them, and the second one says whose it is.");
  const named = ["scope", "scp"].flatMap((name) => (typeof claims[name] === "string" ? claims[name].split(" ") : Array.isArray(claims[name]) ? claims[name] : []));
  return { text, claims, scopes: new Set(named.filter((scope) => SCOPES.includes(scope))) };
}

/** When the token ends, in ms since 1970; null if it does not say. */
const tokenEnds = () => (typeof token.claims.exp === "number" ? token.claims.exp * 1000 : null);

function useToken(found) {
  const isRenewal = token.text !== "" && token.claims.sub === found.claims.sub && [...token.scopes].sort().join() === [...found.scopes].sort().join();
  token = found;
  isRefused = false;
  try { sessionStorage.setItem(STORED_AS, found.text); } catch { /* without storage a reload asks for it again */ }
  element("token").value = "";
  element("subject").textContent = String(found.claims.sub ?? "");
  element("who").hidden = false;
  showTokenForm(false);
  watchToken();
  if (isRenewal) say("The new token is in use.");
  else openParts();
}

function signOut() {
  token = NO_TOKEN;
  try { sessionStorage.removeItem(STORED_AS); } catch { /* there was none */ }
  element("who").hidden = true;
  closeParts();
  showTokenForm(true);
  watchToken();
}

/** Shows the form that takes a token, or hides it. Signed in, it renews the token and the parts stay as they are. */
function showTokenForm(isOpen, fault = "") {
  const signedIn = token.text !== "";
  element("token-form").hidden = !isOpen;
  element("token-title").textContent = signedIn ? "Renew the token" : "Sign in with a token";
  element("token-cancel").hidden = !signedIn;
  element("renew").setAttribute("aria-expanded", String(isOpen));
  element("token-fault").textContent = fault;
  element("token-fault").hidden = !fault;
  if (isOpen) element("token").focus();
}

/** The server did not take the token. What was typed stays; a new token goes on from there. */
function tokenRefused(message) {
  isRefused = true;
  watchToken();
  showTokenForm(true, `${message} Paste a new token; what you have typed below stays.`);
}

/** The hour of today, or the whole time of another day. */
function endText(ends) {
  const whole = timeText(new Date(ends).toISOString());
  if (Math.abs(ends - Date.now()) < 12 * 3_600_000) whole.textContent = localHour.format(ends);
  return whole;
}

/** Says until when the token is good. The server decides: the reader's clock may be wrong. */
function watchToken() {
  const ends = tokenEnds();
  const left = ends === null ? Infinity : ends - Date.now();
  const isOver = token.text !== "" && left <= 0;
  document.documentElement.dataset.state = token.text === "" ? "signed-out" : isOver || isRefused ? "expired" : "signed-in";
  element("validity").replaceChildren(...(token.text === "" ? [] : ends === null ? ["no end"] : [isOver ? "expired " : "valid until ", endText(ends)]));
}

function startToken() {
  element("token-form").addEventListener("submit", (event) => {
    event.preventDefault();
    let found;
    try {
      found = readToken(element("token").value);
    } catch (error) {
      showTokenForm(true, error.message);
      return;
    }
    useToken(found);
  });
  element("token-cancel").addEventListener("click", () => { showTokenForm(false); element("renew").focus(); });
  element("renew").addEventListener("click", () => showTokenForm(element("token-form").hidden));
  element("sign-out").addEventListener("click", signOut);
  setInterval(watchToken, 5000);
  let stored = null;
  try { stored = readToken(sessionStorage.getItem(STORED_AS) ?? ""); } catch { /* there is none: the form is open */ }
  if (stored) useToken(stored);
  else element("token").focus();
}
