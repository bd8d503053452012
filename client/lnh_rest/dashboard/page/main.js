// Begins: the login, the session, the events, and what each part of the page is told.

import { Away, Session } from "./api.js";
import { Approvals } from "./approvals.js";
import { Backups } from "./backups.js";
import { capital, field, message, refusal } from "./dialogs.js";
import { el, fill, said, set, visible, write } from "./dom.js";
import { Keyrings } from "./keyrings.js";
import { Findings, Members, Plots, Verdict } from "./overview.js";
import { Trail } from "./trail.js";
import { clock } from "./words.js";

const EVENTS = "/dashboard/events";
const AGAIN = [1, 2, 4, 8]; // seconds until the next try, while the service is away
const OPERATOR = ["view", "backup", "groups"]; // what is offered to who may back up, and may not be shown the roles

const header = document.getElementById("header");
const main = document.getElementById("main");

/** One session's page. */
class Dashboard {
  /** The permissions whose acts are offered: none while one only looks. */
  may = new Set();
  session;
  #user;
  #over = new AbortController();
  #parts;
  #verdict = new Verdict();
  #live = el("p", { class: "live", "data-state": "waiting" }, "connecting");
  #banner = el("div", { class: "banner", role: "alert", hidden: true });
  #toggle = el("button", { type: "button", class: "plain", "aria-pressed": "false" }, "Administer");
  #seenAt = 0;

  constructor(session, user) {
    this.session = session;
    this.#user = user;
    this.#parts = {
      members: new Members(this),
      plots: new Plots(),
      findings: new Findings(),
      backups: new Backups(this),
      keyrings: new Keyrings(this),
      approvals: new Approvals(this),
      trail: new Trail(this),
    };
  }

  async run(administers) {
    const leave = el("button", { type: "button", class: "plain", on: { click: () => this.#leave() } }, "Log out");
    this.#toggle.addEventListener("click", () => this.#switch(!this.may.size));
    const who = said("p", { class: "who" }, this.session.holder);
    who.title = `the session ends at ${clock(this.session.ends)}`;
    fill(header, brand(), this.#live, el("div", { class: "tools" }, who, this.#toggle, leave));
    const { members, plots, findings, backups, keyrings, approvals, trail } = this.#parts;
    fill(
      main,
      el("h1", { class: "unseen" }, "HSM cluster"),
      this.#banner,
      this.#verdict.element,
      members.element,
      el("div", { class: "columns" }, el("div", {}, findings.element, approvals.element), backups.element),
      plots.element,
      keyrings.element,
      trail.element,
    );
    main.focus();
    if (administers) this.#switch(true);
    await this.#listen();
  }

  /** Do what changes something; the service is asked once, however often it is sent. */
  act({ method, path, body, once = false }) {
    return this.session.act(method, path, { body, key: once ? crypto.randomUUID() : null });
  }

  /** End: the token is gone, and so is all that was shown. */
  end() {
    this.#over.abort();
    for (const each of Object.values(this.#parts)) each.close();
    for (const each of document.querySelectorAll("dialog")) each.remove();
  }

  async #leave() {
    this.end();
    await this.session.close();
    logIn("You are logged out.");
  }

  async #switch(on) {
    if (!on) {
      this.may = new Set();
    } else {
      this.#toggle.disabled = true;
      try {
        this.may = await permissions(this.session, this.#user);
      } catch (error) {
        message(`${capital(error.message)}.`, "bad");
      }
      this.#toggle.disabled = false;
    }
    const acts = this.may.size > 0;
    set(this.#toggle, "aria-pressed", acts ? "true" : "false");
    write(this.#toggle, acts ? "Administering" : "Administer");
    document.body.classList.toggle("administering", acts);
    for (const each of Object.values(this.#parts)) each.administer();
  }

  async #listen() {
    let tries = 0;
    while (!this.#over.signal.aborted) {
      try {
        await this.session.listen(EVENTS, (kind, told) => {
          tries = 0;
          this.#hear(kind, told);
        }, this.#over.signal);
      } catch (error) {
        if (this.#over.signal.aborted || this.session.over) return;
        const seconds = AGAIN[Math.min(tries, AGAIN.length - 1)];
        tries += 1;
        this.#trouble(error, `Trying again in ${seconds} s.`);
        await pause(seconds * 1000, this.#over.signal);
      }
    }
  }

  #hear(kind, told) {
    if (kind === "look") {
      this.#seenAt = told.overview.seen.at;
      this.#banner.hidden = true;
      set(this.#live, "data-state", "live");
      write(this.#live, `live, ${clock(this.#seenAt)}`);
      document.title = `${title(told)} – ${visible(told.overview.label)}`;
      this.#verdict.look(told);
      for (const each of Object.values(this.#parts)) each.look(told);
    } else if (kind === "trouble") {
      this.#trouble(Object.assign(new Error(told.detail), told), "");
    } else if (kind === "ended") {
      this.end();
      this.session.close();
      logIn(`The session ended: ${told.detail}. Log in again.`);
    }
  }

  #trouble(error, more) {
    const isAway = error instanceof Away;
    set(this.#live, "data-state", "away");
    write(this.#live, isAway ? "no answer" : "not live");
    const seen = this.#seenAt ? ` What is shown is of ${clock(this.#seenAt)}.` : "";
    const words = isAway ? ["The service does not answer: see whether it runs, and whether this machine has a network. "] : [...refusal(error), " "];
    fill(this.#banner, el("p", {}, words, more, seen));
    this.#banner.hidden = false;
  }
}

function title({ findings }) {
  const problems = findings.filter((each) => each.severity === "problem").length;
  return problems ? `(${problems}) ${problems === 1 ? "problem" : "problems"}` : "Healthy";
}

/**
 * What a user may: by its role, where it may see the roles. Somebody else who may see archives is offered what an operator is;
 * the cluster decides at each act, whatever is offered here.
 */
async function permissions(session, name) {
  const orElse = (instead) => (error) => {
    if (error.error === "PermissionDenied") return instead;
    throw error;
  };
  const users = await session.every("/v1/users").catch(orElse(null));
  if (users) {
    const role = users.find((each) => each.name === name)?.role;
    const roles = await session.every("/v1/roles");
    return new Set(roles.find((each) => each.name === role)?.permissions ?? []);
  }
  const archives = await session.get("/v1/backups", { limit: 1 }).catch(orElse(null));
  if (archives) return new Set(OPERATOR);
  throw new Error(`${name} may look, and change nothing`);
}

function brand() {
  return el("p", { class: "brand" }, el("img", { src: "/dashboard/icon.svg", alt: "", width: "24", height: "24" }), "HSM cluster");
}

/** Show the login, with a word about why. */
function logIn(why = "") {
  document.title = "HSM cluster";
  document.body.classList.remove("administering");
  fill(header, brand());
  const user = el("input", { required: true, autocomplete: "username", maxlength: "64", spellcheck: "false", autocapitalize: "none" });
  const password = el("input", { type: "password", required: true, autocomplete: "current-password" });
  const administers = el("input", { type: "checkbox", id: "administers" });
  const go = el("button", { type: "submit", class: "main" }, "Log in");
  const trouble = el("p", { class: "trouble", role: "alert" });
  const form = el(
    "form",
    { class: "login", "aria-labelledby": "login-title" },
    el("h1", { id: "login-title" }, "Log in"),
    why ? said("p", { class: "why", role: "status" }, why) : null,
    field("User", user),
    field("Password", password),
    el("div", { class: "check" }, administers, el("label", { for: "administers" }, "Administer: offer what changes the cluster")),
    trouble,
    el("div", { class: "buttons" }, go),
  );
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    go.disabled = true;
    fill(trouble);
    const name = user.value;
    try {
      let dashboard = null;
      const session = await Session.open({ as: "user", user: name, password: password.value }, () => {
        dashboard?.end();
        logIn("The session ended. Log in again.");
      });
      password.value = "";
      dashboard = new Dashboard(session, name);
      await dashboard.run(administers.checked);
    } catch (error) {
      if (!form.isConnected) throw error;
      go.disabled = false;
      fill(trouble, refusal(error));
      password.focus();
      password.select();
    }
  });
  fill(main, form);
  user.focus();
}

function pause(milliseconds, signal) {
  return new Promise((resolve) => {
    const timer = setTimeout(resolve, milliseconds);
    signal.addEventListener("abort", () => {
      clearTimeout(timer);
      resolve();
    });
  });
}

logIn();
