// Makes and updates elements. Text is only ever text: nothing here, or in the other modules, parses markup.

const SVG = "http://www.w3.org/2000/svg";

/** Make an element; `on` has its listeners, a property that is null or false is left out. */
export function el(name, properties = {}, ...children) {
  const made = document.createElement(name);
  return filled(made, properties, children);
}

/** Make an element of a drawing. */
export function draw(name, properties = {}, ...children) {
  const made = document.createElementNS(SVG, name);
  return filled(made, properties, children);
}

function filled(made, { on = {}, ...attributes }, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (value === null || value === undefined || value === false) continue;
    made.setAttribute(name, value === true ? "" : String(value));
  }
  for (const [event, listener] of Object.entries(on)) made.addEventListener(event, listener);
  made.append(...flat(children));
  return made;
}

function flat(children) {
  return children.flat(9).filter((each) => each !== null && each !== undefined && each !== false);
}

/** Put these children in place of all there are. */
export function fill(parent, ...children) {
  parent.replaceChildren(...flat(children));
  return parent;
}

/** Write a text where it is another one, so that nothing is announced or selected anew without need. */
export function write(element, text) {
  const wanted = visible(text);
  if (element.textContent !== wanted) element.textContent = wanted;
}

/** Set an attribute where it is another one; null removes it. */
export function set(element, name, value) {
  if (value === null || value === false) element.removeAttribute(name);
  else if (element.getAttribute(name) !== String(value)) element.setAttribute(name, String(value));
}

// Controls, marks of direction, characters of no width, tags: what does not show, or shows as something else.
const UNSEEN = /[\p{Cc}\p{Cf}\p{Zl}\p{Zp}\p{Cs}\p{Co}]/gu;
const JOINERS = new Set(["\u200c", "\u200d"]); // which Persian and emoji need

/** Spell what does not show: names come from others, and two must not look the same. */
export function visible(text) {
  return String(text ?? "").replace(UNSEEN, (found) => {
    if (JOINERS.has(found)) return found;
    return `\\u{${found.codePointAt(0).toString(16)}}`;
  });
}

/** Make an element with a text from outside. */
export function said(name, properties, text) {
  return el(name, properties, visible(text));
}

/**
 * Bring the children of a parent in step with items, keeping the elements of those that stay: who has the focus in one, or
 * selects its text, keeps it.
 */
export function keep(parent, items, key, make, update = () => {}) {
  const had = new Map([...parent.children].map((each) => [each.dataset.key, each]));
  let before = null;
  for (const item of items) {
    const name = key(item);
    let element = had.get(name);
    if (element) had.delete(name);
    else {
      element = make(item);
      element.dataset.key = name;
    }
    update(element, item);
    const next = before ? before.nextSibling : parent.firstChild;
    if (next !== element) parent.insertBefore(element, next);
    before = element;
  }
  for (const gone of had.values()) gone.remove();
}

/** Make a table in a frame that scrolls by keyboard too. */
export function table(label, columns, { id = null } = {}) {
  const body = el("tbody");
  const head = columns.map(({ name, kind = "", hidden = false }) =>
    el("th", { scope: "col", class: kind || null }, hidden ? el("span", { class: "unseen" }, name) : name),
  );
  const made = el("table", { id }, el("caption", { class: "unseen" }, label), el("thead", {}, el("tr", {}, head)), body);
  const frame = el("div", { class: "scrolls", role: "region", "aria-label": label, tabindex: "0" }, made);
  return { frame, body };
}
