/** The question that all views share. It lives in the page's address: what is there is all there is. */

import { parse, write } from "./address.js";

let address = location.hash; // which the state is of
let state = parse(address);
let told = null; // the address that was told last
const followers = [];

/** What a verification is of: where one of these changes, it is of another question. */
const DELETION = ["sketch", "version", "rules", "added", "kept"];

/** Whether two questions are of the same model, and delete the same. */
export const deletesTheSame = (one, other) => DELETION.every((name) => JSON.stringify(one[name]) === JSON.stringify(other[name]));

export function question() {
  read();
  return state.question;
}

/** Calls back with every change of the view or the question. */
export const follow = (callback) => followers.push(callback);

/** Changes parts of the question; the address follows without a new entry in the history. */
export function change(parts) {
  read();
  const other = DELETION.some((name) => name in parts) ? { verification: "" } : {};
  state = { view: state.view, question: { ...state.question, ...other, ...parts } };
  history.replaceState(null, "", write(state.view, state.question));
  address = location.hash;
  tell();
}

export function tell() {
  read();
  told = address;
  for (const callback of followers) callback(state.view, state.question);
}

/** Takes over what the address says by now, of which the browser tells only a moment later. */
function read() {
  if (location.hash === address || !/^(#\/|$)/.test(location.hash)) return;
  address = location.hash;
  state = parse(address);
}

window.addEventListener("hashchange", () => {
  read();
  if (address !== told) tell();
});
