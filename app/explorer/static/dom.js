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

/** Shows why something was refused, as sentences, with a way to try again where there is one; or nothing. */
export function showProblem(element, refusal, again) {
  if (refusal && !refusal.sentences) throw refusal; // a fault of ours, which the console shall tell
  const retry = refusal && again && h("button.quiet", { type: "button", onclick: () => {
    element.tabIndex = -1; // the button goes, and the keyboard stays here
    element.focus();
    again();
  } }, "Try again");
  show(element, refusal && h("div.problem", {}, refusal.sentences.map((sentence) => h("p", {}, sentence)), retry));
}

/** Fills a list to choose from. */
export function fill(select, options, chosen) {
  show(select, options.map(([value, text]) => h("option", { value, selected: value === chosen }, text)));
  select.disabled = options.length === 0;
}

/** Writes what the address says into a field, where that is another thing than before: what is being typed stays. */
export function sync(input, value) {
  if (input.dataset.said === String(value)) return;
  input.dataset.said = value;
  if (input.value !== String(value)) input.value = value;
}

/** What a field holds, which the address is about to say. */
export function taken(input) {
  input.dataset.said = input.value;
  return input.value;
}

/** Whether the keyboard is in a place, or nowhere, as where what it was on has gone. */
export const isAt = (place) => document.activeElement === document.body || place.contains(document.activeElement);

/** Whether a button does something now; it keeps the focus either way. */
export function enable(button, does) {
  button.setAttribute("aria-disabled", String(!does));
}

export const isEnabled = (button) => button.getAttribute("aria-disabled") !== "true";

// Only what scrolls is a stop of the keyboard's.
const scrolling = new ResizeObserver((entries) => {
  for (const { target } of entries) {
    if (target.scrollWidth > target.clientWidth) target.setAttribute("tabindex", "0");
    else target.removeAttribute("tabindex");
  }
});

/** A table with a caption that is read out, columns (a title, and a class for each), and rows of cells. */
export function table(caption, columns, rows) {
  const head = columns.map(([title, kind = ""]) => h(kind ? `th.${kind}` : "th", { scope: "col" }, title));
  const body = rows.map((cells) =>
    h("tr", {}, cells.map((cell, index) => h(columns[index][1] ? `td.${columns[index][1]}` : "td", {}, cell))),
  );
  const place = h(
    "div.scroll", { role: "region", "aria-label": caption },
    h("table", {}, h("caption.sr", {}, caption), h("thead", {}, h("tr", {}, head)), h("tbody", {}, body)),
  );
  scrolling.observe(place);
  return place;
}

/** Buttons to turn the pages of a list; turn(offset) shows another one, after which the same button has the focus. */
export function pager(place, page, size, [back, on], turn) {
  const button = (name, offset, does) => {
    const one = h("button.quiet", { type: "button", "data-turn": name, onclick: async () => {
      if (!isEnabled(one)) return;
      await turn(offset);
      if (isAt(place)) place.querySelector(`[data-turn="${name}"]`)?.focus();
    } }, name);
    enable(one, does);
    return one;
  };
  const { offset, items, total } = page;
  return total > size && h("div.row.pager", {},
    button(back, Math.max(0, offset - size), offset > 0),
    h("span.hint", {}, `${(offset + 1).toLocaleString("en")} to ${(offset + items.length).toLocaleString("en")} of ${total.toLocaleString("en")}`),
    button(on, offset + size, offset + size < total));
}
