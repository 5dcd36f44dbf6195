// How the scenarios measure. The machine is noisy and its speed drifts: what is to be compared is measured in
// interleaved rounds of one process, and a figure is the median over the rounds, with the quartiles as its spread.
import { rmSync, statSync } from 'node:fs';
import { createRequire } from 'node:module';
import { measure } from 'mitata';

const require = createRequire(import.meta.url);
export const proclock = require('../../dist');
export const probe = require('../../build/Release/proclock_bench.node');

const OPTIONS = {
  gc: false,
  min_cpu_time: 4e6,
  min_samples: 20,
  // Samples have to be short: one that is longer than a time slice contains, on a busy machine, the slices of others, and
  // slow functions would seem slower still.
  batch_samples: 64,
  batch_threshold: 10e3,
};

/** One value for several rounds of the same thing. */
export function summarize(values) {
  const sorted = [...values].sort((a, b) => a - b);
  const at = (part) => sorted[Math.max(0, Math.ceil(part * sorted.length) - 1)];
  return {
    median: at(0.5),
    low: at(0.25),
    high: at(0.75),
    p99: at(0.99),
    min: sorted[0],
    max: sorted.at(-1),
    count: sorted.length,
  };
}

/**
 * Nanoseconds per call of each function, in interleaved rounds. mitata makes a loop of its own for each function and
 * round, so that none is optimised for what another one did.
 */
export async function perCall(functions, rounds) {
  const values = new Map(Object.keys(functions).map((name) => [name, []]));
  for (let round = 0; round <= rounds; round++) {
    for (const [name, fn] of Object.entries(functions)) {
      const { p50 } = await measure(fn, { ...OPTIONS });
      if (round > 0) values.get(name).push(p50); // the first round warms up
    }
  }
  return Object.fromEntries([...values].map(([name, list]) => [name, summarize(list)]));
}

const BUCKETS_PER_OCTAVE = 8;

/** Counts durations in buckets that are 9 % wide: no more than a table or a chart shows, and cheap beside what is timed. */
export class Histogram {
  #counts = [];
  #max = 0;

  static of({ counts, max }) {
    const histogram = new Histogram();
    histogram.#counts = counts;
    histogram.#max = max;
    return histogram;
  }

  static sum(histograms) {
    const sum = new Histogram();
    for (const { counts, max } of histograms) {
      for (let i = 0; i < counts.length; i++) sum.#counts[i] = (sum.#counts[i] ?? 0) + (counts[i] ?? 0);
      sum.#max = Math.max(sum.#max, max);
    }
    return sum;
  }

  add(us) {
    const bucket = us <= 0.01 ? 0 : Math.ceil(Math.log2(us * 100) * BUCKETS_PER_OCTAVE);
    this.#counts[bucket] = (this.#counts[bucket] ?? 0) + 1;
    if (us > this.#max) this.#max = us;
  }

  /** The upper end of the bucket that this part of all durations does not exceed, in microseconds. */
  at(part) {
    const wanted = part * this.#counts.reduce((sum, count) => sum + (count ?? 0), 0);
    let seen = 0;
    const bucket = this.#counts.findIndex((count) => {
      seen += count ?? 0;
      return seen >= wanted;
    });
    return Math.min(this.#max, 2 ** (bucket / BUCKETS_PER_OCTAVE) / 100);
  }

  get max() {
    return this.#max;
  }

  toJSON() {
    return { counts: this.#counts, max: this.#max };
  }
}

/** A namespace for one scenario; its segment is removed by {@link dropNamespace}. */
export function freshNamespace() {
  return `bench-${process.pid}-${Math.random().toString(36).slice(2, 8)}`;
}

export function segmentNameOf(namespace) {
  return `/proclock-${process.geteuid()}-${namespace}`;
}

export function dropNamespace(namespace) {
  rmSync(fileOf(namespace), { force: true });
}

function fileOf(namespace) {
  return `/dev/shm${segmentNameOf(namespace)}`;
}

/** Memory that a namespace really uses. */
export function bytesOf(namespace) {
  return statSync(fileOf(namespace)).blocks * 512;
}

/** CLOCK_MONOTONIC: comparable between processes. */
export function nowNs() {
  return Number(process.hrtime.bigint());
}

export function sleep(ms) {
  return new Promise((resolve) => setTimeout(resolve, ms));
}
