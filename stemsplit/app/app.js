// The page of the app. What comes from songs and from the server is inserted as text, never as markup.

import { STRINGS } from "./strings.js";

const $ = (id) => document.getElementById(id);
const rows = new Map(); // id -> the row of a song
const sending = []; // what is dropped, but not copied yet
let known = null; // the state of the server, without the songs
let busy = false; // whether a song is being copied
let choosing = Promise.resolve(); // until the last choice is sent

function make(tag, text = "", attributes = {}) {
  const element = document.createElement(tag);
  element.textContent = text;
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  return element;
}

function button(text, label, onClick) {
  const element = make("button", text, { type: "button", "aria-label": label, title: label });
  element.addEventListener("click", onClick);
  return element;
}

function link(text, label, address) {
  return make("a", text, { href: address, download: "", class: "button", "aria-label": label });
}

/** A path that may be broken after its separators. */
function breakable(path) {
  return path.split(/(?<=[/\\])/).flatMap((piece) => [piece, make("wbr")]);
}

// Words

function size(bytes) {
  return bytes >= 1e9 ? STRINGS.gigabytes((bytes / 1e9).toFixed(1)) : STRINGS.megabytes(Math.max(1, Math.round(bytes / 1e6)));
}

function time(seconds) {
  if (seconds < 60) return STRINGS.seconds(Math.max(1, Math.ceil(seconds)));
  const minutes = Math.round(seconds / 60);
  return minutes < 60 ? STRINGS.minutes(minutes) : STRINGS.hours(Math.floor(minutes / 60), minutes % 60);
}

/** 83 -> "1:23". */
function clock(seconds) {
  const whole = Math.round(seconds);
  const [hours, minutes, rest] = [Math.floor(whole / 3600), Math.floor(whole / 60) % 60, whole % 60];
  return `${hours ? `${hours}:${String(minutes).padStart(2, "0")}` : minutes}:${String(rest).padStart(2, "0")}`;
}

function stateOf({ status, phase, done, size: bytes, elapsed }) {
  if (status !== "working" && status !== "sending") return STRINGS.status[status];
  const parts = [status === "working" ? STRINGS.phase[phase] ?? STRINGS.status.working : STRINGS.status.sending];
  if (bytes) parts.push(STRINGS.ofSize(size(bytes)));
  if (done !== null) parts.push(`${Math.floor(100 * done)} %`);
  if (done > 0.02 && elapsed > 1) parts.push(STRINGS.left(time((elapsed * (1 - done)) / done)));
  return parts.join(" \u00b7 ");
}

function notify(text) {
  $("notice").textContent = text;
  $("notice").hidden = !text;
}

const say = (text) => ($("said").textContent = text);

// Talking to the server

async function send(method, path, value) {
  try {
    const answer = await fetch(path, { method, body: value === undefined ? undefined : JSON.stringify(value) });
    if (answer.ok) return answer.status === 204 ? null : await answer.json();
    const { error, hint } = await answer.json();
    notify(hint ? `${error} (${hint})` : error);
  } catch {
    notify(STRINGS.gone);
  }
  return undefined;
}

/** Follow what changes. The browser reconnects by itself, unless it is refused. */
function follow() {
  const source = new EventSource("/api/events");
  source.onopen = () => notify("");
  source.onmessage = ({ data }) => {
    const { state, song, removed, choices } = JSON.parse(data);
    if (state) start(state);
    if (song) show(song);
    if (removed) drop(removed);
    if (choices) showChoices(choices);
  };
  source.onerror = () => {
    notify(STRINGS.gone);
    if (source.readyState === EventSource.CLOSED) setTimeout(again, 2000);
  };
}

async function again() {
  const answer = await fetch("/api/state").catch(() => null);
  if (answer?.ok) follow();
  else {
    if (answer?.status === 401) notify(STRINGS.restarted);
    setTimeout(again, 2000);
  }
}

function start(state) {
  const fresh = new Set(state.songs.map(({ id }) => id));
  for (const id of [...rows.keys()]) if (!fresh.has(id) && !rows.get(id).file) drop(id);
  known = state;
  showChoices(state.choices);
  state.songs.forEach(show);
  tally();
}

// What is wanted

function modelOf(name) {
  return known.models.find((model) => model.name === name);
}

/** Send what has changed, in order; the rest may be changed in another tab at the same time. */
function choose(changes) {
  choosing = choosing.then(() => send("PATCH", "/api/choices", changes));
}

function showChoices(choices) {
  known.choices = choices;
  const model = modelOf(choices.model);
  showPresets(choices.model);
  const select = $("models").querySelector("select");
  if (!select.options.length) {
    select.append(...known.models.map(({ name, summary }) => make("option", `${name}: ${summary}`, { value: name })));
    select.addEventListener("change", () => choose({ model: select.value, stems: [], rest: false, accepted: false }));
  }
  select.value = choices.model;
  const lines = [STRINGS.modelIs(model.name)];
  if (model.here) lines.push(STRINGS.here);
  else lines.push(model.size ? STRINGS.toDownload(size(model.size)) : STRINGS.toDownloadUnknown);
  lines.push(STRINGS.licence(model.license));
  $("about").replaceChildren(...lines.map((line) => make("span", line)));
  if (model.confirm && !model.here) {
    $("about").append(tick(STRINGS.accept, choices.accepted, (accepted) => choose({ accepted })));
  }
  showStems(model, choices);
  const format = $("format").querySelector("select");
  if (!format.options.length) {
    const options = known.formats.map(({ name, label }) => make("option", STRINGS.formats[name] ?? label, { value: name }));
    format.append(...options);
    format.addEventListener("change", () => choose({ format: format.value }));
  }
  format.value = choices.format;
  showPlaces(choices.place);
}

function showPlaces(place) {
  const select = $("place").querySelector("select");
  const named = known.places.map(({ id }) => make("option", STRINGS.places[id] ?? id, { value: id }));
  if (select.options.length !== named.length) select.replaceChildren(...named);
  select.value = place;
  select.onchange = () => choose({ place: select.value });
  $("place").querySelector("output").replaceChildren(...breakable(known.places.find(({ id }) => id === place).path));
}

function showPresets(model) {
  const box = $("presets");
  if (!box.children.length) {
    for (const { id, model: name } of [...known.presets, { id: "other", model: "" }]) {
      const [title, about] = STRINGS.presets[id];
      const label = make("label", "", { class: "preset" });
      const input = make("input", "", { type: "radio", name: "preset", value: name });
      input.addEventListener("change", () => {
        $("models").hidden = Boolean(name);
        if (name) choose({ model: name, stems: [], rest: false, accepted: false });
        else $("models").querySelector("select").focus();
      });
      const text = make("span");
      text.append(make("b", title), make("small", about));
      label.append(input, text);
      box.append(label);
    }
  }
  const inputs = [...box.querySelectorAll("input")];
  const other = inputs.at(-1);
  const chosen = inputs.find((input) => input.value === model);
  if (!chosen || !other.checked) {
    (chosen ?? other).checked = true;
    $("models").hidden = Boolean(chosen);
  }
}

function tick(text, checked, onChange) {
  const label = make("label", "", { class: "tick" });
  const input = make("input", "", { type: "checkbox" });
  input.checked = checked;
  input.addEventListener("change", () => onChange(input.checked));
  label.append(input, make("span", text));
  return label;
}

function showStems(model, choices) {
  const box = $("stems").querySelector("div");
  const chosen = choices.stems.length ? choices.stems : model.stems;
  const focused = [...box.querySelectorAll("input")].indexOf(document.activeElement);
  const ticks = model.stems.map((stem) =>
    tick(stem, chosen.includes(stem), () => {
      const stems = model.stems.filter((_, i) => box.querySelectorAll("input")[i].checked);
      choose({ stems: stems.length === model.stems.length ? [] : stems, rest: false });
    }),
  );
  if (choices.stems.length === 1 && model.stems.length > 1) {
    ticks.push(tick(STRINGS.rest(choices.stems[0]), choices.rest, (rest) => choose({ rest })));
  }
  box.replaceChildren(...ticks);
  if (focused >= 0) box.querySelectorAll("input")[Math.min(focused, ticks.length - 1)]?.focus();
}

// The songs

function tally() {
  const all = [...rows.values()].map(({ song }) => song?.status);
  const done = all.filter((status) => status === "done").length;
  $("empty").hidden = all.length > 0;
  $("count").textContent = all.length > 1 ? STRINGS.progress(done, all.length) : "";
  $("clear").hidden = done < 2;
}

function rowOf(song) {
  if (rows.has(song.id)) return rows.get(song.id);
  const element = $("song").content.firstElementChild.cloneNode(true);
  const part = (selector) => element.querySelector(selector);
  const row = { element, part, song: null, shown: "" };
  part("h3").textContent = part("h3").title = song.name;
  rows.set(song.id, row);
  $("queue").append(element);
  new ResizeObserver(() => drawWave(row)).observe(part(".wave"));
  return row;
}

function show(song) {
  const row = rowOf(song);
  const { part } = row;
  const before = row.song;
  row.song = song;
  row.element.dataset.status = song.status;
  if (before?.status !== song.status) tally();
  part(".length").textContent = song.seconds ? clock(song.seconds) : "";
  part(".state").textContent = stateOf(song);
  const running = song.status === "working" || song.status === "sending";
  const bar = part("progress");
  bar.hidden = !running;
  bar.setAttribute("aria-label", `${song.name}: ${STRINGS.phase[song.phase] ?? STRINGS.status[song.status]}`);
  if (song.done === null) bar.removeAttribute("value");
  else bar.value = song.done;
  part(".wave").hidden = !song.peaks.length && song.status === "failed";
  part(".error").hidden = !song.error;
  part(".error").textContent = song.error;
  part(".hint").hidden = !song.hint;
  part(".hint").textContent = song.hint ? STRINGS.hintFrom(song.hint) : "";
  part(".warnings").hidden = !song.warnings.length;
  part(".warnings").replaceChildren(...song.warnings.map((warning) => make("li", warning)));
  showActions(row);
  if (!before || before.peaks.length !== song.peaks.length) drawWave(row);
  if (before?.status !== song.status) {
    if (before && song.status === "done") say(STRINGS.saidDone(song.name));
    if (before && song.status === "failed") say(STRINGS.saidFailed(song.name, song.error));
    showResult(row);
    if (before?.status === "working" && known && !modelOf(song.choices.model)?.here) refresh();
  }
}

/** A model was downloaded meanwhile. */
async function refresh() {
  const state = await send("GET", "/api/state");
  if (state) {
    known.models = state.models;
    showChoices(state.choices);
  }
}

function showActions(row) {
  const { song } = row;
  const kind = `${song.status} ${song.offer} ${row.file ? "file" : ""}`;
  if (row.shown === kind) return; // so that the focus stays
  row.shown = kind;
  const api = (action, value) => () => send("POST", `/api/songs/${song.id}/${action}`, value);
  const act = (text, onClick) => button(text, STRINGS.actionOn(text, song.name), onClick);
  const buttons = [];
  if (song.offer) buttons.push(act(STRINGS.instead(song.offer), api("retry", { model: song.offer })));
  if (row.file) {
    if (song.status === "failed") buttons.push(act(STRINGS.retry, () => resend(row)));
    buttons.push(act(STRINGS.remove, () => abandon(row)));
  } else {
    if (song.status === "waiting" || song.status === "working") buttons.push(act(STRINGS.cancel, api("cancel")));
    if (song.status === "failed" || song.status === "cancelled") buttons.push(act(STRINGS.retry, api("retry", {})));
    buttons.push(act(STRINGS.remove, () => send("DELETE", `/api/songs/${song.id}`)));
  }
  const focused = row.part(".actions").contains(document.activeElement);
  row.part(".actions").replaceChildren(...buttons);
  if (focused) row.element.focus();
}

function showResult(row) {
  const { song, part } = row;
  part(".result").hidden = song.status !== "done";
  if (song.status !== "done") return;
  const address = (rest) => `/api/songs/${song.id}/${rest}`;
  const save = (text, path) => link(text, STRINGS.actionOn(STRINGS.save, `${text}, ${song.name}`), address(path));
  const listen = button(STRINGS.listen, STRINGS.playerOf(song.name), () => togglePlayer(row, listen));
  listen.classList.add("main");
  listen.setAttribute("aria-expanded", "false");
  const open = button(STRINGS.openFolder, STRINGS.actionOn(STRINGS.openFolder, song.name), async () => {
    const answer = await send("POST", address("folder"));
    if (answer && !answer.opened) notify(STRINGS.notOpened(song.folder));
  });
  part(".listen").replaceChildren(...(song.player ? [listen] : []), open);
  part(".saves").setAttribute("aria-label", STRINGS.actionOn(STRINGS.save, song.name));
  part(".saves").replaceChildren(
    make("span", STRINGS.save),
    ...song.stems.map((stem) => save(stem, `files/${encodeURIComponent(stem)}`)),
    save(STRINGS.all, "zip"),
  );
  part(".folder").replaceChildren(`${STRINGS.folderIs} `, ...breakable(song.folder));
}

function togglePlayer(row, listen) {
  const { song, part } = row;
  const stage = part(".stage");
  if (stage.children.length) {
    stage.replaceChildren();
    listen.textContent = STRINGS.listen;
    listen.setAttribute("aria-expanded", "false");
    return;
  }
  const frame = make("iframe", "", {
    src: `/api/songs/${song.id}/player`,
    sandbox: "allow-scripts allow-downloads",
    allow: "autoplay",
    title: STRINGS.playerOf(song.name),
  });
  const mix = button(STRINGS.saveMix, STRINGS.actionOn(STRINGS.saveMix, song.name), () => saveMix(row, frame, mix));
  const tools = make("div", "", { class: "buttons" });
  tools.append(mix);
  stage.append(frame, tools);
  listen.textContent = STRINGS.closePlayer;
  listen.setAttribute("aria-expanded", "true");
  frame.focus();
}

/** Ask the player for what is heard, and the server for a file of it. */
function saveMix(row, frame, button) {
  const { song, part } = row;
  const mixed = part(".mixed");
  const receive = async ({ source, data }) => {
    if (source !== frame.contentWindow || typeof data?.gains !== "object") return;
    removeEventListener("message", receive);
    mixed.hidden = false;
    mixed.textContent = STRINGS.mixing;
    button.disabled = true;
    const { gains, speed, semitones } = data;
    const answer = await send("POST", `/api/songs/${song.id}/mix`, { gains, speed, semitones });
    button.disabled = false;
    mixed.hidden = !answer;
    if (!answer) return;
    const address = `/api/songs/${song.id}/files/${encodeURIComponent(answer.name)}`;
    const words = [STRINGS.mixed(answer.name), ...(answer.clipped ? [STRINGS.clipped] : [])].join(" ");
    mixed.replaceChildren(make("span", words), link(STRINGS.getMix, STRINGS.actionOn(STRINGS.getMix, answer.name), address));
  };
  addEventListener("message", receive);
  frame.contentWindow.postMessage("mix", "*"); // the player has no origin to name
}

function drop(id) {
  const row = rows.get(id);
  if (!row) return;
  const next = row.element.nextElementSibling ?? row.element.previousElementSibling ?? $("choose-files");
  if (row.element.contains(document.activeElement)) next.focus();
  row.element.remove();
  rows.delete(id);
  tally();
}

function drawWave({ song, part }) {
  const canvas = part(".wave");
  const scale = window.devicePixelRatio || 1;
  canvas.width = Math.max(1, Math.round(canvas.clientWidth * scale));
  canvas.height = Math.max(1, Math.round(canvas.clientHeight * scale));
  if (!song?.peaks.length) return;
  const pen = canvas.getContext("2d");
  pen.fillStyle = getComputedStyle(canvas).color;
  const step = canvas.width / song.peaks.length;
  song.peaks.forEach((peak, i) => {
    const high = Math.max(scale, (peak / 99) * canvas.height);
    pen.fillRect(i * step, (canvas.height - high) / 2, Math.max(1, step * 0.7), high);
  });
}

// Copying songs to the server

const isSong = (name) => known.suffixes.includes(/\.[^.]+$/.exec(name.toLowerCase())?.[0]);

function add(files) {
  notify("");
  for (const file of files) {
    const id = `sending ${crypto.randomUUID()}`;
    const song = { id, name: file.name, status: "sending", phase: "", done: null, size: null, elapsed: 0, seconds: null };
    Object.assign(song, { peaks: [], error: "", hint: "", offer: "", stems: [], warnings: [] });
    const row = rowOf(song);
    row.file = file;
    show(song);
    sending.push(row);
  }
  if (files.length) say(STRINGS.saidAdded(files.length));
  pump();
}

function pump() {
  if (busy || !sending.length) return;
  busy = true;
  const row = sending.shift();
  const began = performance.now();
  const request = new XMLHttpRequest();
  row.request = request;
  request.open("PUT", `/api/songs?name=${encodeURIComponent(row.file.name)}`);
  request.upload.onprogress = ({ loaded, total }) => {
    const elapsed = (performance.now() - began) / 1000;
    if (rows.has(row.song.id)) show({ ...row.song, done: total ? loaded / total : null, elapsed });
  };
  request.onloadend = () => {
    busy = false;
    const { id } = row.song;
    if (request.status === 201) drop(id);
    else if (rows.has(id)) {
      let problem = { error: STRINGS.cut, hint: STRINGS.cutHint };
      try {
        problem = JSON.parse(request.responseText);
      } catch {
        // nobody has answered
      }
      show({ ...row.song, status: "failed", done: null, ...problem });
    }
    pump();
  };
  request.send(row.file);
}

function resend(row) {
  show({ ...row.song, status: "sending", error: "", hint: "", done: null });
  sending.push(row);
  pump();
}

function abandon(row) {
  const place = sending.indexOf(row);
  if (place >= 0) sending.splice(place, 1);
  drop(row.song.id);
  row.request?.abort();
}

/** The songs among the files of folders; files that were named themselves are taken as they are. */
function addFound(found) {
  const songs = found.filter(({ file, named }) => named || isSong(file.name)).map(({ file }) => file);
  add(songs);
  if (songs.length < found.length) notify(STRINGS.skipped(found.length - songs.length));
}

async function search(entry, named) {
  if (entry.isFile) {
    const file = await new Promise((resolve) => entry.file(resolve, () => resolve(null)));
    return file && !(file.name.startsWith(".") && !named) ? [{ file, named }] : [];
  }
  const reader = entry.createReader();
  const found = [];
  for (;;) {
    const entries = await new Promise((resolve) => reader.readEntries(resolve, () => resolve([])));
    if (!entries.length) return found;
    for (const each of entries) found.push(...(await search(each, false)));
  }
}

async function onDrop(event) {
  event.preventDefault();
  document.body.removeAttribute("data-over");
  const entries = [...event.dataTransfer.items].map((item) => item.webkitGetAsEntry?.()).filter(Boolean);
  if (!entries.length) return add([...event.dataTransfer.files]);
  const found = [];
  for (const entry of entries) found.push(...(await search(entry, entry.isFile)));
  return addFound(found);
}

// Start

for (const element of document.querySelectorAll("[data-text]")) element.textContent = STRINGS[element.dataset.text];
document.addEventListener("dragover", (event) => {
  event.preventDefault();
  document.body.setAttribute("data-over", "");
});
document.addEventListener("dragleave", ({ relatedTarget }) => relatedTarget ?? document.body.removeAttribute("data-over"));
document.addEventListener("drop", onDrop);
$("choose-files").addEventListener("click", () => $("files").click());
$("choose-folder").addEventListener("click", () => $("folder").click());
$("files").addEventListener("change", ({ target }) => {
  add([...target.files]);
  target.value = "";
});
$("folder").addEventListener("change", ({ target }) => {
  addFound([...target.files].map((file) => ({ file, named: false })));
  target.value = "";
});
$("clear").addEventListener("click", async () => {
  const done = [...rows.values()].filter(({ song }) => song.status === "done");
  await Promise.all(done.map(({ song }) => send("DELETE", `/api/songs/${song.id}`)));
  $("choose-files").focus();
});
addEventListener("beforeunload", (event) => {
  if (busy) event.preventDefault(); // the browser asks
});
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => rows.forEach(drawWave));
follow();
