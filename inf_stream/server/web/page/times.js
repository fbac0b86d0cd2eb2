// Times as people read them: 00:40, 1:02:03.

import { made } from "./elements.js";

const CLOCK = /(?<![\d:])(?:(\d{1,3}):)?([0-5]?\d):([0-5]\d)(?![\d:])/g;

export function clock(second) {
  const whole = Math.max(0, Math.floor(second));
  const pad = (n) => String(n).padStart(2, "0");
  const hours = Math.floor(whole / 3600);
  const rest = `${pad(Math.floor((whole % 3600) / 60))}:${pad(whole % 60)}`;
  return hours ? `${hours}:${rest}` : rest;
}

// Text with a button for each time in it.
export function withTimes(text, onChosen) {
  const found = document.createDocumentFragment();
  let end = 0;
  for (const match of text.matchAll(CLOCK)) {
    found.append(text.slice(end, match.index));
    const second = Number(match[1] || 0) * 3600 + Number(match[2]) * 60 + Number(match[3]);
    found.append(timeButton(match[0], second, onChosen));
    end = match.index + match[0].length;
  }
  found.append(text.slice(end));
  return found;
}

export function timeButton(text, second, onChosen) {
  const button = made("button", "time", text);
  button.title = `Show what was seen at ${text}`;
  button.addEventListener("click", () => onChosen(second));
  return button;
}
