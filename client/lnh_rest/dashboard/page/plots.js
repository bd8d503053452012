// Draws what the page has seen of rates and latencies: the last minutes, from when it was opened.

import { draw, fill } from "./dom.js";
import { figure } from "./words.js";

export const SECONDS = 300; // that a plot shows
const HEIGHT = 132;
const LEFT = 40;
const BELOW = 18;
const ABOVE = 8;
const SILENCE = 6; // seconds between two looks, from which on a line is broken

/** What was seen: the newest looks, each with its time in seconds and its figures. */
export class History {
  #points = [];

  add(time, figures) {
    this.#points.push({ time, ...figures });
    while (this.#points.length && this.#points[0].time < time - SECONDS) this.#points.shift();
  }

  clear() {
    this.#points = [];
  }

  get points() {
    return this.#points;
  }
}

/** The least round number that is not below a value: 1, 2 or 5 of a power of ten. */
export function roundUp(value) {
  if (!(value > 0)) return 1;
  const power = 10 ** Math.floor(Math.log10(value));
  const found = [1, 2, 5, 10].find((each) => each * power >= value * 0.999999);
  return found * power;
}

/**
 * Draw lines into an svg element.
 *
 * @param lines each with the name of a figure, a class, and whether the area below it is filled.
 */
export function drawPlot(svg, points, lines, width, now, label) {
  const right = width - 6;
  const bottom = HEIGHT - BELOW;
  const highest = Math.max(0, ...points.flatMap((point) => lines.map(({ name }) => point[name] ?? 0)));
  const top = roundUp(highest);
  const x = (time) => right - ((now - time) / SECONDS) * (right - LEFT);
  const y = (value) => bottom - (value / top) * (bottom - ABOVE);
  const parts = [];
  for (const share of [0, 0.5, 1]) {
    const at = y(top * share);
    parts.push(draw("path", { class: share ? "grid" : "axis", d: `M${LEFT} ${at}H${right}` }));
    parts.push(draw("text", { class: "tick", x: LEFT - 6, y: at + 4, "text-anchor": "end" }, figure(top * share)));
  }
  for (const minutes of width < 480 ? [4, 2, 0] : [5, 4, 3, 2, 1, 0]) {
    const anchor = minutes === 0 ? "end" : minutes === 5 ? "start" : "middle";
    const words = minutes ? `−${minutes} min` : "now";
    parts.push(draw("text", { class: "tick", x: x(now - 60 * minutes), y: HEIGHT - 4, "text-anchor": anchor }, words));
  }
  for (const { name, kind, filled } of lines) {
    for (const run of runs(points, name)) {
      const d = run.map((point, number) => `${number ? "L" : "M"}${round(x(point.time))} ${round(y(point[name]))}`).join("");
      const [first, last] = [run[0], run[run.length - 1]];
      if (filled) parts.push(draw("path", { class: `area ${kind}`, d: `${d}V${bottom}H${round(x(first.time))}Z` }));
      parts.push(draw("path", { class: `line ${kind}`, d }));
      if (run.length === 1) parts.push(draw("circle", { class: `dot ${kind}`, cx: x(last.time), cy: y(last[name]), r: 2.5 }));
    }
  }
  svg.setAttribute("viewBox", `0 0 ${width} ${HEIGHT}`);
  svg.setAttribute("width", width);
  svg.setAttribute("height", HEIGHT);
  svg.setAttribute("aria-label", label);
  fill(svg, parts);
}

/** Cut the points that have a figure where none was seen for a while. */
function runs(points, name) {
  const found = [];
  let before = -Infinity;
  for (const point of points) {
    if (point[name] === null || point[name] === undefined) {
      before = -Infinity;
      continue;
    }
    if (point.time - before > SILENCE) found.push([]);
    found[found.length - 1].push(point);
    before = point.time;
  }
  return found;
}

function round(value) {
  return Math.round(value * 10) / 10;
}
