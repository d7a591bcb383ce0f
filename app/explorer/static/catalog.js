/** What the catalog holds, asked once: datasets and versions never change. What is promoted or erased is seen on reload. */

import { get, part, post } from "./api.js";

const MOST = 1000;
const MOST_KEPT = 100;
const kept = new Map();

/** Forgets everything, as another key may see something else. */
export const forget = () => kept.clear();

function once(name, ask) {
  if (!kept.has(name)) {
    const asked = ask();
    kept.set(name, asked);
    asked.catch(() => kept.delete(name));
    if (kept.size > MOST_KEPT) kept.delete(kept.keys().next().value);
  }
  return kept.get(name);
}

export const sketches = () => once("sketches", async () => (await get("/sketches", { limit: MOST })).items);

const versions = (sketch) =>
  once(`versions ${sketch}`, async () => (await get(`/sketches/${part(sketch)}/versions`, { limit: MOST })).items);

const dataset = (name) =>
  once(`dataset ${name}`, async () => {
    const [row, subsets] = await Promise.all([
      get(`/datasets/${part(name)}`), get(`/datasets/${part(name)}/subsets`, { limit: MOST }),
    ]);
    return { ...row, subsets: subsets.items };
  });

/**
 * What a question about a sketch is about: {versions, row, dataset}. The row is of the version, or of the current one;
 * the dataset is what that version was built from, and no other: after an erasure a sketch's versions have several.
 * The row, and with it the dataset, is undefined where there is no such version.
 */
export async function about(sketch, version) {
  const all = await versions(sketch);
  const row = all.find((one) => (version === null ? one.is_current : one.number === version));
  return { versions: all, row, dataset: row && (await dataset(row.dataset)) };
}

export const build = (sketch, version) =>
  once(`build ${version} ${sketch}`, () => get(`/sketches/${part(sketch)}/versions/${version}/build`));

/** The units that a rule deletes: {unit_count, document_count, units}. */
export const resolve = (name, rule) => once(`rule ${name} ${JSON.stringify(rule)}`, () => deletes(name, rule));

/** The same of any deletion, not remembered. */
export const deletes = (name, deletion, signal) => post(`/datasets/${part(name)}/resolve`, deletion, { signal });

/** A part of the documents of a dataset, those with a substring or a match. */
export const documents = (name, filter, signal) => get(`/datasets/${part(name)}/documents`, filter, { signal });

/** A part of the units of a dataset, those whose names contain something. */
export const units = (name, filter, signal) => get(`/datasets/${part(name)}/units`, filter, { signal });
