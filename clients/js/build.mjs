/* Makes server/pages/scoreboard.min.js, which the server sends, from server/pages/scoreboard.js, the one source:

     npm install && npm run build

   Its first line has a digest of the source, so a test without node sees whether it was made anew. */

import { createHash } from "node:crypto";
import { readFileSync, writeFileSync } from "node:fs";
import { transformSync } from "esbuild";

const HERE = new URL(".", import.meta.url);
const SOURCE = new URL("../../server/pages/scoreboard.js", HERE);
const SHORT = new URL("../../server/pages/scoreboard.min.js", HERE);

/** Takes comments and needless spaces out of the style sheet, which is a text inside the source. */
const withShortStyle = (source) => source.replace(/(?<=^const STYLE = `)[^`]*/m, (style) => style
  .replace(/\/\*.*?\*\//gs, "").replace(/\s*\n\s*/g, "").replace(/ ?([{};,>]) ?/g, "$1").replace(/: /g, ":"));

const source = readFileSync(SOURCE, "utf8");
const digest = createHash("sha256").update(source).digest("hex").slice(0, 16);
const { code } = transformSync(withShortStyle(source), { minify: true, format: "esm", target: "es2022" });
writeFileSync(SHORT, `/* scoreboard.js ${digest} */\n${code}`);
