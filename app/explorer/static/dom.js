/** Elements without markup: every text becomes a text node, so that nothing a stranger wrote is ever parsed. */

const SVG = "http://www.w3.org/2000/svg";

/**
 * An element, such as h("td.number", {title: "of the estimate"}, "3.09").
 * Attributes that begin with "on" are listeners; true sets one without a value; false, null and undefined leave it out.
 */
export function h(selector, attributes = {}, ...children) {
  const [name, ...classes] = selector.split(".");
  return built(document.createElement(name), classes, attributes, children);
}

/** The same for drawings. */
export function svg(selector, attributes = {}, ...children) {
  const [name, ...classes] = selector.split(".");
  return built(document.createElementNS(SVG, name), classes, attributes, children);
}

function built(element, classes, attributes, children) {
  if (classes.length) element.setAttribute("class", classes.join(" "));
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (value === true) element.setAttribute(name, "");
    else if (value !== false && value !== null && value !== undefined) element.setAttribute(name, value);
  }
  element.append(...children.flat(Infinity).filter((child) => child !== null && child !== undefined && child !== false));
  return element;
}

/** The element with an id. */
export const $ = (id) => document.getElementById(id);

/** Shows elements in the place of what an element held. */
export function show(element, ...children) {
  element.replaceChildren(...children.flat(Infinity).filter(Boolean));
}

/** Shows why something was refused, as sentences, or nothing. */
export function showProblem(element, refusal) {
  show(element, refusal && refusal.sentences.map((sentence) => h("p.problem", {}, sentence)));
}

/** Fills a list to choose from. */
export function fill(select, options, chosen) {
  show(select, options.map(([value, text]) => h("option", { value, selected: value === chosen }, text)));
  select.disabled = options.length === 0;
}

/** A table with a caption that is read out, columns (a class for each), and rows of cells. */
export function table(caption, columns, rows) {
  const head = columns.map(([title, kind = ""]) => h(kind ? `th.${kind}` : "th", { scope: "col" }, title));
  const body = rows.map((cells) =>
    h("tr", {}, cells.map((cell, index) => h(columns[index][1] ? `td.${columns[index][1]}` : "td", {}, cell))),
  );
  return h(
    "div.scroll", { tabindex: "0", role: "region", "aria-label": caption },
    h("table", {}, h("caption.sr", {}, caption), h("thead", {}, h("tr", {}, head)), h("tbody", {}, body)),
  );
}
