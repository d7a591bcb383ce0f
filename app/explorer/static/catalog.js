/** What the catalog holds, asked once. Datasets and versions never change; what is promoted or erased is seen on reload. */

import { get, post } from "./api.js";

const MOST = 1000;
const kept = new Map();

/** Forgets everything, as another key may see something else. */
export const forget = () => kept.clear();

function once(name, ask) {
  if (!kept.has(name)) {
    const asked = ask();
    kept.set(name, asked);
    asked.catch(() => kept.delete(name));
  }
  return kept.get(name);
}

const part = encodeURIComponent;

export const sketches = () => once("sketches", async () => (await get("/sketches", { limit: MOST })).items);

/** A sketch with its versions, its dataset and the dataset's subsets. */
export const about = (sketch) =>
  once(`sketch ${sketch}`, async () => {
    const row = await get(`/sketches/${part(sketch)}`);
    const [versions, dataset, subsets] = await Promise.all([
      get(`/sketches/${part(sketch)}/versions`, { limit: MOST }),
      get(`/datasets/${part(row.dataset)}`),
      get(`/datasets/${part(row.dataset)}/subsets`, { limit: MOST }),
    ]);
    return { ...row, versions: versions.items, dataset, subsets: subsets.items };
  });

export const build = (sketch, version) =>
  once(`build ${version} ${sketch}`, () => get(`/sketches/${part(sketch)}/versions/${version}/build`));

/** The units that a rule deletes: {unit_count, document_count, units}. */
export const resolve = (dataset, rule) =>
  once(`rule ${dataset} ${JSON.stringify(rule)}`, () => post(`/datasets/${part(dataset)}/resolve`, rule));

/** A part of the documents of a dataset, those with a substring or a match. */
export const documents = (dataset, filter, signal) => get(`/datasets/${part(dataset)}/documents`, filter, { signal });

/** A part of the units of a dataset, those whose names contain something. */
export const units = (dataset, filter, signal) => get(`/datasets/${part(dataset)}/units`, filter, { signal });
