// Markdown that grows: finished blocks are made once, only the last one is made again.

import DOMPurify from "dompurify";
import hljs from "highlight.js/lib/core";
import bash from "highlight.js/lib/languages/bash";
import cpp from "highlight.js/lib/languages/cpp";
import css from "highlight.js/lib/languages/css";
import diff from "highlight.js/lib/languages/diff";
import go from "highlight.js/lib/languages/go";
import java from "highlight.js/lib/languages/java";
import javascript from "highlight.js/lib/languages/javascript";
import json from "highlight.js/lib/languages/json";
import python from "highlight.js/lib/languages/python";
import rust from "highlight.js/lib/languages/rust";
import sql from "highlight.js/lib/languages/sql";
import typescript from "highlight.js/lib/languages/typescript";
import xml from "highlight.js/lib/languages/xml";
import yaml from "highlight.js/lib/languages/yaml";
import { Marked, type Token, type Tokens, type TokensList } from "marked";

const LANGUAGES = {
  bash, cpp, css, diff, go, java, javascript, json, python, rust, sql, typescript, xml, yaml,
};
for (const [name, language] of Object.entries(LANGUAGES)) hljs.registerLanguage(name, language);

const escape = (text: string) => text.replace(/[&<>"]/g, (c) => `&#${c.charCodeAt(0)};`);

interface Maths extends Tokens.Generic {
  tex: string;
}

const maths = (name: string, level: "block" | "inline", begins: RegExp, whole: RegExp) => ({
  name,
  level,
  start: (text: string) => begins.exec(text)?.index,
  tokenizer(text: string) {
    const found = whole.exec(text);
    return found ? { type: name, raw: found[0], tex: found[1] ?? found[2] ?? "" } : undefined;
  },
  renderer(token: Tokens.Generic) {
    const tag = level === "block" ? "div" : "span";
    const tex = escape((token as Maths).tex);
    return `<${tag} class="math" data-tex="${tex}">${tex}</${tag}>`;
  },
});

/** Whether what is made now grows still: it is made at each frame, so without what takes long. */
let isDraft = false;

const marked = new Marked({
  gfm: true,
  renderer: {
    code({ text, lang }) {
      const name = (lang ?? "").split(/\s/)[0] ?? "";
      const known = !isDraft && name !== "" && hljs.getLanguage(name) !== undefined;
      const body = known ? hljs.highlight(text, { language: name }).value : escape(text);
      const bar = `<div class="bar"><span>${escape(name)}</span><button type="button" class="copy">Copy</button></div>`;
      return `<div class="code">${bar}<pre tabindex="0"><code>${body}</code></pre></div>`;
    },
    // What a model writes as HTML is shown, and never run.
    html: ({ text }) => escape(text),
    // Nothing is loaded from elsewhere.
    image: ({ href, text }) => `<a href="${escape(href)}">${escape(text || href)}</a>`,
  },
  extensions: [
    maths("blockmath", "block", /\$\$|\\\[/, /^(?:\$\$([\s\S]+?)\$\$|\\\[([\s\S]+?)\\\])\s*(?:\n|$)/),
    // A dollar that is money is no formula: no space inside, no digit behind.
    maths("inlinemath", "inline", /\$|\\\(/, /^(?:\$(?!\s)([^$\n]+?)(?<!\s)\$(?!\d)|\\\(([\s\S]+?)\\\))/),
  ],
});

const ALLOWED = {
  ALLOWED_TAGS: [
    "p", "br", "hr", "em", "strong", "del", "code", "pre", "blockquote", "ul", "ol", "li",
    "h1", "h2", "h3", "h4", "h5", "h6", "a", "table", "thead", "tbody", "tr", "th", "td",
    "span", "div", "button", "input",
  ],
  ALLOWED_ATTR: [
    "href", "class", "type", "tabindex", "data-tex", "align", "start", "checked", "disabled", "rel", "target",
  ],
  ALLOW_DATA_ATTR: false,
  RETURN_TRUSTED_TYPE: true as const,
};
DOMPurify.addHook("afterSanitizeAttributes", (node) => {
  if (node.tagName === "A") {
    node.setAttribute("target", "_blank");
    node.setAttribute("rel", "noopener noreferrer nofollow");
  }
});

export interface Block {
  key: number;
  /** A TrustedHTML where the browser has them. */
  html: string;
}

const MAX_KEPT = 4000;
const kept = new Map<string, string>();

/** Returns the blocks of a text; all but the last of an unfinished one come from what was made. */
export function blocks(text: string, done: boolean): Block[] {
  const tokens = marked.lexer(text);
  // A block's links may be defined in another one.
  const links = JSON.stringify(tokens.links);
  const found: Block[] = [];
  tokens.forEach((token, key) => {
    const isGrowing = key === tokens.length - 1 && !done;
    const name = `${token.raw}\0${links}`;
    let html = isGrowing ? undefined : kept.get(name);
    if (html === undefined) {
      isDraft = isGrowing;
      html = made(token, tokens.links);
      if (!isGrowing) {
        if (kept.size >= MAX_KEPT) kept.clear();
        kept.set(name, html);
      }
    }
    found.push({ key, html });
  });
  return found;
}

function made(token: Token, links: TokensList["links"]): string {
  const list = Object.assign([token], { links }) as TokensList;
  // Svelte passes the TrustedHTML through, as its types cannot say.
  return DOMPurify.sanitize(marked.parser(list), ALLOWED) as unknown as string;
}

let katex: Promise<typeof import("katex")> | undefined;

/** Longest that a formula may be drawn, in em, and most macros that it may expand. */
const LIMITS = { maxSize: 20, maxExpand: 200, throwOnError: false, trust: false };

/** Draws the formulas below an element. KaTeX sets styles by the DOM, which the policy allows. */
export async function drawFormulas(root: HTMLElement): Promise<void> {
  const places = root.querySelectorAll<HTMLElement>(".math:not([data-drawn])");
  if (places.length === 0) return;
  katex ??= Promise.all([import("katex"), import("katex/dist/katex.min.css")]).then(([k]) => k);
  const { default: drawing } = await katex;
  for (const place of places) {
    place.dataset.drawn = "1";
    const displayMode = place.tagName === "DIV";
    drawing.render(place.dataset.tex ?? "", place, { displayMode, ...LIMITS });
  }
}
