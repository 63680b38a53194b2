// The view: a lane for each stem, the ruler, the transport, the keys. Names are inserted as text, never as markup.

const song = JSON.parse(document.getElementById("song").textContent);
const player = new Player(song);
const $ = (id) => document.getElementById(id);
const seconds = (samples) => samples / song.rate;
const calm = matchMedia("(prefers-reduced-motion: reduce)");
const dark = matchMedia("(prefers-color-scheme: dark)");

let scrubbed = null; // the position while a pointer is dragged
let chosen = 0; // the stem that M and S act on
let snapping = false; // whether loops begin and end on beats
let clicked = null; // the button that was focused by the mouse

/** 83.4 -> "1:23", or "1:23.4". */
function clock(time, tenths = false) {
  const units = Math.floor(time * (tenths ? 10 : 1) + 1e-6);
  const whole = tenths ? Math.floor(units / 10) : units;
  const [hours, minutes, rest] = [Math.floor(whole / 3600), Math.floor(whole / 60) % 60, whole % 60];
  const text = `${hours ? `${hours}:${String(minutes).padStart(2, "0")}` : minutes}:${String(rest).padStart(2, "0")}`;
  return tenths ? `${text}.${units % 10}` : text;
}

/** 83.4 -> "1 minute 23 seconds", for screen readers. */
function spoken(time) {
  const whole = Math.floor(time);
  const parts = [[Math.floor(whole / 3600), "hour"], [Math.floor(whole / 60) % 60, "minute"], [whole % 60, "second"]];
  const named = parts.filter(([count], i) => count || (i === 2 && whole < 1));
  return named.map(([count, unit]) => `${count} ${unit}${count === 1 ? "" : "s"}`).join(" ");
}

function decibels(volume) {
  if (volume <= -40) return "off";
  return `${volume > 0 ? "+" : volume < 0 ? "\u2212" : ""}${Math.abs(volume).toFixed(1)} dB`;
}

function loudest() {
  return Math.max(...lanes.map(({ stem }) => stem.powers.reduce((most, power) => Math.max(most, power), 1)));
}

/** Compressed bytes (zlib) as text -> bytes. */
async function inflate(text) {
  const stream = new Blob([unpack(text)]).stream().pipeThrough(new DecompressionStream("deflate"));
  return new Uint8Array(await new Response(stream).arrayBuffer());
}

const lanes = hues().map((hue, i) => {
  const described = song.stems[i];
  const lane = $("lane").content.firstElementChild.cloneNode(true);
  const part = (selector) => lane.querySelector(selector);
  const stem = {
    lows: new Int8Array(unpack(described.lows)),
    highs: new Int8Array(unpack(described.highs)),
    powers: null, // until they are decompressed
  };
  const { name } = described;
  let drawn = null;
  const parts = {
    lane,
    stem,
    canvas: part("canvas"),
    mute: part(".mute"),
    solo: part(".solo"),
    volume: part(".volume"),
    output: part("output"),
    picture: () => (drawn ??= lanes.every((each) => each.stem.powers) ? spectrum(lane, stem, loudest()) : null),
    repaint: () => (drawn = null),
  };
  lane.dataset.hue = hue;
  lane.setAttribute("role", "group");
  lane.setAttribute("aria-label", name);
  part("h2").textContent = part("h2").title = name;
  part("kbd").textContent = i < 9 ? i + 1 : "";
  parts.mute.setAttribute("aria-label", `Mute ${name}`);
  parts.mute.title = "Mute (M)";
  parts.solo.setAttribute("aria-label", `Solo ${name}`);
  parts.solo.title = "Solo (S)";
  parts.volume.setAttribute("aria-label", `Volume of ${name}`);
  parts.canvas.setAttribute("aria-label", `Waveform and spectrogram of ${name}`);
  parts.mute.addEventListener("click", () => mute(i));
  parts.solo.addEventListener("click", () => solo(i));
  parts.volume.addEventListener("input", () => player.mix(i, { volume: Number(parts.volume.value) }));
  parts.volume.addEventListener("dblclick", () => player.mix(i, { volume: 0 }));
  lane.addEventListener("focusin", () => choose(i));
  lane.addEventListener("pointerdown", () => choose(i));
  scrub(part(".track"));
  $("lanes").append(lane);
  return parts;
});

Promise.all(song.stems.map(({ powers }) => inflate(powers))).then((all) => {
  all.forEach((powers, i) => (lanes[i].stem.powers = powers));
  redraw();
});

const mute = (i) => player.mix(i, { muted: !player.stems[i].muted });
const solo = (i) => player.mix(i, { solo: !player.stems[i].solo });

function count() {
  player.counting = !player.counting;
  paintPractice();
}

function snap() {
  snapping = !snapping && song.beats.length > 0;
  paintPractice();
}

function compare() {
  if (song.comparable) player.mix(null, { original: !player.original });
}

function choose(i) {
  chosen = i;
  lanes.forEach(({ lane }, each) => lane.toggleAttribute("data-chosen", each === i));
}

// Pointers

/** The sample under a pointer. */
function sampleAt(track, event) {
  const { left, width } = track.getBoundingClientRect();
  return (Math.min(Math.max(0, event.clientX - left), width) / width) * song.length;
}

/** Report a drag: `move` with its first and its latest event, then `end`, or `cancel`. */
function drag(track, move, end, cancel) {
  let first = null;
  track.addEventListener("pointerdown", (event) => {
    if (event.button !== 0) return;
    first = event;
    track.setPointerCapture(event.pointerId);
    move(first, event);
  });
  track.addEventListener("pointermove", (event) => first && move(first, event));
  track.addEventListener("pointerup", (event) => {
    if (first) end(first, event);
    first = null;
  });
  track.addEventListener("pointercancel", () => {
    first = null;
    cancel();
  });
}

/** Click or drag to seek. */
function scrub(track) {
  const show = (position) => {
    scrubbed = position;
    paint();
  };
  drag(
    track,
    (_, event) => show(sampleAt(track, event)),
    (_, event) => {
      scrubbed = null;
      player.seek(sampleAt(track, event));
    },
    () => show(null),
  );
}

/** Drag along the ruler to loop a part, or drag an end of the loop to change it; click to seek. */
function rule(track) {
  let anchor = null;
  const isClick = (first, event) => Math.abs(event.clientX - first.clientX) < 4;
  const near = (position, event) => Math.abs((sampleAt(track, event) - position) / song.length) * track.clientWidth < 8;
  const span = (event) => [anchor, sampleAt(track, event)].sort((a, b) => a - b);
  drag(
    track,
    (first, event) => {
      if (event === first) {
        const { on, start, end } = player.loop;
        anchor = on && near(start, event) ? end : on && near(end, event) ? start : sampleAt(track, event);
      } else if (!isClick(first, event)) paintLoop({ on: true, start: span(event)[0], end: span(event)[1] });
    },
    (first, event) => {
      if (isClick(first, event)) player.seek(sampleAt(track, event));
      else loop(...span(event));
    },
    () => paintLoop(player.loop),
  );
}

/** Loop a part: from beat to beat, if that is wanted. */
function loop(start, end) {
  if (snapping) [start, end] = [player.snap(start), player.snap(end)];
  player.setLoop(true, start, end > start ? end : start + player.beat(start));
}

// The current state

function paintLoop({ on, start, end }) {
  const whole = start === 0 && end === song.length;
  document.body.toggleAttribute("data-loop", on && !whole);
  document.body.style.setProperty("--loop-start", start / song.length);
  document.body.style.setProperty("--loop-end", end / song.length);
  $("region").textContent = whole
    ? on ? "Looping the whole song" : "Drag along the ruler to loop a part"
    : `${on ? "Loop" : "Loop off"}: ${clock(seconds(start), true)} \u2013 ${clock(seconds(end), true)}`;
}

function paintLevel(slider, output, volume) {
  const { min, max } = slider;
  slider.value = volume;
  slider.style.setProperty("--fill", `${(100 * (volume - min)) / (max - min)}%`);
  slider.setAttribute("aria-valuetext", decibels(volume).replace("dB", "decibels").replace("\u2212", "minus "));
  output.textContent = decibels(volume);
}

function paintPractice() {
  const show = (id, value, text, spoken) => {
    const slider = $(id);
    slider.value = value;
    slider.style.setProperty("--fill", `${(100 * (value - slider.min)) / (slider.max - slider.min)}%`);
    slider.setAttribute("aria-valuetext", spoken);
    slider.parentElement.querySelector("output").textContent = text;
  };
  const { speed, semitones } = player;
  const percent = Math.round(100 * speed);
  show("speed", percent, `${percent} %`, `${percent} per cent`);
  const size = Math.abs(semitones);
  const sign = semitones > 0 ? "+" : semitones < 0 ? "\u2212" : "";
  const unit = size === 1 ? "semitone" : "semitones";
  show("pitch", semitones, `${sign}${size}`, semitones ? `${size} ${unit} ${semitones > 0 ? "up" : "down"}` : "as it is");
  $("count").setAttribute("aria-pressed", player.counting);
  $("snap").setAttribute("aria-pressed", snapping);
}

function paintMixer() {
  const levels = player.levels();
  player.stems.forEach(({ muted, solo, volume }, i) => {
    const parts = lanes[i];
    parts.mute.setAttribute("aria-pressed", muted);
    parts.solo.setAttribute("aria-pressed", solo);
    parts.lane.toggleAttribute("data-silent", levels[i] === 0);
    paintLevel(parts.volume, parts.output, volume);
  });
  paintLevel($("master"), document.querySelector(".master output"), player.master);
}

/** Show the position: everything that changes during playback. */
function paint() {
  const position = scrubbed ?? player.position;
  document.body.style.setProperty("--at", position / song.length);
  const now = clock(seconds(position), true);
  if ($("now").textContent !== now) {
    $("now").textContent = now;
    $("position").value = seconds(position);
    $("position").style.setProperty("--fill", `${(100 * position) / song.length}%`);
    const said = `${spoken(seconds(position))} of ${spoken(seconds(song.length))}`;
    if ($("position").getAttribute("aria-valuetext") !== said) $("position").setAttribute("aria-valuetext", said);
  }
}

function paintAll() {
  const { playing } = player;
  document.body.toggleAttribute("data-playing", playing);
  $("play").setAttribute("aria-label", playing ? "Pause" : "Play");
  $("loop").setAttribute("aria-pressed", player.loop.on);
  paintPractice();
  $("original").setAttribute("aria-pressed", player.original);
  document.body.toggleAttribute("data-original", player.original);
  $("notice").hidden = !player.problem;
  $("notice").textContent = player.problem;
  paintMixer();
  paintLoop(player.loop);
  paint();
}

function animate() {
  if (player.playing) paint();
  if (calm.matches) setTimeout(animate, 250);
  else requestAnimationFrame(animate);
}

function redraw(recolour = false) {
  for (const parts of lanes) {
    if (recolour) parts.repaint();
    drawLane(parts);
  }
  drawRuler($("ruler").querySelector("canvas"));
}

// Keys

const KEYS = {
  __proto__: null,
  " ": () => player.toggle(),
  k: () => player.toggle(),
  home: () => player.seek(0),
  end: () => player.seek(song.length),
  arrowup: () => step(-1),
  arrowdown: () => step(1),
  m: () => mute(chosen),
  s: () => solo(chosen),
  "+": () => nudge(1),
  "=": () => nudge(1),
  "-": () => nudge(-1),
  "[": () => loop(player.position, Math.max(player.loop.end, player.position)),
  "]": () => loop(Math.min(player.loop.start, player.position), player.position),
  l: () => player.setLoop(!player.loop.on),
  o: compare,
  c: count,
  b: snap,
  r: () => player.warp(1, 0),
  ",": () => player.warp(player.speed - 0.05, player.semitones),
  ".": () => player.warp(player.speed + 0.05, player.semitones),
  pageup: () => player.warp(player.speed, player.semitones + 1),
  pagedown: () => player.warp(player.speed, player.semitones - 1),
  escape: () => player.setLoop(false, 0, song.length),
  "?": () => $("keys").showModal(),
};

function step(by) {
  choose((chosen + by + lanes.length) % lanes.length);
  lanes[chosen].lane.focus();
}

function nudge(by) {
  const { min, max } = lanes[chosen].volume;
  player.mix(chosen, { volume: Math.min(max, Math.max(min, player.stems[chosen].volume + by)) });
}

function all() {
  player.stems.forEach((_, i) => player.mix(i, { solo: false, muted: false }));
}

/** Whether the space bar plays: it does on a button that was clicked, and presses one that was reached with keys. */
function isPlain({ key, target }) {
  return key === " " && target === clicked && !$("keys").open;
}

/** Whether the focused element uses a key itself. */
function isTaken({ key, target }) {
  if (/^(Arrow|Home|End|Page)/.test(key)) return target.matches("input.volume, #speed, #pitch, #view input") && target !== clicked;
  return target.matches("button, #view input") && (key === " " || key === "Enter") && !isPlain({ key, target });
}

function press(event) {
  if (event.ctrlKey || event.metaKey || event.altKey || $("keys").open || isTaken(event)) return;
  const key = event.key.toLowerCase();
  const digit = /^(?:Digit|Numpad)(\d)$/.exec(event.code)?.[1];
  const sideways = { arrowleft: -1, arrowright: 1 }[key];
  if (sideways) player.seek(player.position + sideways * (event.shiftKey ? 1 : 5) * song.rate);
  else if (KEYS[key]) KEYS[key]();
  else if (digit === "0") all();
  else if (digit && digit <= lanes.length) (event.shiftKey ? mute : solo)(digit - 1);
  else return;
  event.preventDefault();
}

// A page around this one may ask for the mix, and write it to a file.
addEventListener("message", ({ source, data }) => {
  const { speed, semitones } = player;
  if (data === "mix") source.postMessage({ gains: player.gains(), speed, semitones }, "*");
});

// Start

document.body.style.setProperty("--count", lanes.length);
$("title").textContent = $("title").title = song.title;
$("facts").textContent = [
  `${song.stems.length} ${song.stems.length === 1 ? "stem" : "stems"}`,
  clock(seconds(song.length)),
  song.channels === 2 ? "stereo" : "mono",
].join(" \u00b7 ");
$("total").textContent = clock(seconds(song.length));
$("position").max = seconds(song.length);
$("position").addEventListener("input", () => {
  scrubbed = Number($("position").value) * song.rate;
  paint();
});
$("position").addEventListener("change", () => {
  scrubbed = null;
  player.seek(Number($("position").value) * song.rate);
});
$("master").addEventListener("input", () => player.mix(null, { master: Number($("master").value) }));
$("master").addEventListener("dblclick", () => player.mix(null, { master: 0 }));
$("start").addEventListener("click", () => player.seek(0));
$("play").addEventListener("click", () => player.toggle());
$("speed").addEventListener("change", () => player.warp($("speed").value / 100, player.semitones));
$("pitch").addEventListener("change", () => player.warp(player.speed, Number($("pitch").value)));
$("speed").addEventListener("dblclick", () => player.warp(1, player.semitones));
$("pitch").addEventListener("dblclick", () => player.warp(player.speed, 0));
$("count").addEventListener("click", count);
$("snap").hidden = !song.beats.length;
$("snap").addEventListener("click", snap);
$("original").hidden = !song.comparable;
$("original").addEventListener("click", compare);
$("loop").addEventListener("click", () => player.setLoop(!player.loop.on));
$("help").addEventListener("click", () => $("keys").showModal());
document.addEventListener("pointerdown", ({ target }) => {
  clicked = target.closest("button") ?? target.closest("label")?.control ?? null;
});
document.addEventListener("focusin", ({ target }) => {
  if (target !== clicked) clicked = null;
});
document.addEventListener("keydown", press);
// Otherwise Firefox presses the button.
document.addEventListener("keyup", (event) => isPlain(event) && event.preventDefault());
$("view").addEventListener("change", () => redraw());
rule($("ruler"));
player.addEventListener("change", paintAll);
dark.addEventListener("change", () => redraw(true));
new ResizeObserver(() => redraw()).observe($("lanes"));
paintAll();
choose(0);
animate();
