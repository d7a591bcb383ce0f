/** Numbers and texts as they are read. */

import { h } from "./dom.js";

/** What doesn't print, or turns the direction of writing, is shown as its number. */
const UNSEEN = /[\p{C}\p{Zl}\p{Zp}\u00ad\u034f\u115f\u1160\u3164\ufeff]/gu;
const LONGEST = 120;

/** A stranger's text on one line, shortened. */
export function shown(text, most = LONGEST) {
  const cut = text.length > most ? `${text.slice(0, most - 1)}…` : text;
  return cut.replace(UNSEEN, (one) => `\\u{${one.codePointAt(0).toString(16)}}`);
}

/** The same as an element, apart from the direction of what surrounds it. */
export const quoted = (text, most) => h("bdi.text", {}, shown(text, most) || "∅");

/** How many decimals tell an interval: its width has two figures. */
export function decimalsOf(low, high) {
  const width = Math.abs(high - low);
  return width > 0 ? Math.min(6, Math.max(2, Math.ceil(-Math.log10(width)) + 1)) : 4;
}

/** A number as it is read, which holds the number as it was answered. */
export function number(value, decimals = 2) {
  return h("data", { value: String(value) }, rounded(value, decimals));
}

/** A change: with its sign. */
export function signed(value, decimals = 2) {
  return h("data", { value: String(value) }, `${value > 0 ? "+" : ""}${rounded(value, decimals)}`);
}

function rounded(value, decimals) {
  const text = value.toFixed(decimals);
  return (Number(text) === 0 ? text.replace("-", "") : text).replace("-", "−");
}

/** "1,000 units"; the plural is the singular with an s. */
export const count = (number, noun) => `${number.toLocaleString("en")} ${noun}${number === 1 ? "" : "s"}`;

/** 0.9 → "90%", 0.995 → "99.5%". */
export const percent = (share) => `${Number((100 * share).toFixed(1))}%`;

/** Three figures: 0.000123, 12.3, 4,210. */
export const figures = (value) => Number(value.toPrecision(3)).toLocaleString("en", { maximumSignificantDigits: 3 });

export const bytes = (value) =>
  value < 1e6 ? `${figures(value / 1e3)} kB` : value < 1e9 ? `${figures(value / 1e6)} MB` : `${figures(value / 1e9)} GB`;

export const seconds = (value) =>
  value < 120 ? `${figures(value)} s` : value < 7200 ? `${figures(value / 60)} min` : `${figures(value / 3600)} h`;

/** A moment that the API answered, in the reader's own time zone. */
export function moment(text) {
  const at = new Date(text);
  const words = at.toLocaleString("en-GB", { dateStyle: "medium", timeStyle: "short" });
  return h("time", { datetime: text, title: at.toISOString() }, words);
}

/** How far away a moment is: "in 12 days", "3 hours ago". */
export function fromNow(text) {
  const apart = (new Date(text) - Date.now()) / 1000;
  const units = [["day", 86400], ["hour", 3600], ["minute", 60]];
  const [unit, size] = units.find(([, size]) => Math.abs(apart) >= size) ?? ["minute", 60];
  return new Intl.RelativeTimeFormat("en", { numeric: "always" }).format(Math.trunc(apart / size), unit);
}

/** What is measured, as a part of a sentence. */
export function measured(measurement) {
  const { kind, text, prompt, completion } = measurement;
  if (kind === "loss") return ["the loss on ", quoted(text)];
  if (kind === "next_token") return ["the character after ", prompt ? quoted(prompt) : "the start"];
  return ["the log-probability of ", quoted(completion), ...(prompt ? [" after ", quoted(prompt)] : [" at the start"])];
}

/** What is measured, in one text, for lists to choose from and labels. */
export function label(measurement) {
  const { kind, text, prompt, completion } = measurement;
  if (kind === "loss") return `loss on “${shown(text, 40)}”`;
  if (kind === "next_token") return `character after “${shown(prompt, 40)}”`;
  return `log-probability of “${shown(completion, 40)}” after “${shown(prompt, 40)}”`;
}

export const UNITS = { loss: "nats per token", log_probability: "nats", next_token: "probability" };

/** Which estimator answered, in words. */
export const ESTIMATORS = {
  retrained: "The model was really retrained without this very set",
  axes: "axes: what each unit does alone, added up",
  pairs: "pairs: units alone and what every two do together, from models retrained without them",
  hybrid: "hybrid: units alone, and their interactions from random directions",
  interpolation: "interpolation: units alone, and the smallest interactions that agree with all random directions",
  regression: "regression: units alone, weighted as fits the similar sets that the model was retrained without",
  sphere: "sphere: an average over random directions",
};
