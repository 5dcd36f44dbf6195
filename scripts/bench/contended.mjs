// Several processes that want one exclusive lock all the time and do nothing with it: throughput, the longest time that
// any of them went without it, and how evenly they were served.
import { rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { Actor } from './actor.mjs';
import { dropNamespace, freshNamespace, nowNs, summarize } from './measure.mjs';
import { peer } from './peers.mjs';

const KINDS = {
  'proclock sync': null,
  'proclock sync, fair': null,
  'flock (fs-ext) sync': 'fs-ext',
  'proclock async': null,
  'fs-native-extensions async': 'fs-native-extensions',
};
const PROCESSES = [2, 4];
const START_NS = 50e6; // after the order to start, so that all begin at once

export async function run({ quick }) {
  const namespace = freshNamespace();
  const file = join(tmpdir(), namespace);
  writeFileSync(file, '');
  const durationNs = quick ? 250e6 : 1000e6;
  const kinds = Object.keys(KINDS).filter((kind) => KINDS[kind] === null || peer(KINDS[kind]) !== null);
  const actors = await Promise.all(Array.from({ length: Math.max(...PROCESSES) }, () => Actor.start()));
  const runs = {};
  try {
    for (let round = 0; round < (quick ? 2 : 5); round++) {
      for (const processes of PROCESSES) {
        for (const kind of kinds) {
          const beginNs = nowNs() + START_NS;
          const results = await Promise.all(
            actors
              .slice(0, processes)
              .map((actor) => actor.call('hammer', kind, { namespace, file }, beginNs, beginNs + durationNs)),
          );
          runs[`${processes} x ${kind}`] ??= [];
          runs[`${processes} x ${kind}`].push(results);
        }
      }
    }
  } finally {
    await Promise.all(actors.map((actor) => actor.end()));
    dropNamespace(namespace);
    rmSync(file, { force: true });
  }
  return Object.fromEntries(
    Object.entries(runs).map(([name, rounds]) => [name, figures(rounds, durationNs / 1e9)]),
  );
}

function figures(rounds, seconds) {
  const pairs = rounds.map((results) => results.map((result) => result.pairs));
  return {
    perSecond: summarize(pairs.map((counts) => counts.reduce((sum, count) => sum + count, 0) / seconds)),
    longestMs: summarize(rounds.map((results) => Math.max(...results.map((result) => result.longestMs)))),
    leastToMost: summarize(pairs.map((counts) => Math.min(...counts) / Math.max(...counts))),
  };
}
