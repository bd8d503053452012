// The audit trail: its newest records, and how far they are proven. Reading it is recorded in it, so it is read when asked for.

import { el, fill, said, table } from "./dom.js";
import { refusal } from "./dialogs.js";
import { Section } from "./sections.js";
import { DASH, moment, plural, whole } from "./words.js";

const PAGE = 100;
const DONE = new Set(["ok", "begun"]);

export class Trail extends Section {
  #app;
  #proof = el("p", { class: "proof", role: "status" });
  #table = table("Records of the audit trail", [
    { name: "index", kind: "number" },
    { name: "time" },
    { name: "who" },
    { name: "did" },
    { name: "to" },
    { name: "outcome" },
    { name: "signed" },
    { name: "more" },
  ]);
  #before = 0;
  #older = el("button", { type: "button", class: "small", on: { click: () => this.#load(this.#before) } }, "Older");

  constructor(app) {
    super("trail", "Audit trail", { wide: true });
    this.#app = app;
    this.element.hidden = true;
  }

  administer() {
    const may = this.#app.may.has("audit-export");
    this.element.hidden = !may;
    if (!may) {
      fill(this.body);
      fill(this.tools);
      return;
    }
    fill(this.tools, el("button", { type: "button", class: "small", on: { click: () => this.#load(0) } }, "Read the newest"));
    this.empty("Each reading of the trail is recorded in it.");
  }

  async #load(before) {
    const isFirst = !before;
    if (isFirst) this.wait("Reading and checking…");
    let view;
    try {
      view = await this.#app.session.get("/dashboard/trail", { limit: PAGE, ...(before ? { before } : {}) });
    } catch (error) {
      if (isFirst) this.refuse(error);
      else fill(this.#proof, refusal(error));
      return;
    }
    if (isFirst) {
      fill(this.#table.body);
      fill(this.body, this.#proof, this.#table.frame, el("div", { class: "buttons start" }, this.#older));
    }
    this.#before = view.first;
    this.#older.hidden = view.first <= 1;
    this.#prove(view, isFirst);
    this.#table.body.append(...view.records.map(row));
    fill(this.more, view.records.length ? said("span", {}, `of ${view.records[0].member}`) : null);
    if (isFirst && !view.records.length) this.empty("No record is there.");
  }

  #prove(view, isFirst) {
    const range = `Lines ${whole(view.first)} to ${whole(view.last)}`;
    if (view.problem) {
      this.#proof.className = "proof bad";
      fill(this.#proof, said("strong", {}, "The trail does not hold: "), said("span", {}, view.problem), ". Keep the file as evidence.");
      return;
    }
    if (!isFirst && this.#proof.classList.contains("bad")) return;
    const unsigned = view.unsigned ? `, but for the ${plural(view.unsigned, "newest record", "newest records")}` : "";
    this.#proof.className = "proof well";
    fill(
      this.#proof,
      el("strong", {}, "The chain holds. "),
      `${range} name one another by their hashes`,
      view.signer ? [" and are signed", unsigned, " by the HSM ", el("code", {}, view.signer), "; compare it with ", el("code", {}, "lnh hsm show"), "."] : "; no signature is among them.",
    );
  }
}

function row(record) {
  const detail = Object.entries(record.detail).map(([name, value]) => `${name}=${typeof value === "string" ? value : JSON.stringify(value)}`);
  return el(
    "tr",
    { class: DONE.has(record.outcome) ? null : "refused" },
    el("td", { class: "number" }, whole(record.index)),
    el("td", { class: "time" }, moment(record.time)),
    said("td", {}, record.role ? `${record.identity} (${record.role})` : record.identity || DASH),
    el("td", {}, said("code", {}, record.operation)),
    said("td", { class: "text" }, record.target || DASH),
    said("td", {}, record.outcome),
    el("td", {}, record.signed ? "yes" : "not yet"),
    said("td", { class: "text detail-words" }, detail.join(", ")),
  );
}
