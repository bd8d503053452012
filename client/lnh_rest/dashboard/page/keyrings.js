// Keyrings: which there are, who may see each, and, to who has the credential of its role, what is in it.

import { el, fill, keep, said, table, visible, write } from "./dom.js";
import { confirm, field, message, refusal } from "./dialogs.js";
import { Session, part } from "./api.js";
import { PATHS } from "./paths.js";
import { Section } from "./sections.js";
import { DASH, list, plural, whole } from "./words.js";

const SHOWN = 200; // labels at once; a filter finds the others
const OBJECTS = 1000;
const USES = ["encrypt", "decrypt", "sign", "verify", "wrap", "unwrap", "derive", "encapsulate", "decapsulate"];

export class Keyrings extends Section {
  #app;
  #all = null;
  #counted = -1;
  #chosen = "";
  #filter = el("input", { type: "search", "aria-label": "Filter keyrings", placeholder: "filter", autocomplete: "off" });
  #labels = el("ul", { class: "labels" });
  #rest = el("p", { class: "hint" });
  #detail = el("div", { class: "detail", "aria-live": "polite" });
  #holder = null;

  constructor(app) {
    super("keyrings", "Keyrings", { wide: true });
    this.#app = app;
    this.#filter.addEventListener("input", () => this.#list());
    this.wait("Listing the keyrings…");
  }

  look({ overview }) {
    if (overview.keyrings === this.#counted) return;
    this.#counted = overview.keyrings;
    this.#load();
  }

  administer() {
    if (this.#chosen) this.#choose(this.#chosen);
  }

  close() {
    this.#endHolder();
  }

  async #load() {
    try {
      this.#all = await this.#app.session.every("/v1/keyrings");
    } catch (error) {
      this.#counted = -1;
      if (!this.#all) this.refuse(error);
      return;
    }
    this.#all.sort((one, other) => one.label.localeCompare(other.label, undefined, { numeric: true }));
    write(this.more, plural(this.#all.length, "keyring"));
    if (!this.#all.length) {
      fill(this.tools);
      this.empty("There is no keyring yet: lnh keyring create LABEL makes one, as an admin and the PO together.");
      return;
    }
    if (!this.#labels.isConnected) {
      fill(this.tools, this.#filter);
      fill(this.body, el("div", { class: "beside" }, el("div", {}, this.#labels, this.#rest), this.#detail));
      fill(this.#detail, el("p", { class: "state" }, "Choose a keyring to see its roles, its policy and its clients."));
    }
    if (this.#chosen && !this.#all.some((each) => each.label === this.#chosen)) {
      this.#chosen = "";
      fill(this.#detail, el("p", { class: "state" }, "The keyring is gone."));
    }
    this.#list();
  }

  #list() {
    const wanted = this.#filter.value.toLowerCase();
    const found = this.#all.filter((each) => each.label.toLowerCase().includes(wanted));
    keep(
      this.#labels,
      found.slice(0, SHOWN),
      (each) => each.id,
      (each) =>
        el("li", {}, said("button", { type: "button", class: "label", on: { click: () => this.#choose(each.label) } }, each.label)),
      (element, each) => {
        if (each.label === this.#chosen) element.firstChild.setAttribute("aria-current", "true");
        else element.firstChild.removeAttribute("aria-current");
      },
    );
    const more = found.length - SHOWN;
    write(this.#rest, more > 0 ? `${whole(more)} more: filter by a part of the label` : found.length ? "" : "no label has this in it");
  }

  async #choose(label) {
    if (label !== this.#chosen) this.#endHolder();
    this.#chosen = label;
    this.#list();
    try {
      const view = await this.#app.session.get(`/v1/keyrings/${part(label)}`);
      if (this.#chosen === label) this.#show(view);
    } catch (error) {
      if (this.#chosen === label) fill(this.#detail, el("p", { class: "state trouble" }, refusal(error)));
    }
  }

  #show(view) {
    const { may } = this.#app;
    const policy = Object.entries(view.policy);
    const facts = [
      ["id", el("code", {}, view.id)],
      ["roles", view.roles.length ? list(view.roles) : "none is set"],
      ["objects", whole(view.objects)],
      ["clients", may.has("clients") ? view.clients.length ? said("span", {}, list(view.clients)) : "every registered client" : DASH],
      ["policy", policy.length ? policy.map(([name, value]) => said("div", {}, `${name} = ${spelt(value)}`)) : "the cluster's"],
    ];
    const acts = [];
    if (may.has("clients")) acts.push(el("button", { type: "button", class: "small", on: { click: () => this.#assign(view) } }, "Assign…"));
    acts.push(el("button", { type: "button", class: "small", on: { click: () => this.#open(view) } }, "Show its objects…"));
    fill(
      this.#detail,
      said("h3", {}, view.label),
      el("dl", { class: "facts tight" }, facts.map(([name, value]) => el("div", {}, el("dt", {}, name), el("dd", {}, value)))),
      el("div", { class: "buttons start" }, acts),
      el("div", { class: "objects" }),
    );
    if (this.#holder?.keyring === view.label) this.#objects();
  }

  async #assign(view) {
    let clients;
    try {
      clients = await this.#app.session.every("/v1/clients");
    } catch (error) {
      message(error.message, "bad");
      return;
    }
    const open = clients.filter((each) => !each.revoked && !view.clients.includes(each.name));
    if (!open.length) {
      message(`Every registered client has ${visible(view.label)} assigned already.`);
      return;
    }
    const select = el("select", { required: true }, open.map((each) => said("option", { value: each.name }, each.name)));
    confirm({
      title: `Assign ${view.label} to a client?`,
      happens: view.clients.length
        ? [`The client sees the keyring, beside ${list(view.clients)}.`, "Nobody loses it by this."]
        : [
            "The client sees the keyring, and no other client does any more: by now every registered client sees it.",
            "Sessions that other clients have at this keyring are refused from then on, also those of this service, unless it is the client.",
          ],
      verb: "Assign",
      isGrave: !view.clients.length,
      fields: [field("Client", select)],
      act: async () => {
        await this.#app.act(PATHS.assign(select.value, view.label));
        this.#choose(view.label);
        return `${view.label} is assigned to ${select.value}.`;
      },
    });
  }

  #open(view) {
    const role = el("select", {}, el("option", { value: "krco" }, "KRCO"), el("option", { value: "krso" }, "KRSO"));
    const password = el("input", { type: "password", required: true, autocomplete: "off" });
    confirm({
      title: `Show the objects of ${view.label}?`,
      happens: [
        "Only the keyring's own roles see its objects; no appliance user does. A second session is opened for this, and closed when you choose another keyring, close it, or log out.",
        "No value of a key is shown.",
      ],
      verb: "Show the objects",
      fields: [field("Role", role), field("Password", password)],
      act: async () => {
        this.#endHolder();
        const login = { as: "keyring", keyring: view.label, role: role.value, password: password.value };
        const session = await Session.open(login, () => this.#endHolder());
        this.#holder = { session, keyring: view.label };
        await this.#objects();
        return "";
      },
    });
  }

  async #objects() {
    const place = this.#detail.querySelector(".objects");
    if (!place || !this.#holder) return;
    const { session } = this.#holder;
    let found;
    try {
      found = await session.every("/v1/objects", {}, OBJECTS);
    } catch (error) {
      fill(place, el("p", { class: "state trouble" }, refusal(error)));
      return;
    }
    const close = el("button", { type: "button", class: "small", on: { click: () => this.#endHolder() } }, "Close");
    const head = el("div", { class: "head" }, el("h4", {}, plural(found.length, "object")), el("div", { class: "tools" }, close));
    if (!found.length) {
      fill(place, head, el("p", { class: "state" }, "The keyring holds no object yet."));
      return;
    }
    const { frame, body } = table("Objects", [
      { name: "label" },
      { name: "class" },
      { name: "type" },
      { name: "may" },
      { name: "version", kind: "number" },
      { name: "handle" },
    ]);
    for (const each of found) {
      const { attributes } = each;
      const uses = USES.filter((name) => attributes[name] === true);
      body.append(
        el(
          "tr",
          {},
          said("th", { scope: "row" }, each.label || "(no label)"),
          said("td", {}, attributes.class ?? DASH),
          said("td", {}, attributes.key_type ?? DASH),
          said("td", {}, uses.length ? uses.join(", ") : DASH),
          el("td", { class: "number" }, whole(each.version)),
          el("td", {}, el("code", {}, each.handle)),
        ),
      );
    }
    fill(place, head, frame);
  }

  #endHolder() {
    const holder = this.#holder;
    this.#holder = null;
    holder?.session.close();
    const place = this.#detail.querySelector(".objects");
    if (place) fill(place);
  }
}

function spelt(value) {
  return Array.isArray(value) ? value.join(", ") || "none" : String(value);
}
