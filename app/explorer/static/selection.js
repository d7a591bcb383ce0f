/** Which units a question deletes: those of its rules, and those that are added, but for those that are kept. */

import { NOT_ASKED, Refusal } from "./api.js";
import { resolve } from "./catalog.js";
import { change, question } from "./store.js";

/** rules: what was followed; ruled: units by them; units: all that are deleted; refusals: why some can't be followed. */
export const NOTHING = { rules: [], ruled: new Set(), units: new Set(), refusals: [] };

const UNREADABLE = new Refusal(NOT_ASKED, ["This key may not read the catalog (catalog:read), so that rules can’t be followed: name units instead."]);

/** The one subset that is all of a deletion; the API knows its units by itself. */
export function loneSubset({ rules, added, kept }) {
  return rules.length === 1 && rules[0].kind === "subset" && !added.length && !kept.length ? rules[0].value : null;
}

/**
 * Works out what is deleted, one rule after the other.
 *
 * dataset is its name, null where the catalog can't be read: units then can be named, and rules can't be followed.
 */
export async function select(dataset, { rules, added, kept }, signal) {
  const [ruled, refusals] = [new Set(), []];
  if (dataset === null && rules.length) refusals.push(UNREADABLE);
  for (const { kind, value } of dataset === null ? [] : rules) {
    try {
      for (const unit of (await resolve(dataset, { [kind]: value })).units) ruled.add(unit);
    } catch (refusal) {
      if (!(refusal instanceof Refusal)) throw refusal;
      refusals.push(refusal);
    }
    signal.throwIfAborted();
  }
  const units = new Set([...ruled, ...added]);
  for (const unit of kept) units.delete(unit);
  return { rules, ruled, units, refusals };
}

/** The deletion, as the API takes it; null where nothing is deleted, or a rule can't be followed. */
export function deletion(asked, { units, refusals }) {
  const subset = loneSubset(asked);
  if (subset !== null && (units.size || refusals[0] === UNREADABLE)) return { subset };
  return units.size && !refusals.length ? { units: [...units] } : null;
}

/** Deletes a unit, or keeps it: whatever the rules say of it, where they haven't been followed yet. */
export function toggle(unit, { rules: followed, ruled, refusals }, deleted) {
  const { rules, ...asked } = question();
  const isFollowed = JSON.stringify(rules) === JSON.stringify(followed) && refusals.every((one) => one === UNREADABLE);
  const added = asked.added.filter((one) => one !== unit);
  const kept = asked.kept.filter((one) => one !== unit);
  if (deleted && !(isFollowed && ruled.has(unit))) added.push(unit);
  if (!deleted && (isFollowed ? ruled.has(unit) : rules.length)) kept.push(unit);
  change({ added, kept });
}

/** Deletes what a rule says, besides what is deleted already. */
export function addRule(kind, value) {
  const { rules } = question();
  if (!rules.some((rule) => rule.kind === kind && rule.value === value)) change({ rules: [...rules, { kind, value }] });
}
