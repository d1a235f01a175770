"use strict";
// Line charts as SVG, drawn anew when their place changes its width.

const HEIGHT = 150, LEFT = 44, RIGHT = 8, TOP = 8, BOTTOM = 22;

/**
 * A chart of lines.
 * series: [{name, points: [[x, y]], color: index, alone: points without a line, bars: [[x, low, high]]}];
 * low, high, left, right: bounds that are always shown;
 * onpick(x): called with the x nearest to a click; marked: an x that is marked.
 */
function lineChart({ title, series, low = Infinity, high = -Infinity, left = Infinity, right = -Infinity, onpick = null, marked = null, xLabel = "" }) {
  const figure = element("figure", { class: "chart" }, element("figcaption", {}, title));
  const place = element("div", { class: "place" });
  figure.append(place);
  const points = series.flatMap((one) => one.points);
  if (!points.length) return element("figure", { class: "chart" }, element("figcaption", {}, title), element("p", {}, "Nothing recorded."));
  const reached = series.flatMap((one) => (one.bars || []).flatMap(([, from, to]) => [from, to]));
  const x = bounds([...points.map(([value]) => value), left, right]), y = bounds([...points.map(([, value]) => value), ...reached, low, high]);
  const draw = () => place.replaceChildren(plot(series, x, y, Math.max(200, place.clientWidth || 320), onpick, marked, xLabel, title));
  new ResizeObserver(draw).observe(place);
  return figure;
}

function plot(series, x, y, width, onpick, marked, xLabel, title) {
  const across = (value) => LEFT + ((value - x.low) / (x.high - x.low)) * (width - LEFT - RIGHT);
  const up = (value) => HEIGHT - BOTTOM - ((value - y.low) / (y.high - y.low)) * (HEIGHT - TOP - BOTTOM);
  const image = drawn("svg", { width, height: HEIGHT, viewBox: `0 0 ${width} ${HEIGHT}`, role: "img", "aria-label": title });
  for (const value of [y.low, (y.low + y.high) / 2, y.high]) {
    image.append(drawn("line", { class: "rule", x1: LEFT, x2: width - RIGHT, y1: up(value), y2: up(value) }));
    image.append(drawn("text", { x: LEFT - 4, y: up(value) + 4, "text-anchor": "end" }, short(value, 2)));
  }
  if (y.low < 0 && y.high > 0) image.append(drawn("line", { class: "zero", x1: LEFT, x2: width - RIGHT, y1: up(0), y2: up(0) }));
  image.append(drawn("text", { x: LEFT, y: HEIGHT - 6 }, short(x.low, 1)));
  image.append(drawn("text", { x: width - RIGHT, y: HEIGHT - 6, "text-anchor": "end" }, `${xLabel} ${short(x.high, 1)}`));
  if (marked !== null) image.append(drawn("line", { class: "marked", x1: across(marked), x2: across(marked), y1: TOP, y2: HEIGHT - BOTTOM }));
  for (const { name, points, color, alone, bars } of series) {
    for (const [at, from, to] of bars || []) {
      image.append(drawn("line", { class: `bar c${color % 8}`, x1: across(at), x2: across(at), y1: up(from), y2: up(to) }));
    }
    const path = points.map(([a, b], i) => `${i ? "L" : "M"}${across(a).toFixed(1)} ${up(b).toFixed(1)}`).join("");
    if (!alone) image.append(drawn("path", { class: `line c${color % 8}`, d: path }, drawn("title", {}, name)));
    if (alone || points.length < 60) {
      for (const [a, b] of points) {
        image.append(drawn("circle", { class: `dot c${color % 8}`, cx: across(a), cy: up(b), r: alone ? 4 : 2.5 }, drawn("title", {}, `${name}: ${short(b)} at ${short(a, 1)}`)));
      }
    }
  }
  if (onpick) {
    image.classList.add("pickable");
    image.addEventListener("click", (event) => {
      const at = (event.clientX - image.getBoundingClientRect().left - LEFT) / (width - LEFT - RIGHT);
      onpick(x.low + Math.min(1, Math.max(0, at)) * (x.high - x.low));
    });
  }
  return image;
}

function bounds(values) {
  let low = Infinity, high = -Infinity;
  for (const value of values) {
    if (Number.isFinite(value)) { low = Math.min(low, value); high = Math.max(high, value); }
  }
  return low === high ? { low: low - 0.5, high: high + 0.5 } : { low, high };
}

/** Names with the colors of their lines; names alone are colored in their order. */
function legend(names) {
  const colored = names.map((one, i) => (typeof one === "string" ? { name: one, color: i } : one));
  return element("ul", { class: "legend" }, colored.map(({ name, color }) => element("li", {}, element("span", { class: `swatch c${color % 8}` }), name)));
}
