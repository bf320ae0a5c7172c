/* ---- Parts and addresses --------------------------------------------------------------------------------------------- */

/* The address after # names a part, and what it shows: #boards/cup. It never has a token. */

const PARTS = [boardsPart, usersPart, correctionsPart, reviewsPart, nodesPart];
let shownParts = 0;      // grows with each part that is opened: an answer for an earlier one is dropped

/** Makes the list of the parts that the token allows, and opens one. */
function openParts() {
  const allowed = PARTS.filter((part) => part.isAllowed());
  element("parts").hidden = false;
  element("parts").replaceChildren(...allowed.map((part) => make("a", { href: `#${part.id}` }, part.title)));
  openHash();
}

/** A token without a scope that we know may have names of a provider, which the server maps. Only the server knows. */
function unknownScopes() {
  if (token.scopes.size > 0) return "";
  return make("p", { class: "warning" }, "This token has no scope that the console knows in its claims scope and scp. If the server maps names of your provider to its scopes, ",
    button("show all parts", () => { token.scopes = new Set(SCOPES); openParts(); }), " and the server decides.");
}

function closeParts() {
  shownParts += 1;
  element("parts").hidden = true;
  element("parts").replaceChildren();
  element("content").replaceChildren();
  samples.length = 0;
  handedOver = {};
}

/** Opens the part of the address; the first one if there is no such part. */
async function openHash() {
  if (token.text === "") return;
  const allowed = PARTS.filter((part) => part.isAllowed());
  const [id, ...rest] = location.hash.slice(1).split("/");
  const part = allowed.find((one) => one.id === id) ?? allowed[0];
  let within = "";
  try { within = part.id === id ? decodeURIComponent(rest.join("/")) : ""; } catch { /* no such thing, then */ }
  for (const link of element("parts").children) {
    if (link.hash === `#${part.id}`) link.setAttribute("aria-current", "page"); else link.removeAttribute("aria-current");
  }
  document.title = `${part.title} · Console · Scoreboard`;
  shownParts += 1;
  const mine = shownParts;
  const section = make("section", { id: part.id, "aria-busy": "true" });
  element("content").replaceChildren(unknownScopes(), section);
  try {
    await part.show(section, within);
  } catch (error) {
    if (!(error instanceof Refusal)) throw error;
    const place = make("div", {});
    section.replaceChildren(make("h2", { tabindex: "-1" }, part.title), place, make("div", { class: "actions" }, button("Try again", openHash)));
    showRefusal(place, error);
  } finally {
    section.removeAttribute("aria-busy");
  }
  if (mine === shownParts && element("token-form").hidden) section.querySelector("h2")?.focus({ preventScroll: true });
}

element("skip").addEventListener("click", (event) => { event.preventDefault(); element("main").focus(); });
addEventListener("hashchange", openHash);
startToken();
