// Slower and faster at the same pitch, higher and lower at the same speed.
//
// Pitch is changed by resampling, and the time that this takes or saves is made up for by WSOLA: pieces of the sound
// are repeated or left out where they continue most smoothly. All stems are cut at the same samples, so they stay
// together. Verhelst and Roelands, "An overlap-add technique based on waveform similarity (WSOLA) for high quality
// time-scale modification of speech" (ICASSP 1993).

const PIECE_SECONDS = 0.025; // of one cross-fade; a period of the lowest notes
const CROSSINGS = 16; // zeros of the resampling filter on each side
const PER_CROSSING = 256; // values in its table

/** A windowed sinc by distance from its middle, in steps of 1 / PER_CROSSING. */
const SINC = Float32Array.from({ length: CROSSINGS * PER_CROSSING + 2 }, (_, i) => {
  const x = i / PER_CROSSING;
  if (x >= CROSSINGS) return 0;
  const window = 0.42 + 0.5 * Math.cos((Math.PI * x) / CROSSINGS) + 0.08 * Math.cos((2 * Math.PI * x) / CROSSINGS);
  return window * (x === 0 ? 1 : Math.sin(Math.PI * x) / (Math.PI * x));
});

/** Rows of samples from which the oldest are dropped; positions count from the first sample ever added. */
class Rows {
  constructor(count) {
    this.rows = Array.from({ length: count }, () => new Float32Array(1 << 15));
    this.first = 0;
    this.end = 0;
  }

  /** Add samples: `fill(row, offset)` writes `length` of them for each row. */
  add(length, fill) {
    const kept = this.end - this.first;
    if (kept + length > this.rows[0].length) {
      const size = 2 ** Math.ceil(Math.log2(kept + length));
      this.rows = this.rows.map((row) => {
        const larger = new Float32Array(size);
        larger.set(row.subarray(0, kept));
        return larger;
      });
    }
    this.rows.forEach((row, i) => fill(row, kept, i));
    this.end += length;
  }

  /** Forget what is before a position; half of the memory at least is free then. */
  drop(position) {
    const count = Math.min(position, this.end) - this.first;
    if (count < this.rows[0].length / 2) return;
    for (const row of this.rows) row.copyWithin(0, count, this.end - this.first);
    this.first += count;
  }
}

/** Changes the rate of rows by a factor: the output has 1 / ratio as many samples. */
class Resampler {
  constructor(count, ratio) {
    this.ratio = ratio;
    this.scale = Math.min(1, 1 / ratio); // of the cut-off frequency
    this.reach = Math.ceil(CROSSINGS / this.scale);
    this.input = new Rows(count);
    this.input.add(this.reach, () => {}); // silence before the start
    this.done = 0; // samples of output
  }

  /** Add samples to `output`, as far as the input reaches. */
  move(output) {
    const { ratio, scale, reach, input } = this;
    const count = Math.max(0, Math.floor((input.end - 2 * reach - 1) / ratio) + 1 - this.done);
    if (!count) return;
    const weights = new Float32Array(2 * reach);
    const start = this.done;
    let at = 0;
    output.add(count, () => (at = output.end - output.first));
    for (let j = 0; j < count; j++) {
      const position = (start + j) * ratio + reach;
      const whole = Math.floor(position);
      for (let i = 0; i < 2 * reach; i++) {
        const place = Math.abs(position - (whole - reach + 1 + i)) * scale * PER_CROSSING;
        const below = Math.min(Math.floor(place), SINC.length - 2);
        weights[i] = scale * (SINC[below] + (SINC[below + 1] - SINC[below]) * (place - below));
      }
      const from = whole - reach + 1 - input.first;
      for (let r = 0; r < input.rows.length; r++) {
        const row = input.rows[r];
        let sum = 0;
        for (let i = 0; i < 2 * reach; i++) sum += weights[i] * row[from + i];
        output.rows[r][at + j] = sum;
      }
    }
    this.done += count;
    input.drop(Math.floor(this.done * ratio));
  }
}

/** Stretches rows of samples, which may be of several stems: push input, and pull output, 1 / speed as much. */
class Stretcher {
  constructor(count, rate, speed, semitones) {
    const ratio = 2 ** (semitones / 12);
    this.speed = speed;
    this.step = speed / ratio; // samples of sound that a sample of output moves on
    this.piece = 2 * Math.round((rate * PIECE_SECONDS) / 2);
    this.range = this.piece / 2;
    this.sound = new Rows(count);
    this.resampler = ratio === 1 ? null : new Resampler(count, ratio);
    this.pushed = 0; // samples of input
    this.pulled = 0; // samples of output
    this.last = null; // where the last piece came from
    this.rise = Float32Array.from({ length: this.piece }, (_, i) => 0.5 - 0.5 * Math.cos((Math.PI * (i + 0.5)) / this.piece));
  }

  /** Add samples `from` to `to` of an array for each row. */
  push(rows, from, to) {
    this.pushed += to - from;
    this.append(to - from, (row, offset, i) => row.set(rows[i].subarray(from, to), offset));
  }

  append(length, fill) {
    if (!this.resampler) return this.sound.add(length, fill);
    this.resampler.input.add(length, fill);
    return this.resampler.move(this.sound);
  }

  /** Add silence after the end, so that everything can be pulled; return how many samples of output that makes. */
  finish() {
    const length = Math.round(this.pushed / this.speed);
    this.append(Math.ceil(8 * this.piece * Math.max(1, this.speed)) + 4096, (row, offset) => row.fill(0, offset));
    return length;
  }

  /** Return the next piece of output as an array for each row, or null if there is too little input. */
  pull() {
    const { sound, piece, range } = this;
    const target = Math.round(this.pulled * this.step);
    if (target + range + 2 * piece > sound.end) return null;
    const from = this.last === null ? target : this.choose(this.last + piece, target);
    const before = (this.last === null ? from : this.last + piece) - sound.first;
    const after = from - sound.first;
    const output = sound.rows.map((row) => {
      const mixed = new Float32Array(piece);
      for (let i = 0; i < piece; i++) mixed[i] = row[before + i] + (row[after + i] - row[before + i]) * this.rise[i];
      return mixed;
    });
    this.last = from;
    this.pulled += piece;
    sound.drop(Math.min(from + piece, Math.round(this.pulled * this.step) - range));
    return output;
  }

  /** The position near `target` whose sound is most like that at `natural`, where the last piece would go on. */
  choose(natural, target) {
    if (natural === target) return target;
    const { sound, piece, range } = this;
    const low = Math.max(target - range, sound.first, 0);
    const span = target + range + piece - low;
    const mix = new Float32Array(span);
    const like = new Float32Array(piece);
    sound.rows.forEach((row, r) => {
      const weight = 1 + (r % 8) / 8; // so that opposite channels do not cancel
      for (let i = 0; i < span; i++) mix[i] += weight * row[low - sound.first + i];
      for (let i = 0; i < piece; i++) like[i] += weight * row[natural - sound.first + i];
    });
    const score = (offset, stride) => {
      let product = 0;
      let energy = 1e-9;
      for (let i = 0; i < piece; i += stride) {
        product += mix[offset + i] * like[i];
        energy += mix[offset + i] ** 2;
      }
      return product / Math.sqrt(energy);
    };
    const best = (from, to, by, stride, start) => {
      let [place, most] = [start, score(start, stride)];
      for (let offset = from; offset <= to; offset += by) {
        const now = score(offset, stride);
        if (now > most) [place, most] = [offset, now];
      }
      return place;
    };
    const limit = span - piece;
    const coarse = best(0, limit, 4, 4, target - low);
    return low + best(Math.max(0, coarse - 4), Math.min(limit, coarse + 4), 1, 1, coarse);
  }
}
