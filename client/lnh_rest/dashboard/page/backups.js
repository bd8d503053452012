// Backups: how the schedule is kept, a calendar of the archives, and one more of them on demand.

import { el, fill, said, table, visible, write } from "./dom.js";
import { confirm } from "./dialogs.js";
import { PATHS } from "./paths.js";
import { Section } from "./sections.js";
import { DASH, bytes, clock, day, moment, plural, span, whole } from "./words.js";

const WEEKS = 5;
const DAYS = ["Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun"];
const ARCHIVES = 250; // in the calendar, ...
const LISTED = 6; // ... and in the list below it
const LOOK_EVERY = 500; // milliseconds, while an archive is made

export class Backups extends Section {
  #app;
  #facts = el("dl", { class: "facts tight" });
  #calendar = el("div", { class: "calendar-place" });
  #archives = el("div");
  #found = null; // archives of the member that answers
  #member = "";
  #told = null; // by the members, of the schedule
  #drawn = "";

  constructor(app) {
    super("backups", "Backups");
    this.#app = app;
    fill(this.body, this.#facts, this.#calendar, this.#archives);
  }

  look({ overview }) {
    const told = overview.seen.members.map((each) => each.figures?.backup).filter(Boolean);
    const latest = told.reduce((best, each) => (!best || each.last > best.last ? each : best), null);
    this.#told = latest;
    const now = overview.seen.at / 1000;
    const running = told.map((each) => each.running).filter(Boolean);
    const facts = latest
      ? [
          ["schedule", latest.schedule === "none" ? "none" : latest.schedule],
          ["next", latest.next ? `${moment(latest.next * 1000)}, in ${span(latest.next - now)}` : DASH],
          ["last run", latest.last ? `${moment(latest.last * 1000)}, by ${latest.last_member}${latest.last_problem ? `: ${latest.last_problem}` : ""}` : DASH],
          ["archives", told.map((each) => whole(each.backups)).join(" + ") || DASH],
        ]
      : [["schedule", "no member tells"]];
    if (latest?.overdue) facts.push(["overdue", "yes"]);
    if (running.length) facts.push(["under way", running.join(", ")]);
    const words = JSON.stringify(facts);
    if (words === this.#drawn) return;
    this.#drawn = words;
    fill(this.#facts, facts.map(([name, value]) => el("div", {}, el("dt", {}, name), said("dd", {}, value))));
    this.#days();
  }

  administer() {
    if (!this.#app.may.has("backup")) {
      this.#found = null;
      fill(this.tools);
      fill(this.#archives);
      this.#days();
      return;
    }
    fill(this.tools, el("button", { type: "button", class: "small", on: { click: () => this.#backUp() } }, "Back up now…"));
    this.#load();
  }

  async #load() {
    try {
      const page = await this.#app.session.get(PATHS.archives, { limit: ARCHIVES });
      this.#member = page.member;
      this.#found = page.items;
    } catch (error) {
      fill(this.#archives, said("p", { class: "state trouble" }, error.message));
      return;
    }
    this.#days();
    this.#list();
  }

  /** The last weeks, and the one with the next run. */
  #days() {
    const today = new Date();
    const monday = new Date(today.getFullYear(), today.getMonth(), today.getDate() - ((today.getDay() + 6) % 7));
    const first = new Date(monday.getFullYear(), monday.getMonth(), monday.getDate() - 7 * (WEEKS - 2));
    const marks = new Map();
    const mark = (milliseconds, kind) => {
      const name = day(new Date(milliseconds));
      marks.set(name, [...(marks.get(name) ?? []), kind]);
    };
    for (const each of this.#found ?? []) if (each.created_at) mark(each.created_at * 1000, "archive");
    if (this.#told?.last) mark(this.#told.last * 1000, this.#told.last_problem ? "failed" : "run");
    if (this.#told?.next) mark(this.#told.next * 1000, "next");
    const rows = [];
    for (let week = 0; week < WEEKS; week += 1) {
      const cells = DAYS.map((_, number) => {
        const date = new Date(first.getFullYear(), first.getMonth(), first.getDate() + 7 * week + number);
        return dayCell(date, marks.get(day(date)) ?? [], day(date) === day(today));
      });
      rows.push(el("tr", {}, cells));
    }
    const head = el("tr", {}, DAYS.map((name) => el("th", { scope: "col" }, name)));
    fill(
      this.#calendar,
      el("table", { class: "calendar" }, el("caption", { class: "unseen" }, "Backups by day"), el("thead", {}, head), el("tbody", {}, rows)),
      el(
        "p",
        { class: "legend" },
        el("span", {}, el("i", { class: "mark archive" }), " archive"),
        el("span", {}, el("i", { class: "mark run" }), " last run"),
        el("span", {}, el("i", { class: "mark next" }), " next run"),
      ),
    );
  }

  #list() {
    const newest = [...this.#found].sort((one, other) => other.created_at - one.created_at);
    if (!newest.length) {
      fill(this.#archives, el("p", { class: "state" }, `${visible(this.#member)} has no archive yet.`));
      return;
    }
    const { frame, body } = table("Archives", [
      { name: "archive" },
      { name: "made" },
      { name: "size", kind: "number" },
    ]);
    for (const each of newest.slice(0, LISTED)) {
      body.append(
        el(
          "tr",
          {},
          said("th", { scope: "row" }, each.name),
          each.problem ? said("td", { class: "state bad" }, each.problem) : el("td", { class: "time" }, moment(each.created_at * 1000)),
          el("td", { class: "number" }, bytes(each.size)),
        ),
      );
    }
    const more = newest.length - LISTED;
    fill(
      this.#archives,
      el("h3", {}, `On the disk of ${visible(this.#member)}`),
      frame,
      more > 0 ? el("p", { class: "hint" }, `and ${plural(more, "older one")}: lnh backup list`) : null,
    );
  }

  #backUp() {
    const where = this.#member || "the member that answers";
    confirm({
      title: "Back up the cluster now?",
      happens: [
        `${where} writes one archive of the whole cluster, as it is at this moment, to its own disk: keyrings, sealed objects, users, clients and policies.`,
        "It is encrypted: an HSM that has the SMK opens it, and nobody else. Copy it to another machine: lnh backup download.",
        "The cluster goes on meanwhile.",
      ],
      verb: "Back up",
      act: async (tell) => {
        let job = await this.#app.act(PATHS.backUp());
        while (job.state === "running") {
          tell(`${job.step || "working"}${job.total ? `, ${bytes(job.done)} of ${bytes(job.total)}` : ""}…`);
          await new Promise((resolve) => setTimeout(resolve, LOOK_EVERY));
          job = await this.#app.session.get(PATHS.job(job.id));
        }
        if (job.state !== "done") throw failed(job);
        await this.#load();
        return `${job.archive} was made.`;
      },
    });
  }
}

function dayCell(date, kinds, isToday) {
  const archives = kinds.filter((each) => each === "archive").length;
  const words = [
    archives ? plural(archives, "archive") : "",
    kinds.includes("run") ? "last run" : "",
    kinds.includes("failed") ? "last run, failed" : "",
    kinds.includes("next") ? "next run" : "",
  ].filter(Boolean);
  const marks = [...new Set(kinds)].map((kind) => el("i", { class: `mark ${kind}` }));
  return el(
    "td",
    { class: isToday ? "today" : null, "aria-current": isToday ? "date" : null },
    el("span", { class: "date" }, String(date.getDate())),
    el("span", { class: "marks", "aria-hidden": "true" }, marks, archives > 1 ? String(archives) : null),
    words.length ? el("span", { class: "unseen" }, ` ${words.join(", ")}`) : null,
  );
}

function failed(job) {
  const error = new Error(job.problem?.detail ?? "the backup failed");
  error.advice = job.problem?.advice ?? "";
  error.status = job.problem?.status ?? 0;
  error.about = {};
  return error;
}
