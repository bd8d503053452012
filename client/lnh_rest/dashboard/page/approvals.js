// What waits for a second person, by the policy `dual_control`.

import { el, fill, said } from "./dom.js";
import { confirm } from "./dialogs.js";
import { PATHS } from "./paths.js";
import { Section } from "./sections.js";
import { list, moment, plural, span } from "./words.js";

const EVERY = 15; // seconds between two looks

export class Approvals extends Section {
  #app;
  #due = 0;

  constructor(app) {
    super("approvals", "Approvals");
    this.#app = app;
    this.element.hidden = true;
  }

  look({ overview }) {
    const now = overview.seen.at / 1000;
    if (this.#app.may.has("approve") && now >= this.#due) this.#load(now);
  }

  administer() {
    this.element.hidden = !this.#app.may.has("approve");
    this.#due = 0;
    if (this.element.hidden) fill(this.body);
    else this.#load(Date.now() / 1000);
  }

  async #load(now) {
    this.#due = now + EVERY;
    let found;
    try {
      found = await this.#app.session.every("/v1/approvals");
    } catch (error) {
      this.refuse(error);
      return;
    }
    const waiting = found.filter((each) => each.decision === "waiting" && each.expires > now);
    const others = found.filter((each) => !waiting.includes(each));
    fill(this.more, waiting.length ? `${plural(waiting.length, "request")} waiting` : "");
    if (!found.length) {
      this.empty("Nothing waits for a second person.");
      return;
    }
    if (this.body.contains(document.activeElement)) return; // who is about to decide is not disturbed
    fill(this.body, el("ul", { class: "approvals" }, [...waiting, ...others].map((each) => this.#request(each, waiting.includes(each), now))));
  }

  #request(view, isWaiting, now) {
    const what = Object.entries(view.arguments).map(([name, value]) => `${name} = ${typeof value === "string" ? value : JSON.stringify(value)}`);
    const decided = view.deciders.length ? ` by ${list(view.deciders)}` : "";
    const state = isWaiting ? `waiting, for ${span(view.expires - now)} more` : `${view.decision}${decided}`;
    const buttons = isWaiting
      ? el(
          "div",
          { class: "buttons start" },
          el("button", { type: "button", class: "small", on: { click: () => this.#decide(view, true) } }, "Approve…"),
          el("button", { type: "button", class: "small", on: { click: () => this.#decide(view, false) } }, "Deny…"),
        )
      : null;
    return el(
      "li",
      { class: isWaiting ? "waiting" : null },
      el("p", {}, said("code", {}, view.operation), " ", said("strong", {}, view.about)),
      said("p", { class: "hint" }, what.join(", ")),
      said("p", {}, `asked for by ${list(view.requesters)}, ${moment(view.requested_at * 1000)}; ${state}`),
      buttons,
    );
  }

  #decide(view, approves) {
    const who = list(view.requesters);
    confirm({
      title: `${approves ? "Approve" : "Deny"} ${view.operation}${view.about ? ` of ${view.about}` : ""}?`,
      happens: approves
        ? [
            `${who} may then do this once, and nothing else: exactly what is shown, until ${moment(view.expires * 1000)}.`,
            `Nothing happens by the approval alone: ${who} asks for the same again.`,
            "Both are recorded in the audit trail, with your name.",
          ]
        : [`${who} may not do this; who asks for it again begins anew.`, "It is recorded in the audit trail, with your name."],
      verb: approves ? "Approve" : "Deny",
      isGrave: approves,
      act: async () => {
        await this.#app.act(approves ? PATHS.approve(view.id) : PATHS.deny(view.id));
        this.body.replaceChildren();
        await this.#load(Date.now() / 1000);
        return `${view.operation} by ${who} was ${approves ? "approved" : "denied"}.`;
      },
    });
  }
}
