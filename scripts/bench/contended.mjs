// Several processes that want one lock all the time: throughput, how long they wait for it, and how evenly they are served.
import { rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { Actor } from './actor.mjs';
import { dropNamespace, freshNamespace, Histogram, nowNs, summarize } from './measure.mjs';
import { peer } from './peers.mjs';

const KINDS = {
  'no lock at all': null,
  'proclock sync': null,
  'proclock sync, fair': null,
  'flock (fs-ext) sync': 'fs-ext',
  'proclock async': null,
  'fs-native-extensions async': 'fs-native-extensions',
  'proper-lockfile async': 'proper-lockfile',
};
/** Without work, and without a lock, there is nothing left to measure; and not every peer has a shared mode. */
function makesSense(kind, sectionUs, sharedPart) {
  if (kind === 'no lock at all') return sectionUs > 0;
  return kind !== 'proper-lockfile async' || sharedPart === 0;
}

const START_NS = 30e6; // after the order to start, so that all begin at once
const WARM_UP_NS = 50e6;

export async function run({ quick }) {
  const processes = quick ? [4] : [2, 4, 8, 16];
  const sectionsUs = [0, 10, 1000];
  const sharedParts = [0, 0.9];
  const durationNs = quick ? 150e6 : 300e6;
  const rounds = quick ? 1 : 3;
  const namespace = freshNamespace();
  const file = join(tmpdir(), namespace);
  writeFileSync(file, '');
  const kinds = Object.keys(KINDS).filter((kind) => KINDS[kind] === null || peer(KINDS[kind]) !== null);
  const rows = processes.flatMap((count) =>
    sharedParts.flatMap((sharedPart) =>
      sectionsUs.flatMap((sectionUs) =>
        kinds
          .filter((kind) => makesSense(kind, sectionUs, sharedPart))
          .map((kind) => ({ processes: count, sharedPart, sectionUs, kind, rounds: [] })),
      ),
    ),
  );
  const actors = await Actor.startMany(Math.max(...processes));
  try {
    let warm = 0;
    for (let round = 0; round < rounds; round++) {
      for (const row of rows) {
        if (row.processes !== warm) {
          warm = row.processes;
          for (const actor of actors.slice(0, warm)) {
            for (const kind of kinds) await warmUp(actor, kind, { namespace, file });
          }
        }
        const beginNs = nowNs() + START_NS;
        const { sectionUs, sharedPart } = row;
        row.rounds.push(
          await Promise.all(
            actors
              .slice(0, row.processes)
              .map((actor) =>
                actor.call(
                  'hammer',
                  row.kind,
                  { namespace, file },
                  { sectionUs, sharedPart },
                  beginNs,
                  beginNs + durationNs,
                ),
              ),
          ),
        );
      }
    }
  } finally {
    await Promise.all(actors.map((actor) => actor.end()));
    dropNamespace(namespace);
    rmSync(file, { force: true });
  }
  return rows.map(({ rounds: results, ...row }) => ({ ...row, ...figures(results, durationNs / 1e9) }));
}

/**
 * Alone, until its JavaScript is compiled, and it has back the memory that V8 gives away where nothing happens for some
 * seconds. Or those that were at work until now are served several times as often as the others, who compile, or meet a page
 * fault with each section.
 */
function warmUp(actor, kind, where) {
  const beginNs = nowNs();
  return actor.call('hammer', kind, where, { sectionUs: 0, sharedPart: 0.5 }, beginNs, beginNs + WARM_UP_NS);
}

function figures(rounds, seconds) {
  const counts = rounds.map((results) => results.map((result) => result.count));
  const waits = Histogram.sum(rounds.flat().map((result) => result.waits));
  return {
    perSecond: summarize(counts.map((round) => round.reduce((sum, count) => sum + count, 0) / seconds)),
    waitUs: { p50: waits.at(0.5), p99: waits.at(0.99), max: waits.max },
    longestMs: summarize(
      rounds.map((results) => Math.max(...results.map((result) => result.waits.max)) / 1000),
    ),
    leastToMost: summarize(counts.map((round) => Math.min(...round) / Math.max(1, ...round))),
  };
}
