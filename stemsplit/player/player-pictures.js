// Drawing: waveforms, spectrograms and the ruler, in the colours of the style sheet.

const HUES = {
  __proto__: null, // a stem may have any name
  vocals: "rose",
  drums: "amber",
  bass: "indigo",
  other: "teal",
  guitar: "lime",
  piano: "blue",
  mixture: "grey",
};
const SPARE_HUES = ["blue", "lime", "plum", "teal", "rose", "amber", "indigo", "grey"];
const DECIBELS = 72; // dynamic range of the spectrograms, down from the loudest point of all

/** A colour for each stem; common stems always have the same one. */
function hues() {
  const spare = SPARE_HUES.filter((hue) => !song.stems.some(({ name }) => HUES[name] === hue));
  let next = 0;
  return song.stems.map(({ name }) => HUES[name] ?? spare[next++ % spare.length]);
}

/** "#abc123" of a custom property -> [171, 193, 35]. */
function colour(element, property) {
  const text = getComputedStyle(element).getPropertyValue(property).trim();
  return [1, 3, 5].map((i) => parseInt(text.slice(i, i + 2), 16));
}

/** Clear a canvas, and give it the resolution of the screen. */
function dots(canvas) {
  const scale = window.devicePixelRatio || 1;
  canvas.width = Math.max(1, Math.round(canvas.clientWidth * scale));
  canvas.height = Math.max(1, Math.round(canvas.clientHeight * scale));
  return { pen: canvas.getContext("2d"), width: canvas.width, height: canvas.height, scale };
}

function drawWave(pen, stem, top, width, height, scale) {
  const perDot = song.length / song.peakSamples / width;
  const middle = top + height / 2;
  for (let x = 0; x < width; x++) {
    const first = Math.floor(x * perDot);
    const last = Math.min(stem.lows.length, Math.max(first + 1, Math.floor((x + 1) * perDot)));
    let low = 127;
    let high = -127;
    for (let i = first; i < last; i++) {
      low = Math.min(low, stem.lows[i]);
      high = Math.max(high, stem.highs[i]);
    }
    const reach = (height / 2 - scale) / 127;
    const thick = Math.max(scale, (high - low) * reach);
    pen.fillRect(x, middle - ((high + low) * reach + thick) / 2, 1, thick);
  }
}

/** The spectrogram as an image: a pixel for each value, the highest band on top, `loudest` at full intensity. */
function spectrum(lane, stem, loudest) {
  const { bands } = song;
  const columns = stem.powers.length / bands;
  const image = new ImageData(columns, bands);
  const stops = ["--ground", "--stem", "--glow"].map((name) => colour(lane, name));
  const span = (255 * DECIBELS) / song.range;
  const shades = Array.from({ length: 256 }, (_, power) => {
    const place = Math.min(1, Math.max(0, 1 + (power - loudest) / span)) ** 1.3 * 2;
    const [from, to] = place < 1 ? [stops[0], stops[1]] : [stops[1], stops[2]];
    return from.map((value, i) => value + (to[i] - value) * (place < 1 ? place : place - 1));
  });
  for (let x = 0; x < columns; x++) {
    for (let band = 0; band < bands; band++) {
      const [red, green, blue] = shades[stem.powers[x * bands + band]];
      image.data.set([red, green, blue, 255], 4 * ((bands - 1 - band) * columns + x));
    }
  }
  const canvas = document.createElement("canvas");
  canvas.width = columns;
  canvas.height = bands;
  canvas.getContext("2d").putImageData(image, 0, 0);
  return canvas;
}

function drawLane({ lane, canvas, stem, picture }) {
  const { pen, width, height, scale } = dots(canvas);
  const view = document.querySelector("#view input:checked").value;
  const split = { both: Math.round(height * 0.5), wave: height, spectrum: 0 }[view];
  if (split) {
    pen.fillStyle = getComputedStyle(lane).getPropertyValue("--stem");
    drawWave(pen, stem, 0, width, split, scale);
  }
  if (split < height && picture()) {
    pen.imageSmoothingQuality = "high";
    const covered = song.length / song.powerSamples; // columns; the last one may reach beyond the end
    pen.drawImage(picture(), 0, 0, covered, song.bands, 0, split, width, height - split);
  }
}

function drawRuler(canvas) {
  const { pen, width, height, scale } = dots(canvas);
  const length = seconds(song.length);
  const least = (72 * scale * length) / width; // seconds between two numbers
  const steps = [0.1, 0.2, 0.5, 1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600];
  const step = steps.find((each) => each >= least) ?? 7200;
  pen.font = `${11 * scale}px system-ui, sans-serif`;
  const style = getComputedStyle(document.body);
  for (let i = 0; i * step < length; i++) {
    const x = Math.round((i * step * width) / length);
    pen.fillStyle = style.getPropertyValue("--tick");
    pen.fillRect(x, height * 0.4, scale, height * 0.6);
    for (const minor of [0.25, 0.5, 0.75]) {
      pen.fillRect(Math.round(((i + minor) * step * width) / length), height * 0.78, scale, height * 0.22);
    }
    const text = clock(i * step, step < 1);
    pen.fillStyle = style.getPropertyValue("--soft");
    if (x + 5 * scale + pen.measureText(text).width < width) pen.fillText(text, x + 5 * scale, height * 0.65);
  }
}

