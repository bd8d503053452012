// Draws the cluster: the log as a line, and the members that hang on it in their affinity groups.

import { draw, fill, visible } from "./dom.js";
import { SIGNS, figure, list, lookOf, plural, span, whole } from "./words.js";

const NODE = { height: 92, least: 148, most: 390 };
const GAP = 14;
const PAD = 12; // within a group's frame
const TITLE = 24; // of a group
const DROP = 46; // from the log to a group's frame, where lags are written
const ASIDE = 30; // from the log to the frames, where there is no room beside one another

/** The members of an overview, each with what is drawn and listed of it. */
export function membersOf(overview) {
  const { seen } = overview;
  const primary = seen.members.find((each) => each.id && each.id === seen.primary) ?? null;
  const committed = primary?.figures?.store?.committed_index ?? null;
  return seen.members.map((each) => {
    const store = each.figures?.store ?? null;
    const door = each.figures?.balancer ?? null;
    return {
      ...each,
      isPrimary: each === primary,
      isAsked: each.id === seen.member,
      look: lookOf(each.state),
      lag: committed === null || !store ? null : Math.max(0, committed - store.applied_index),
      lease: store ? store.lease_ms : null,
      rate: door ? door.requests_per_second : null,
      writes: store ? store.commits_per_second : null,
      p50: door ? door.p50 / 1000 : null,
      p99: door ? door.p99 / 1000 : null,
      disk: each.figures?.machine?.disk_total
        ? (100 * each.figures.machine.disk_free) / each.figures.machine.disk_total
        : null,
      silent: each.last_heard ? seen.at / 1000 - each.last_heard : null,
    };
  });
}

/** The groups that have members, with them, and those that have none. */
function groupsOf(overview, members) {
  const labels = [...new Set([...overview.seen.groups, ...members.map((each) => each.group)])];
  return labels.map((label) => ({ label, members: members.filter((each) => each.group === label) }));
}

/** What the drawing shows, in a sentence. */
export function sentence(overview, members) {
  const primary = members.find((each) => each.isPrimary);
  const states = members.map((each) => `${visible(each.name)} is ${each.state}`);
  const first = primary ? `${visible(primary.name)} is primary` : "no member is primary";
  return `${plural(members.length, "member")}, ${first}; ${list(states)}.`;
}

/** Draw into an svg element, for a width. */
export function drawTopology(svg, overview, width) {
  const members = membersOf(overview);
  const groups = groupsOf(overview, members);
  const frames = groups.reduce((sum, { members: of }) => sum + 2 * PAD + Math.max(1, of.length) * (NODE.least + GAP) - GAP, 0);
  const isWide = frames + GAP * (groups.length + 1) <= width;
  const { parts, height } = isWide ? beside(overview, groups, width) : below(overview, groups, width);
  svg.setAttribute("viewBox", `0 0 ${width} ${height}`);
  svg.setAttribute("width", width);
  svg.setAttribute("height", height);
  svg.setAttribute("aria-label", sentence(overview, members));
  fill(svg, parts);
}

function beside(overview, groups, width) {
  const count = groups.reduce((sum, { members }) => sum + Math.max(1, members.length), 0);
  const room = width - GAP * (groups.length - 1) - groups.length * 2 * PAD - GAP * (count - groups.length);
  const node = Math.min(NODE.most, room / count);
  const parts = [];
  const top = 26;
  const frame = top + DROP;
  let x = 0;
  let last = 0;
  for (const { label, members } of groups) {
    const slots = Math.max(1, members.length);
    const across = 2 * PAD + slots * node + (slots - 1) * GAP;
    parts.push(framed(label, members.length, x, frame, across, TITLE + NODE.height + PAD));
    members.forEach((member, number) => {
      const left = x + PAD + number * (node + GAP);
      const middle = left + node / 2;
      parts.push(tie(member, `M${middle} ${top}V${frame + TITLE}`, middle + 8, top + DROP / 2 + 5, "start"));
      parts.push(arrow(member, middle, frame + TITLE, top, true));
      parts.push(nodeOf(member, left, frame + TITLE, node));
      last = middle;
    });
    x += across + GAP;
  }
  const end = Math.max(last + 40, Math.min(width, x - GAP));
  parts.unshift(draw("path", { class: "log", d: `M2 ${top}H${end - 2}` }));
  parts.unshift(draw("text", { class: "log-words", x: 2, y: 14 }, logWords(overview)));
  return { parts, height: frame + TITLE + NODE.height + PAD + 2 };
}

function below(overview, groups, width) {
  const parts = [];
  const x = 9;
  let y = 30;
  let last = y;
  for (const { label, members } of groups) {
    const slots = Math.max(1, members.length);
    const tall = TITLE + slots * NODE.height + (slots - 1) * GAP + PAD;
    parts.push(framed(label, members.length, x + ASIDE, y, width - x - ASIDE - 2, tall));
    members.forEach((member, number) => {
      const top = y + TITLE + number * (NODE.height + GAP);
      const middle = top + NODE.height / 2;
      parts.push(tie(member, `M${x} ${middle}H${x + ASIDE + PAD}`));
      parts.push(arrow(member, middle, x + ASIDE + PAD, x, false));
      parts.push(nodeOf(member, x + ASIDE + PAD, top, width - x - ASIDE - 2 - 2 * PAD, true));
      last = middle;
    });
    y += tall + GAP;
  }
  parts.unshift(draw("path", { class: "log", d: `M${x} 22V${last + 16}` }));
  parts.unshift(draw("text", { class: "log-words", x: 2, y: 14 }, logWords(overview)));
  return { parts, height: y - GAP + 2 };
}

function logWords({ seen }) {
  const primary = seen.members.find((each) => each.id && each.id === seen.primary);
  const index = primary?.figures?.store?.committed_index;
  return `log, epoch ${whole(seen.epoch)}${index === undefined ? "" : `, entry ${whole(index)}`}`;
}

function framed(label, count, x, y, width, height) {
  return draw(
    "g",
    { class: "group" },
    draw("rect", { x: x + 0.5, y: y + 0.5, width: width - 1, height: height - 1, rx: 8 }),
    text("group-label", cut(label, width - 2 * PAD, 7), x + PAD, y + 16),
    count ? null : text("muted-words", "no member", x + PAD, y + 44),
  );
}

/** The line from the log to a member, with the lag. */
function tie(member, d, x = 0, y = 0, anchor = "start") {
  const words = member.isPrimary || member.lag === null || !x ? "" : `lag ${whole(member.lag)}`;
  return draw(
    "g",
    {},
    draw("path", { class: `tie ${member.isPrimary ? "primary" : member.look}`, d }),
    words ? text("lag", words, x, y, anchor) : null,
  );
}

/** The head of a tie: the primary writes the log, the others read it. */
function arrow(member, at, from, to, isVertical) {
  if (member.look === "bad") return null;
  const size = 5;
  const tip = member.isPrimary ? to + (isVertical ? 3 : 3) : from - 1;
  const back = member.isPrimary ? tip + 2 * size : tip - 2 * size;
  const d = isVertical
    ? `M${at} ${tip}L${at - size} ${back}H${at + size}Z`
    : `M${tip} ${at}L${back} ${at - size}V${at + size}Z`;
  return draw("path", { class: `head ${member.isPrimary ? "primary" : member.look}`, d });
}

function nodeOf(member, x, y, width, withLag = false) {
  const inner = width - 24;
  const lines = [
    text("name", cut(member.name, inner - (member.isPrimary ? 62 : 0), 8.2), x + 12, y + 24),
    text(`state ${member.look}`, `${SIGNS[member.look]} ${stateWords(member)}`, x + 12, y + 45),
    text("muted-words", cut(detailWords(member, withLag), inner, 6.1), x + 12, y + 64),
  ];
  const badge = member.isPrimary
    ? draw(
        "g",
        { class: "badge" },
        draw("rect", { x: x + width - 68, y: y + 10, width: 58, height: 20, rx: 10 }),
        text("badge-words", "primary", x + width - 39, y + 24, "middle"),
      )
    : null;
  return draw(
    "g",
    { class: `node ${member.look}${member.isPrimary ? " primary" : ""}` },
    draw("rect", { class: "box", x: x + 0.5, y: y + 0.5, width: width - 1, height: NODE.height - 1, rx: 6 }),
    badge,
    lines,
    leaseOf(member, x + 12, y + NODE.height - 15, inner),
  );
}

function stateWords(member) {
  if (member.state !== "unreachable") return member.state;
  return member.silent === null ? "unreachable" : `unreachable, ${span(member.silent)}`;
}

function detailWords(member, withLag) {
  if (!member.figures) return "tells nothing of itself";
  const lag = withLag && !member.isPrimary && member.lag !== null ? `lag ${whole(member.lag)}, ` : "";
  return `${lag}${figure(member.rate)} ops/s, p99 ${figure(member.p99)} ms`;
}

const LEASE = 1500; // milliseconds that fill the bar, where none is longer

/** The lease as a bar: how long the member may still serve reads of what it keeps. */
function leaseOf(member, x, y, width) {
  if (member.lease === null) return null;
  const words = member.lease ? `lease ${figure(member.lease / 1000)} s` : "no lease";
  const room = Math.max(20, width - 84);
  const share = Math.min(1, member.lease / Math.max(LEASE, member.lease));
  return draw(
    "g",
    { class: "lease" },
    draw("rect", { class: "lease-room", x, y: y + 1, width: room, height: 4, rx: 2 }),
    share ? draw("rect", { class: "lease-left", x, y: y + 1, width: Math.max(2, room * share), height: 4, rx: 2 }) : null,
    text("lease-words", words, x + width, y + 7, "end"),
  );
}

function text(kind, words, x, y, anchor = "start") {
  return draw("text", { class: kind, x, y, "text-anchor": anchor === "start" ? null : anchor }, words);
}

/** As much of a text as fits, about. */
function cut(words, width, character) {
  const shown = visible(words);
  const most = Math.max(3, Math.floor(width / character));
  return shown.length <= most ? shown : `${[...shown].slice(0, most - 1).join("")}…`;
}
