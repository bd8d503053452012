// What the parts of the page have in common: a heading, a place for tools, and a body.

import { el, fill } from "./dom.js";
import { refusal } from "./dialogs.js";

export class Section {
  /** Make a section; `more` says beside the title what it is about. */
  constructor(name, title, { wide = false } = {}) {
    this.tools = el("div", { class: "tools" });
    this.more = el("p", { class: "more" });
    this.body = el("div", { class: "body" });
    this.element = el(
      "section",
      { id: name, "aria-labelledby": `${name}-title`, class: wide ? "wide" : null },
      el("div", { class: "head" }, el("h2", { id: `${name}-title` }, title), this.more, this.tools),
      this.body,
    );
  }

  /** Show that something is awaited. */
  wait(words) {
    fill(this.body, el("p", { class: "state waiting" }, words));
  }

  /** Show that there is nothing, and what would be here. */
  empty(words) {
    fill(this.body, el("p", { class: "state" }, words));
  }

  /** Show that it was refused, or nothing answered. */
  refuse(error) {
    fill(this.body, el("p", { class: "state trouble", role: "alert" }, refusal(error)));
  }

  /** Take a look of the whole cluster. */
  look() {}

  /** Show or hide what changes something. */
  administer() {}

  /** Give up what it holds: the session ends. */
  close() {}
}
