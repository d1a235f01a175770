"use strict";
// Elements from JavaScript. Text only ever becomes text nodes: what an episode says cannot become markup.

const SVG = "http://www.w3.org/2000/svg";

/** An element with attributes, listeners ("onclick") and children (nodes, or values shown as text). */
function element(tag, attributes = {}, ...children) {
  return filled(document.createElement(tag), attributes, children);
}

/** The same for SVG. */
function drawn(tag, attributes = {}, ...children) {
  return filled(document.createElementNS(SVG, tag), attributes, children);
}

function filled(node, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (value === null || value === undefined || value === false) continue;
    if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else node.setAttribute(name, value === true ? "" : String(value));
  }
  for (const child of children.flat(3)) {
    if (child === null || child === undefined || child === false) continue;
    node.append(child instanceof Node ? child : document.createTextNode(visible(String(child))));
  }
  return node;
}

// Variation selectors 15 and 16 show: they say whether a sign is drawn as an emoji.
const INVISIBLE = /(?![\t\n\ufe0e\ufe0f])[\p{Cc}\p{Default_Ignorable_Code_Point}\u2028\u2029\ufff9-\ufffb]/gu;

/** Text in which characters that would not show, or would turn the order of others around, are shown as symbols. */
function visible(text) {
  return text.replace(INVISIBLE, (character) => {
    const code = character.codePointAt(0);
    if (code < 0x20) return String.fromCharCode(0x2400 + code);
    return "\u27e8U+" + code.toString(16).toUpperCase().padStart(4, "0") + "\u27e9";
  });
}

function percent(share) {
  return typeof share === "number" ? (100 * share).toFixed(1) + " %" : "–";
}

/** A number in a few characters, with a real minus sign. */
function short(value, digits = 3) {
  if (typeof value !== "number") return "–";
  const size = Math.abs(value);
  const text = size !== 0 && (size < 0.001 || size >= 1e5) ? value.toExponential(1) : String(+value.toFixed(digits));
  return text.replace(/^-/, "\u2212");
}
