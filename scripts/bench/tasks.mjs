// Many tasks in few processes, as a service has them: all want one lock, all the time. Throughput, how long a task waits, and
// how evenly processes are served; beside locks of one process where one process is all there is.
import { Actor } from './actor.mjs';
import { dropNamespace, freshNamespace, Histogram, nowNs, summarize } from './measure.mjs';
import { peer } from './peers.mjs';

/** Each with its package, if it is not ours. All but the shared forms exclude. */
const KINDS = {
  'exclusive(fn)': null,
  'await exclusive()': null,
  'shared(fn)': null,
  '90 % shared(fn)': null,
  'locks.request(fn)': null,
  'async-mutex runExclusive(fn)': 'async-mutex',
  'async-lock acquire(fn)': 'async-lock',
};
const SECTIONS = ['empty', '10 us', 'awaiting'];

const START_NS = 30e6; // after the order to start, so that all begin at once
const WARM_UP_NS = 150e6;

export async function run({ quick }) {
  const processes = quick ? [1, 4] : [1, 2, 4];
  const tasks = quick ? [100] : [10, 100, 1000];
  const sections = quick ? ['empty'] : SECTIONS;
  const durationNs = quick ? 100e6 : 250e6;
  const rounds = quick ? 3 : 5;
  const kinds = Object.keys(KINDS).filter((kind) => KINDS[kind] === null || peer(KINDS[kind]) !== null);
  const namespace = freshNamespace();
  const rows = processes.flatMap((count) =>
    sections.flatMap((section) =>
      tasks.flatMap((each) =>
        kinds
          .filter((kind) => count === 1 || KINDS[kind] === null)
          .map((kind) => ({ processes: count, section, tasks: each, kind, rounds: [] })),
      ),
    ),
  );
  const actors = await Actor.startMany(Math.max(...processes));
  const call = (actor, row, beginNs, forNs) =>
    actor.call('hammerTasks', row.kind, namespace, row, beginNs, beginNs + forNs);
  try {
    for (const kind of kinds) {
      const row = { kind, section: 'empty', tasks: 100 };
      // One after the other: until its JavaScript is compiled a process is served less than the others.
      for (const actor of actors) await call(actor, row, nowNs(), WARM_UP_NS);
    }
    for (let round = 0; round < rounds; round++) {
      for (const row of rows) {
        const beginNs = nowNs() + START_NS;
        const these = actors.slice(0, row.processes);
        const { rounds: results, ...what } = row;
        results.push(await Promise.all(these.map((actor) => call(actor, what, beginNs, durationNs))));
      }
    }
  } finally {
    await Promise.all(actors.map((actor) => actor.end()));
    dropNamespace(namespace);
  }
  return rows.map(({ rounds: results, ...row }) => ({ ...row, ...figures(results) }));
}

function figures(rounds) {
  const counts = rounds.map((results) => results.map((result) => result.count));
  const waits = Histogram.sum(rounds.flat().map((result) => result.waits));
  const total = (round) => round.reduce((sum, count) => sum + count, 0);
  // The tasks that wait at the end are served as well: from the first section to the last.
  const took = rounds.map((results) => Math.max(...results.map((result) => result.tookNs)));
  return {
    sectionNs: summarize(counts.map((round, i) => took[i] / total(round))),
    waitUs: { p50: waits.at(0.5), p99: waits.at(0.99), max: waits.max },
    longestMs: summarize(
      rounds.map((results) => Math.max(...results.map((result) => result.waits.max)) / 1000),
    ),
    leastToMost: summarize(counts.map((round) => Math.min(...round) / Math.max(1, ...round))),
  };
}
