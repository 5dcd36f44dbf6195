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
  min_samples: 5,
  // Samples have to be short: one that is longer than a time slice contains, on a busy machine, the slices of others, and
  // slow functions would seem slower still.
  batch_samples: 256,
  batch_threshold: 10e3,
};

/** One value for several rounds of the same thing. */
export function summarize(values) {
  const sorted = [...values].sort((a, b) => a - b);
  const at = (part) => sorted[Math.min(sorted.length - 1, Math.floor(part * sorted.length))];
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

/** A namespace for one scenario; its segment is removed by {@link dropNamespace}. */
export function freshNamespace() {
  return `bench-${process.pid}-${Math.random().toString(36).slice(2, 8)}`;
}

export function segmentOf(namespace) {
  return `/dev/shm/proclock-${process.geteuid()}-${namespace}`;
}

export function dropNamespace(namespace) {
  rmSync(segmentOf(namespace), { force: true });
}

/** Memory that a namespace really uses. */
export function bytesOf(namespace) {
  return statSync(segmentOf(namespace)).blocks * 512;
}

/** CLOCK_MONOTONIC: comparable between processes. */
export function nowNs() {
  return Number(process.hrtime.bigint());
}

export function sleep(ms) {
  return new Promise((resolve) => setTimeout(resolve, ms));
}
