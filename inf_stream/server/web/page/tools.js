// The buttons that choose what is watched, and what they say.

import { $ } from "./elements.js";

// `choose` gets a function that opens a source.
export function offerSources(sources, choose) {
  $("camera").addEventListener("click", () => choose(() => sources.camera()));
  $("screen").addEventListener("click", () => choose(() => sources.screen()));
  $("file").addEventListener("click", () => $("chosen").click());
  $("cameras").addEventListener("change", () => choose(() => sources.camera($("cameras").value)));
  $("stop").addEventListener("click", () => sources.stop());
  $("chosen").addEventListener("change", () => {
    const [file] = $("chosen").files;
    if (file) choose(() => sources.file(file));
    $("chosen").value = "";
  });
  // Browsers show camera and screen to secure pages only, and phones no screen at all.
  $("insecure").hidden = window.isSecureContext;
  $("insecure-address").textContent = `https://${location.host}/`;
  $("camera").disabled = !navigator.mediaDevices;
  $("screen").disabled = !navigator.mediaDevices?.getDisplayMedia;
  $("screen").hidden = window.isSecureContext && $("screen").disabled;
}

export function showSource(source) {
  for (const kind of ["camera", "screen", "file"]) $(kind).setAttribute("aria-pressed", String(source?.kind === kind));
  const hadFocus = document.activeElement === $("stop");
  $("stop").hidden = !source;
  if (hadFocus && !source) $("camera").focus();
  $("empty").hidden = Boolean(source);
  if (source?.kind !== "camera") $("cameras").hidden = true;
}

export async function showCameras(sources) {
  const cameras = await sources.cameras();
  const current = $("video").srcObject?.getVideoTracks()[0]?.getSettings().deviceId;
  const options = cameras.map(({ deviceId, label }, n) =>
    new Option(label || `Camera ${n + 1}`, deviceId, false, deviceId === current));
  $("cameras").replaceChildren(...options);
  $("cameras").hidden = options.length < 2 || sources.current?.kind !== "camera";
}
