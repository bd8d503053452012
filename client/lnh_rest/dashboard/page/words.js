// Puts figures into words. Pure: the time comes in.

const WHOLE = new Intl.NumberFormat(undefined, { maximumFractionDigits: 0 });
const TENTHS = new Intl.NumberFormat(undefined, { minimumFractionDigits: 1, maximumFractionDigits: 1 });
const HUNDREDTHS = new Intl.NumberFormat(undefined, { minimumFractionDigits: 2, maximumFractionDigits: 2 });

export const DASH = "–";

/** A rate or a duration, with as many digits as are worth reading. */
export function figure(value) {
  if (value === null || value === undefined) return DASH;
  if (value === 0) return "0";
  if (Math.abs(value) < 10) return HUNDREDTHS.format(value);
  if (Math.abs(value) < 100) return TENTHS.format(value);
  return WHOLE.format(value);
}

export function whole(value) {
  return WHOLE.format(value);
}

export function plural(count, noun, several = `${noun}s`) {
  return `${whole(count)} ${count === 1 ? noun : several}`;
}

export function bytes(count) {
  const units = ["B", "KiB", "MiB", "GiB", "TiB"];
  let value = count;
  let unit = 0;
  while (value >= 1024 && unit < units.length - 1) {
    value /= 1024;
    unit += 1;
  }
  return `${unit ? figure(value) : whole(value)} ${units[unit]}`;
}

/** How long ago, or how long until: to the nearest unit that says enough. */
export function span(seconds) {
  const left = Math.max(0, Math.round(seconds));
  if (left < 90) return `${left} s`;
  if (left < 90 * 60) return `${Math.round(left / 60)} min`;
  if (left < 36 * 3600) return `${Math.round(left / 3600)} h`;
  return `${Math.round(left / 86400)} days`;
}

/** A moment (milliseconds) as date and time of this machine. */
export function moment(milliseconds) {
  if (!milliseconds) return DASH;
  const date = new Date(milliseconds);
  return `${day(date)} ${clock(milliseconds)}`;
}

/** The time of day of a moment. */
export function clock(milliseconds) {
  return new Date(milliseconds).toLocaleTimeString("en-GB");
}

/** The day of a date, as YYYY-MM-DD of this machine. */
export function day(date) {
  const two = (number) => String(number).padStart(2, "0");
  return `${date.getFullYear()}-${two(date.getMonth() + 1)}-${two(date.getDate())}`;
}

export function list(names) {
  if (names.length < 2) return names.join("");
  return `${names.slice(0, -1).join(", ")} and ${names[names.length - 1]}`;
}

// How a member's state looks: well, on its way, or bad; each has a sign of its own beside the colour.
const LOOKS = { "read-write": "well", "read-only": "warned", joining: "warned", none: "warned" };

export function lookOf(state) {
  return LOOKS[state] ?? "bad";
}

export const SIGNS = { well: "●", warned: "◐", bad: "✕" };
