// The first screen: the verdict, the drawing of the cluster, its members, and what they do.

import { draw, el, fill, keep, said, set, table, visible, write } from "./dom.js";
import { confirm, field } from "./dialogs.js";
import { Section } from "./sections.js";
import { History, drawPlot } from "./plots.js";
import { drawTopology, membersOf } from "./topology.js";
import { DASH, SIGNS, figure, list, plural, span, whole } from "./words.js";
import { PATHS } from "./paths.js";

/** One line that says how the cluster is, and one with its figures. */
export class Verdict {
  constructor() {
    this.word = el("p", { class: "verdict-word" }, "Looking…");
    this.facts = el("dl", { class: "facts" });
    this.element = el("div", { class: "verdict", id: "verdict" }, this.word, this.facts);
  }

  look({ overview, findings, current, whole_until: wholeUntil }) {
    const problems = findings.filter((each) => each.severity === "problem").length;
    const advice = findings.length - problems;
    const kind = problems ? "bad" : advice ? "warned" : "well";
    const words = problems ? plural(problems, "problem") : advice ? `Healthy, ${plural(advice, "piece of advice", "pieces of advice")}` : "Healthy";
    set(this.element, "data-look", kind);
    write(this.word, words);
    const { seen } = overview;
    const readWrite = seen.members.filter((each) => each.state === "read-write").length;
    const primary = seen.members.find((each) => each.id && each.id === seen.primary);
    const asked = seen.members.find((each) => each.id === seen.member);
    const facts = [
      ["members read-write", `${readWrite} of ${seen.members.length}`],
      ["primary", primary ? primary.name : "none"],
      ["epoch", whole(seen.epoch)],
      ["keyrings", whole(overview.keyrings)],
      ["clients", whole(overview.clients)],
      ["version", overview.product || DASH],
      ["seen from", asked ? asked.name : DASH],
    ];
    if (!current) facts.push(["behind since", wholeUntil ? span(seen.at / 1000 - wholeUntil / 1000) : "unknown"]);
    keep(
      this.facts,
      facts,
      ([name]) => name,
      ([name]) => el("div", {}, el("dt", {}, name), el("dd")),
      (element, [, value]) => write(element.lastChild, value),
    );
  }
}

/** The drawing, and the table of members with what an administrator does to one. */
export class Members extends Section {
  #app;
  #svg = draw("svg", { role: "img", class: "topology" });
  #canvas = el("div", { class: "canvas" }, this.#svg);
  #table = table("Members", [
    { name: "member" },
    { name: "group" },
    { name: "state" },
    { name: "lease", kind: "number" },
    { name: "lag", kind: "number" },
    { name: "ops/s", kind: "number" },
    { name: "writes/s", kind: "number" },
    { name: "p50 ms", kind: "number" },
    { name: "p99 ms", kind: "number" },
    { name: "disk free", kind: "number" },
    { name: "version" },
    { name: "acts", kind: "acts", hidden: true },
  ]);
  #overview = null;

  constructor(app) {
    super("members", "Cluster", { wide: true });
    this.#app = app;
    fill(this.body, this.#canvas, this.#table.frame);
    new ResizeObserver(() => this.#draw()).observe(this.#canvas);
  }

  look({ overview }) {
    this.#overview = overview;
    write(this.more, overview.label);
    this.#draw();
    this.#list();
  }

  administer() {
    if (this.#overview) this.#list();
  }

  #draw() {
    const width = Math.floor(this.#canvas.clientWidth);
    if (this.#overview && width > 0) drawTopology(this.#svg, this.#overview, width);
  }

  #list() {
    keep(
      this.#table.body,
      membersOf(this.#overview),
      (each) => each.id || each.name,
      () => el("tr", {}, el("th", { scope: "row" }), ...Array.from({ length: 11 }, () => el("td"))),
      (row, member) => this.#row(row, member),
    );
  }

  #row(row, member) {
    const cells = [...row.children];
    const words = [
      member.name,
      member.group,
      `${SIGNS[member.look]} ${member.state}${member.isPrimary ? ", primary" : ""}`,
      member.lease === null ? DASH : member.lease ? `${figure(member.lease / 1000)} s` : "none",
      member.lag === null ? DASH : whole(member.lag),
      figure(member.rate),
      figure(member.writes),
      figure(member.p50),
      figure(member.p99),
      member.disk === null ? DASH : `${Math.floor(member.disk)} %`,
      member.product || DASH,
    ];
    words.forEach((word, number) => write(cells[number], word));
    cells[2].className = `state ${member.look}`;
    for (const number of [3, 4, 5, 6, 7, 8, 9]) cells[number].className = "number";
    const { may } = this.#app;
    const acts = [];
    if (may.has("members") && !member.isPrimary) {
      acts.push({ name: "Promote…", act: () => this.#promote(member.id), ready: member.state === "read-write" });
    }
    if (may.has("groups")) acts.push({ name: "Move…", act: () => this.#move(member.id), ready: true });
    cells[11].className = "acts";
    keep(
      cells[11],
      acts,
      (each) => each.name,
      ({ name, act }) =>
        el("button", { type: "button", class: "small", "aria-label": `${name.slice(0, -1)} ${visible(member.name)}`, on: { click: act } }, name),
      (button, { ready }) => set(button, "disabled", ready ? null : ""),
    );
  }

  #member(id) {
    return membersOf(this.#overview).find((each) => each.id === id);
  }

  #promote(id) {
    const member = this.#member(id);
    const primary = membersOf(this.#overview).find((each) => each.isPrimary);
    confirm({
      title: `Promote ${member.name}?`,
      happens: [
        `${member.name} becomes the primary${primary ? `, in place of ${primary.name}, which goes on as a member` : ""}.`,
        "Nothing that was acknowledged is lost. Changes wait for a moment while the new epoch opens; sessions and the use of keys go on.",
        "The act is recorded in the audit trail.",
      ],
      verb: `Promote ${member.name}`,
      act: async () => {
        const { remark } = (await this.#app.act(PATHS.promote(member.name))) ?? {};
        return `${member.name} was promoted.${remark ? ` ${remark}` : ""}`;
      },
    });
  }

  #move(id) {
    const member = this.#member(id);
    const { groups } = this.#overview.seen;
    const others = groups.filter((each) => each !== member.group);
    const options = el("datalist", { id: "groups-to-move-to" }, others.map((each) => el("option", { value: each })));
    const input = el("input", { required: true, maxlength: "64", list: "groups-to-move-to", autocomplete: "off" });
    confirm({
      title: `Move ${member.name} to another group?`,
      happens: [
        `${member.name} leaves the group ${member.group}. A client is served by the group of the member that it talks to, so where the operations of its clients go changes at once.`,
        "Its contents, its sessions and its role stay as they are.",
        groups.length > 1 ? `There are the groups ${list(groups)}.` : `There is no group but ${member.group}; a new label makes one.`,
      ],
      verb: "Move",
      fields: [field("Group", input, "one that there is, or a new label"), options],
      act: async () => {
        const label = input.value;
        if (!groups.includes(label)) await this.#app.act(PATHS.newGroup(label));
        const { remark } = (await this.#app.act(PATHS.move(member.name, label))) ?? {};
        return `${member.name} is in the group ${label} now.${remark ? ` ${remark}` : ""}`;
      },
    });
  }
}

const PLOTS = [
  {
    title: "Operations a second",
    lines: [{ name: "rate", kind: "first", filled: true }],
    figures: (point) => [["all members", figure(point.rate)]],
  },
  {
    title: "Latency, ms",
    lines: [
      { name: "p99", kind: "second" },
      { name: "p50", kind: "first" },
    ],
    figures: (point) => [
      ["p50", figure(point.p50), "first"],
      ["p99", figure(point.p99), "second"],
    ],
  },
  {
    title: "Changes a second",
    lines: [{ name: "writes", kind: "first", filled: true }],
    figures: (point) => [["log", figure(point.writes)]],
  },
];

/** What the cluster does, over the time that the page has looked. */
export class Plots extends Section {
  #history = new History();
  #plots;
  #now = 0;

  constructor() {
    super("plots", "Load", { wide: true });
    fill(this.more, "the last five minutes, since this page was opened");
    this.#plots = PLOTS.map((plot) => {
      const svg = draw("svg", { role: "img" });
      const words = el("p", { class: "figures" });
      const canvas = el("div", { class: "canvas" }, svg);
      new ResizeObserver(() => this.#draw()).observe(canvas);
      return { ...plot, svg, words, canvas, element: el("figure", {}, el("figcaption", {}, el("h3", {}, plot.title), words), canvas) };
    });
    fill(this.body, el("div", { class: "plots" }, this.#plots.map((each) => each.element)));
  }

  look({ overview }) {
    const members = membersOf(overview);
    const told = members.filter((each) => each.rate !== null);
    const most = (name) => (told.length ? Math.max(...told.map((each) => each[name])) : null);
    const primary = members.find((each) => each.isPrimary);
    this.#now = overview.seen.at / 1000;
    this.#history.add(this.#now, {
      rate: told.length ? told.reduce((sum, each) => sum + each.rate, 0) : null,
      p50: most("p50"),
      p99: most("p99"),
      writes: primary?.writes ?? null,
    });
    this.#draw();
  }

  close() {
    this.#history.clear();
  }

  #draw() {
    const { points } = this.#history;
    const last = points[points.length - 1];
    for (const { svg, canvas, words, lines, title, figures } of this.#plots) {
      const width = Math.floor(canvas.clientWidth);
      if (!last || width <= 0) continue;
      const told = figures(last);
      keep(
        words,
        told,
        ([name]) => name,
        ([name, , kind]) => el("span", { class: kind ?? null }, el("span", { class: "figure-name" }, name), " ", el("strong")),
        (element, [, value]) => write(element.lastChild, value),
      );
      const now = told.map(([name, value]) => `${name} ${value}`).join(", ");
      drawPlot(svg, points, lines, width, this.#now, `${title} over the last five minutes; now ${now}.`);
    }
  }
}

/** What the doctor found, each with the command that mends it. */
export class Findings extends Section {
  #list = el("ul", { class: "findings" });
  #well = el("p", { class: "state well" }, "Nothing is wrong, and there is nothing to advise.");

  constructor() {
    super("findings", "Findings");
    fill(this.more, "as lnh doctor has them");
    this.wait("Looking…");
  }

  look({ findings }) {
    if (!findings.length) {
      if (this.body.firstChild !== this.#well) fill(this.body, this.#well);
      return;
    }
    if (this.body.firstChild !== this.#list) fill(this.body, this.#list);
    const checks = new Map(); // what one check found at several places is told together
    for (const each of findings) checks.set(each.check, [...(checks.get(each.check) ?? []), each]);
    keep(
      this.#list,
      [...checks.values()],
      (found) => JSON.stringify(found.map(({ check, where }) => [check, where])),
      (found) => this.#finding(found),
      (element, found) => element.querySelectorAll(".what").forEach((each, number) => write(each, found[number].what)),
    );
  }

  #finding(found) {
    const [{ check, severity, why }] = found;
    return el(
      "li",
      { class: severity },
      el("p", { class: "severity" }, el("span", { class: "tag" }, severity), " ", el("code", {}, check)),
      found.map(() => el("p", { class: "what" })),
      said("p", { class: "why" }, `Why it matters: ${why}.`),
      [...new Set(found.map((each) => each.do))].map((mend) => el("p", { class: "do" }, "Do: ", commands(mend))),
    );
  }
}

/** A text with its commands set apart: they begin with `lnh` or `lnh-member`, and end where the words go on. */
function commands(text) {
  const parts = visible(text).split(/(\blnh(?:-member)? [^;,:()]+)/g);
  return parts.map((part, number) => (number % 2 ? el("code", {}, part.trimEnd()) : part));
}
