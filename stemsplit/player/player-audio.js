"use strict";

// The audio: MP3 segments in the page -> samples -> a gain for each stem -> a master gain. Of the document, this knows
// only where the segments are.

const AHEAD = 4; // seconds that are scheduled before they are heard
const SOON = 0.05; // seconds from a command to the sound
const FADE = 0.004; // seconds; the time constant of gain changes, so that nothing clicks
const KEPT = 10; // segments that stay decoded
const PIECES = 8; // of the stretcher in a buffer, a fifth of a second
const COUNT = 4; // beats to count in
const SPEEDS = [0.5, 1.5];
const SEMITONES = [-12, 12];

const ALPHABET = Array.from({ length: 94 }, (_, i) => String.fromCharCode(33 + i)).filter((each) => !"\"&'/<=>\\`".includes(each));
const DIGITS = Uint8Array.from({ length: 128 }, (_, code) => Math.max(0, ALPHABET.indexOf(String.fromCharCode(code))));

/** Text -> bytes: five characters stand for four bytes, as in packing.py. */
function unpack(text) {
  const length = Math.floor((text.length * 4) / 5);
  const view = new DataView(new ArrayBuffer(4 * Math.ceil(text.length / 5)));
  for (let i = 0; 5 * i < text.length; i++) {
    let word = 0;
    for (let j = 5 * i; j < 5 * i + 5; j++) word = 85 * word + (j < text.length ? DIGITS[text.charCodeAt(j)] : 84);
    view.setUint32(4 * i, word); // modulo 2^32
  }
  return new Uint8Array(view.buffer, 0, length);
}

const sleep = (seconds) => new Promise((resolve) => setTimeout(resolve, 1000 * seconds));
const gainOf = (decibels) => (decibels <= -40 ? 0 : 10 ** (decibels / 20));

/** The segments of the page, decoded when they are needed. */
class SegmentCache {
  constructor(song) {
    this.song = song;
    this.decoder = new OfflineAudioContext(song.channels, 1, song.rate);
    this.kept = new Map(); // index -> promise of a segment; the most recently used one is last
    this.delay = null;
  }

  /** The stems of a segment, and what they leave of the song, if anything: AudioBuffers of song.segment samples. */
  get(index) {
    const segment = this.kept.get(index) ?? this.read(index);
    this.kept.delete(index);
    this.kept.set(index, segment);
    segment.catch(() => this.kept.delete(index));
    if (this.kept.size > KEPT) this.kept.delete(this.kept.keys().next().value);
    return segment;
  }

  async read(index) {
    const { rate, segment } = this.song;
    this.delay ??= this.measureDelay();
    const [delay, text] = await Promise.all([this.delay, this.find(index)]);
    return Promise.all(
      text.split("\n").map(async (line) => {
        const decoded = await this.decode(line);
        if (decoded.length < delay + segment) throw new Error("this browser decodes only part of the audio");
        const { numberOfChannels } = decoded;
        const samples = new AudioBuffer({ numberOfChannels, length: segment, sampleRate: rate });
        for (let c = 0; c < numberOfChannels; c++) {
          samples.copyToChannel(decoded.getChannelData(c).subarray(delay, delay + segment), c);
        }
        return samples;
      }),
    );
  }

  /** The position of the probe's click: the decoder delays every segment by as many samples. */
  async measureDelay() {
    const samples = (await this.decode(this.song.probe)).getChannelData(0);
    let loudest = 0;
    samples.forEach((sample, i) => {
      if (Math.abs(sample) > Math.abs(samples[loudest])) loudest = i;
    });
    return loudest;
  }

  decode(text) {
    return this.decoder.decodeAudioData(unpack(text).slice().buffer);
  }

  /** The text of a segment, once the browser has loaded a large page that far. */
  async find(index) {
    for (;;) {
      const loading = document.readyState === "loading";
      const element = document.getElementById(`segment-${index}`);
      if (element && (element.nextElementSibling || !loading)) return element.textContent.trim();
      if (!loading) throw new Error("a part of this page is missing");
      await sleep(0.05);
    }
  }
}

/** The gains of the stems, the gain of what they leave of the song, and the master gain. */
class Graph {
  constructor(context, stems) {
    this.context = context;
    this.master = new GainNode(context);
    this.master.connect(context.destination);
    this.stems = Array.from({ length: stems + 1 }, () => new GainNode(context));
    for (const gain of this.stems) gain.connect(this.master);
  }

  /** Set gains: at once before playback begins, and smoothly later. */
  set(levels, master) {
    [...this.stems, this.master].forEach((gain, i) => {
      const level = i < levels.length ? levels[i] : master;
      gain.gain.cancelScheduledValues(0);
      if (this.context.currentTime === 0) gain.gain.value = level;
      else gain.gain.setTargetAtTime(level, this.context.currentTime, FADE);
    });
  }
}

/** An uninterrupted run of playback, which can be stopped. `soft`: it begins with a short fade. */
class Run {
  constructor(graph, soft, speed = 1, semitones = 0) {
    this.graph = graph;
    this.speed = speed;
    this.semitones = semitones;
    this.delay = 0; // seconds to count in
    this.origin = 0; // when the first sample is heard, in seconds of the clock; later if the sound was interrupted
    this.soft = soft;
    this.sources = new Set();
    this.stopped = false;
    this.fades = graph.stems.map((gain) => {
      const fade = new GainNode(graph.context);
      fade.connect(gain);
      return fade;
    });
  }

  /** Start a buffer for each stem at the same sample of the clock, at `time` in seconds. */
  start(buffers, time) {
    if (this.soft) {
      for (const fade of this.fades) fade.gain.setValueAtTime(0, time).setTargetAtTime(1, time, FADE);
      this.soft = false;
    }
    buffers.forEach((buffer, i) => {
      const source = new AudioBufferSourceNode(this.graph.context, { buffer });
      source.connect(this.fades[i]);
      source.onended = () => {
        source.disconnect();
        this.sources.delete(source);
      };
      this.sources.add(source);
      source.start(time);
    });
  }

  /** Click `count` times, `interval` seconds apart, before the sound begins. */
  countIn(count, interval) {
    const { context, master } = this.graph;
    this.delay = count * interval;
    for (let i = 0; i < count; i++) {
      const time = context.currentTime + SOON + i * interval;
      const source = new OscillatorNode(context, { frequency: i ? 1000 : 1500 });
      const click = new GainNode(context, { gain: 0 });
      click.gain.setValueAtTime(0.4, time).setTargetAtTime(0, time, 0.015);
      source.connect(click).connect(master);
      source.onended = () => this.sources.delete(source);
      this.sources.add(source);
      source.start(time);
      source.stop(time + 0.1);
    }
  }

  stop() {
    this.stopped = true;
    const now = this.graph.context.currentTime;
    for (const fade of this.fades) fade.gain.cancelScheduledValues(now).setTargetAtTime(0, now, FADE);
    for (const source of this.sources) source.stop(now + 8 * FADE);
  }
}

/** A part of a buffer, cut at samples: offsets in seconds could be off by one where segments meet. */
function part(samples, from, to) {
  if (from === 0 && to === samples.length) return samples;
  const { numberOfChannels, sampleRate } = samples;
  const cut = new AudioBuffer({ numberOfChannels, length: to - from, sampleRate });
  for (let c = 0; c < numberOfChannels; c++) cut.copyToChannel(samples.getChannelData(c).subarray(from, to), c);
  return cut;
}

/** Plays the stems at another speed or pitch: pieces of them in, buffers out. */
class Warp {
  constructor(song, speed, semitones) {
    this.rate = song.rate;
    this.speed = speed;
    this.semitones = semitones;
    this.channels = null; // of each stem, once they are known
    this.left = Infinity; // samples of output, once the end is known
  }

  /** Add samples `from` to `to` of a segment's stems. */
  push(segment, from, to) {
    this.channels ??= segment.map(({ numberOfChannels }) => numberOfChannels);
    const rows = segment.flatMap((samples) => channelsOf(samples));
    this.stretcher ??= new Stretcher(rows.length, this.rate, this.speed, this.semitones);
    this.stretcher.push(rows, from, to);
  }

  finish() {
    this.left = this.stretcher.finish() - this.stretcher.pulled;
  }

  /** The next buffers, one for each stem; null if there is too little input, or nothing left. */
  pull() {
    const pieces = [];
    for (let piece; pieces.length < PIECES && this.left > 0 && (piece = this.stretcher.pull()); pieces.push(piece)) {
      const length = Math.min(piece[0].length, this.left);
      this.left -= length;
      if (length < piece[0].length) piece.forEach((row, i) => (piece[i] = row.subarray(0, length)));
    }
    if (!pieces.length) return null;
    const length = pieces.reduce((sum, piece) => sum + piece[0].length, 0);
    let row = 0;
    return this.channels.map((numberOfChannels) => {
      const buffer = new AudioBuffer({ numberOfChannels, length, sampleRate: this.rate });
      for (let c = 0; c < numberOfChannels; c++, row++) {
        let at = 0;
        for (const piece of pieces) {
          buffer.copyToChannel(piece[row], c, at);
          at += piece[row].length;
        }
      }
      return buffer;
    });
  }
}

const channelsOf = (samples) => Array.from({ length: samples.numberOfChannels }, (_, c) => samples.getChannelData(c));

/** What to play from a sample on: a part of a segment, and the sample that comes next (null at the end). */
function stretch(at, song, loop) {
  const index = Math.floor(at / song.segment);
  const first = index * song.segment;
  const looping = loop.on && at < loop.end;
  const end = Math.min(first + song.segment, looping ? loop.end : song.length);
  const next = looping && end === loop.end ? loop.start : end < song.length ? end : null;
  return { index, from: at - first, to: end - first, next };
}

/** The transport and the mixer. Positions and lengths are in samples. An event "change" follows every change. */
class Player extends EventTarget {
  constructor(song) {
    super();
    this.song = song;
    this.segments = new SegmentCache(song);
    this.stems = song.stems.map(() => ({ volume: 0, muted: false, solo: false }));
    this.master = 0;
    this.speed = 1;
    this.semitones = 0;
    this.counting = false; // whether playing begins with clicks
    this.original = false; // whether the song itself is heard, in place of the mix
    this.loop = { on: false, start: 0, end: song.length };
    this.run = null; // of class Run, while it plays
    this.heard = []; // what was read, in order: {from, at, length}; `from` counts what was read before
    this.rest = 0; // the position while it does not play
    this.graph = null;
    this.problem = "";
  }

  get playing() {
    return this.run !== null;
  }

  get position() {
    if (!this.run) return this.rest;
    const { currentTime, outputLatency } = this.graph.context;
    const { origin, speed } = this.run;
    const now = (currentTime - (outputLatency || 0) - origin) * this.song.rate * speed;
    while (this.heard.length > 1 && this.heard[1].from <= now) this.heard.shift();
    if (!this.heard.length) return this.rest;
    const { from, at, length } = this.heard[0];
    return at + Math.min(Math.max(0, Math.round(now - from)), length);
  }

  /** All gains. Stems in solo are heard, or else those that are not muted; with the rest, all make up the song. */
  levels() {
    if (this.original) return [...this.stems.map(() => 1), 1];
    const alone = this.stems.some((stem) => stem.solo);
    return [...this.stems.map((stem) => ((alone ? stem.solo : !stem.muted) ? gainOf(stem.volume) : 0)), 0];
  }

  /** The mix of the stems as it stands, for a file, as the gain of each stem by name. */
  gains() {
    const { original } = this;
    this.original = false;
    const levels = this.levels();
    this.original = original;
    return Object.fromEntries(this.song.stems.map(({ name }, i) => [name, levels[i]]));
  }

  play() {
    if (this.playing) return;
    this.graph ??= new Graph(this.open(), this.stems.length);
    this.graph.set(this.levels(), gainOf(this.master));
    if (this.rest >= this.song.length) this.rest = this.loop.on ? this.loop.start : 0;
    this.begin(this.rest, this.counting ? COUNT : 0);
  }

  pause() {
    this.halt(this.position);
  }

  toggle() {
    if (this.playing) this.pause();
    else this.play();
  }

  seek(position) {
    const at = Math.round(Math.min(Math.max(0, position), this.song.length));
    const playing = this.playing;
    this.halt(at);
    if (playing && at < this.song.length) this.begin(at);
  }

  /** Change the mixer: a stem's settings, or { master } or { original }. */
  mix(index, settings) {
    if (index === null) Object.assign(this, settings);
    else Object.assign(this.stems[index], settings);
    this.graph?.set(this.levels(), gainOf(this.master));
    this.changed();
  }

  /** Set the loop, which is at least a tenth of a second long, and turn it on or off. */
  setLoop(on, start = this.loop.start, end = this.loop.end) {
    const shortest = Math.min(this.song.rate / 10, this.song.length);
    start = Math.round(Math.min(Math.max(0, start), this.song.length - shortest));
    end = Math.round(Math.min(Math.max(end, start + shortest), this.song.length));
    this.loop = { on, start, end };
    if (this.playing) this.seek(this.position); // what is scheduled follows the old loop
    else this.changed();
  }

  /** Play faster or slower, from SPEEDS[0] to SPEEDS[1] times, and higher or lower by SEMITONES. */
  warp(speed, semitones) {
    const within = (value, [least, most]) => Math.min(Math.max(least, value), most);
    const at = this.position;
    this.speed = within(Math.round(100 * speed) / 100, SPEEDS);
    this.semitones = within(Math.round(semitones), SEMITONES);
    if (this.playing) this.seek(at); // what is scheduled has the old speed
    else this.changed();
  }

  open() {
    try {
      return new AudioContext({ sampleRate: this.song.rate, latencyHint: "interactive" });
    } catch {
      return new AudioContext(); // it resamples what it plays
    }
  }

  /** Samples from one beat to the next, around a position. */
  beat(at) {
    const { beats, rate } = this.song;
    const next = beats.findIndex((each) => each > at);
    if (beats.length < 2) return rate / 2;
    const i = next < 0 ? beats.length - 1 : Math.max(1, next);
    return beats[i] - beats[i - 1];
  }

  /** The beat that is nearest to a position; the position itself if there are none nearby. */
  snap(position) {
    const nearest = this.song.beats.reduce((best, each) => (Math.abs(each - position) < Math.abs(best - position) ? each : best), Infinity);
    return Math.abs(nearest - position) < this.beat(position) ? nearest : position;
  }

  begin(at, count = 0) {
    const run = new Run(this.graph, at > 0, this.speed, this.semitones);
    this.run = run;
    this.heard = [];
    this.rest = at;
    this.report("");
    this.wake(run)
      .then(() => {
        if (count && !run.stopped) run.countIn(count, this.beat(at) / this.song.rate / run.speed);
        return this.feed(run, at);
      })
      .catch((error) => {
        if (run.stopped) return;
        this.halt(this.position);
        this.report(`The audio cannot be played: ${error.message}.`);
      });
  }

  /** Wait until the clock runs, and report it if that takes long: some browsers wait for an audio device. */
  async wake(run) {
    const running = this.graph.context.resume().then(() => true);
    if (!(await Promise.race([running, sleep(3)])) && !run.stopped) {
      this.report("The browser has not found an audio device yet.");
    }
    await running;
    if (this.problem && !run.stopped) this.report("");
  }

  halt(at) {
    this.run?.stop();
    this.run = null;
    this.rest = at;
    this.changed();
  }

  /** Keep the next AHEAD seconds scheduled, until the run is stopped or the song ends. */
  async feed(run, at) {
    const { context } = this.graph;
    const { sampleRate } = context;
    const scale = sampleRate / this.song.rate;
    const warp = run.speed === 1 && run.semitones === 0 ? null : new Warp(this.song, run.speed, run.semitones);
    // Of the next buffer on the clock, in whole samples, so that nothing is interpolated.
    let frame = run.delay && Math.ceil((context.currentTime + SOON + run.delay) * sampleRate);
    run.origin = frame / sampleRate;
    let from = 0; // samples that were read so far
    const ahead = async () => {
      while (!run.stopped && frame / sampleRate > context.currentTime + AHEAD) await sleep(0.1);
    };
    const start = (buffers) => {
      const earliest = Math.ceil((context.currentTime + SOON) * sampleRate);
      run.origin += Math.max(0, earliest - frame) / sampleRate;
      frame = Math.max(frame, earliest);
      run.start(buffers, frame / sampleRate);
      frame += buffers[0].length * scale;
    };
    const startWarped = async () => {
      for (let buffers; (buffers = warp.pull()); await sleep(0)) {
        await ahead();
        if (run.stopped) return;
        start(buffers);
      }
    };
    while (at !== null) {
      const piece = stretch(at, this.song, this.loop);
      const segment = await this.segments.get(piece.index).catch(async (error) => {
        while (!run.stopped && frame / sampleRate > context.currentTime) await sleep(0.1);
        throw error; // when everything before it was heard
      });
      await ahead();
      if (run.stopped) return;
      this.heard.push({ from, at, length: piece.to - piece.from });
      from += piece.to - piece.from;
      at = piece.next;
      if (warp) {
        warp.push(segment, piece.from, piece.to);
        if (at === null) warp.finish();
        await startWarped();
        if (run.stopped) return;
      } else start(segment.map((samples) => part(samples, piece.from, piece.to)));
    }
    while (!run.stopped && this.position < this.song.length) await sleep(0.05);
    if (!run.stopped) this.halt(this.song.length);
  }

  report(problem) {
    this.problem = problem;
    this.changed();
  }

  changed() {
    this.dispatchEvent(new Event("change"));
  }
}
