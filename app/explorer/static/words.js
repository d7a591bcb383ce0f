/** Numbers and texts as they are read. */

import { h } from "./dom.js";

/** What doesn't print, or turns the direction of writing, is shown as its number. */
const UNSEEN = /[\p{C}\p{Zl}\p{Zp}\u00ad\u034f\u115f\u1160\u3164\ufeff]/gu;
const LONGEST = 120;
const LARGE = 1e6;
const MOST_DECIMALS = 8;
const AS_COMPUTED = 12; // decimals and more have numbers that nobody rounded

/** A stranger's text on one line, shortened. */
export function shown(text, most = LONGEST) {
  const cut = text.length > most ? `${text.slice(0, most - 1)}…` : text;
  return cut.replace(UNSEEN, (one) => `\\u{${one.codePointAt(0).toString(16)}}`);
}

/** The same as an element, apart from the direction of what surrounds it. */
export const quoted = (text, most) => h("bdi.text", {}, shown(text, most) || "∅");

/** How many decimals tell an interval: its width has two figures. */
export const decimalsOf = (low, high) => decimalsFor(Math.abs(high - low), 2);

/** How many decimals show so many figures of a number. */
export function decimalsFor(value, figures) {
  if (!(value > 0)) return 4;
  return Math.min(MOST_DECIMALS, Math.max(2, Math.ceil(-Math.log10(value)) + figures - 1));
}

/** How many decimals numbers were answered with: a key may get rounded ones. Infinity where they weren't. */
export function precisionOf(values) {
  const most = Math.max(...values.map((value) => String(value).split(".")[1]?.length ?? 0));
  return most >= AS_COMPUTED || values.some((value) => String(value).includes("e")) ? Infinity : most;
}

/** A number as it is read, which holds the number as it was answered. */
export function number(value, decimals = 2) {
  return h("data", { value: String(value) }, rounded(value, decimals));
}

/** A change: with its sign. */
export function signed(value, decimals = 2) {
  const text = rounded(value, decimals);
  return h("data", { value: String(value) }, `${value > 0 && Number(text) !== 0 ? "+" : ""}${text}`);
}

function rounded(value, decimals) {
  if (Math.abs(value) >= LARGE) return value.toExponential(2).replaceAll("-", "−").replace("e+", "e");
  const text = value.toFixed(Math.min(decimals, MOST_DECIMALS));
  return (Number(text) === 0 ? text.replace("-", "") : text).replace("-", "−");
}

/** "1,000 units"; the plural is the singular with an s. */
export const count = (number, noun) => `${number.toLocaleString("en")} ${noun}${number === 1 ? "" : "s"}`;

/** 0.9 → "90%", 0.9996 → "99.96%": never 100% of what is less. */
export function percent(share) {
  const text = (100 * share).toFixed(share > 0.999 && share < 1 ? 3 : 1);
  return `${Number(text)}%`;
}

/** Three figures: 0.000123, 12.3, 4,210. */
export const figures = (value) =>
  value !== 0 && (Math.abs(value) >= LARGE || Math.abs(value) < 1e-6)
    ? value.toExponential(2)
    : Number(value.toPrecision(3)).toLocaleString("en", { maximumSignificantDigits: 3 });

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
  if (kind === "next_token") return prompt ? ["the character after ", quoted(prompt)] : ["the first character"];
  return ["the log-probability of ", quoted(completion), ...(prompt ? [" after ", quoted(prompt)] : [" at the start"])];
}

/** What is measured, in one text, for lists to choose from and labels. */
export function label(measurement) {
  const { kind, text, prompt, completion } = measurement;
  if (kind === "loss") return `loss on “${shown(text, 40)}”`;
  if (kind === "next_token") return prompt ? `character after “${shown(prompt, 40)}”` : "first character";
  return `log-probability of “${shown(completion, 40)}” ${prompt ? `after “${shown(prompt, 40)}”` : "at the start"}`;
}

/** The same at the beginning of a sentence. */
export const capital = ([first, ...rest]) => [first[0].toUpperCase() + first.slice(1), ...rest];

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
