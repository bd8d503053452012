// Asks before anything is changed: says what will happen, does it, and says what became of it.

import { el, fill, said, visible } from "./dom.js";

let number = 0;

/**
 * Ask, and act when confirmed.
 *
 * @param title what is to be done, as a question.
 * @param happens sentences: what will happen.
 * @param verb the button that does it.
 * @param fields elements for the form; `act` reads them.
 * @param act does it; resolves to a sentence for the messages, and may `tell` how far it is.
 */
export function confirm({ title, happens, verb, fields = [], act, isGrave = false }) {
  const name = `dialog-${(number += 1)}`;
  const words = el("div", { id: `${name}-words` });
  fill(words, happens.length > 1 ? el("ul", {}, happens.map((each) => said("li", {}, each))) : said("p", {}, happens[0]));
  const trouble = el("p", { class: "trouble", role: "alert" });
  const progress = el("p", { class: "progress", role: "status" });
  const cancel = el("button", { type: "button", class: "plain" }, "Cancel");
  const go = el("button", { type: "submit", class: isGrave ? "grave" : "main" }, visible(verb));
  const form = el("form", { method: "dialog" }, words, fields, progress, trouble, el("div", { class: "buttons" }, cancel, go));
  const dialog = el(
    "dialog",
    { "aria-labelledby": `${name}-title`, "aria-describedby": `${name}-words` },
    said("h2", { id: `${name}-title` }, title),
    form,
  );
  let isActing = false;
  const back = document.activeElement;
  const close = () => {
    if (!isActing) dialog.close();
  };
  cancel.addEventListener("click", close);
  dialog.addEventListener("cancel", (event) => {
    if (isActing) event.preventDefault();
  });
  dialog.addEventListener("close", () => {
    dialog.remove();
    if (back?.isConnected) back.focus();
  });
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    if (isActing) return;
    isActing = true;
    go.disabled = cancel.disabled = true;
    fill(trouble);
    fill(progress, "Asking the cluster…");
    try {
      const done = await act((text) => fill(progress, visible(text)));
      isActing = false;
      dialog.close();
      if (done) message(done);
    } catch (error) {
      isActing = false;
      go.disabled = cancel.disabled = false;
      fill(progress);
      fill(trouble, refusal(error));
      go.focus();
    }
  });
  document.body.append(dialog);
  dialog.showModal();
  (fields.length ? dialog.querySelector("select, input") : cancel)?.focus();
  return dialog;
}

/** What was refused, and what to do, as nodes. */
export function refusal(error) {
  if (error.error === "ApprovalNeeded") {
    const id = error.about.approval ? ` Its id is ${visible(error.about.approval)}.` : "";
    return [`This waits for a second person now.${id} Once another user has approved it, do the same again.`];
  }
  if (error.status === undefined) console.error(error);
  return [visible(capital(error.message)), error.advice ? ` – ${visible(error.advice)}` : "", error.advice ? "" : "."];
}

export function capital(text) {
  return text ? text[0].toUpperCase() + text.slice(1) : text;
}

/** Tell something for some seconds, also to who does not see it. */
export function message(text, kind = "") {
  const told = said("p", { class: `message ${kind}` }, text);
  document.getElementById("messages").append(told);
  setTimeout(() => told.remove(), 8000);
}

/** A field with its label. */
export function field(label, control, hint = "") {
  const name = `field-${(number += 1)}`;
  control.id = name;
  const words = hint ? el("span", { class: "hint", id: `${name}-hint` }, hint) : null;
  if (hint) control.setAttribute("aria-describedby", `${name}-hint`);
  return el("div", { class: "field" }, el("label", { for: name }, label), control, words);
}
