// Elements of the page: found, made, and read out.

const MOST_SAID = 5;

export const $ = (id) => document.getElementById(id);

export function made(tag, kind = "", text = "") {
  const element = document.createElement(tag);
  if (tag === "button") element.type = "button";
  if (kind) element.className = kind;
  element.append(text);
  return element;
}

// Have a live region say something, again if it was said before.
export function say(region, text) {
  region.append(made("p", "", text));
  while (region.childElementCount > MOST_SAID) region.firstElementChild.remove();
}
