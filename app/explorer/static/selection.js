/** Which units a question deletes: those of its rules, and those that are added, but for those that are kept. */

import { resolve } from "./catalog.js";
import { change, question } from "./store.js";

/** ruled: by rules; units: all that are deleted; documents: how many those have, null where nobody can say. */
export const NOTHING = { ruled: new Set(), units: new Set(), documents: 0 };

/**
 * Works out what is deleted.
 *
 * dataset is null where the catalog can't be read: units then can be named one by one, and rules can't be followed.
 */
export async function select(dataset, { rules, added, kept }) {
  const found = dataset ? await Promise.all(rules.map(({ kind, value }) => resolve(dataset.name, { [kind]: value }))) : [];
  const ruled = new Set(found.flatMap((one) => one.units));
  const units = new Set([...ruled, ...added]);
  for (const unit of kept) units.delete(unit);
  return { ruled, units, documents: await documentsOf(dataset, found, units, ruled) };
}

async function documentsOf(dataset, found, units, ruled) {
  if (!dataset) return null;
  if (units.size === 0) return 0;
  if (!dataset.has_subjects) return units.size;
  if (found.length === 1 && units.size === ruled.size) return found[0].document_count;
  return (await resolve(dataset.name, { units: [...units] })).document_count;
}

/** The deletion, as the API takes it. */
export function deletion({ rules, added, kept }, units) {
  const [rule] = rules;
  if (rules.length === 1 && rule.kind === "subset" && !added.length && !kept.length) return { subset: rule.value };
  return { units: [...units] };
}

/** Deletes a unit, or keeps it. */
export function toggle(unit, { ruled, units }) {
  const { added, kept } = question();
  if (units.has(unit)) {
    change({ added: added.filter((one) => one !== unit), kept: ruled.has(unit) ? [...kept, unit] : kept });
  } else {
    change({ kept: kept.filter((one) => one !== unit), added: ruled.has(unit) ? added : [...added, unit] });
  }
}

/** Deletes what a rule says, besides what is deleted already. */
export function addRule(kind, value) {
  const { rules } = question();
  if (!rules.some((rule) => rule.kind === kind && rule.value === value)) change({ rules: [...rules, { kind, value }] });
}
