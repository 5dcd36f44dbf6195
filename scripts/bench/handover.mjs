// How long a lock takes to get from one process to another that waits for it. Round trips: there and back. Against what
// the machine can do: two C programs that wake each other with a futex, and for asynchronous waits, two wake-ups of an
// event loop by uv_async_send besides.
import { Actor } from './actor.mjs';
import { dropNamespace, freshNamespace, nowNs, probe, summarize } from './measure.mjs';

const START_NS = 20e6; // after the order to start, so that both begin at once

export async function run({ quick }) {
  const namespace = freshNamespace();
  const turns = quick ? 1000 : 5000;
  const hops = quick ? 200 : 500;
  const rounds = quick ? 5 : 15;
  const values = { futex: [], sync: [], async: [], wakeUp: [] };
  const actors = await Actor.startMany(2);
  try {
    for (let round = 0; round < rounds; round++) {
      values.futex.push(probe.futexPingPong(turns) / turns);
      values.wakeUp.push(summarize(await new Promise((resolve) => probe.loopWakeUps(hops, resolve))).median);
      for (const kind of ['sync', 'async']) {
        await Promise.all(actors.map((actor, side) => actor.call('takeSide', namespace, side)));
        const beginNs = nowNs() + START_NS;
        const taken = await Promise.all(
          actors.map((actor, side) => actor.call('pingPong', kind, side, turns, beginNs)),
        );
        values[kind].push(taken[0] / turns);
      }
    }
  } finally {
    await Promise.all(actors.map((actor) => actor.end()));
    dropNamespace(namespace);
  }
  return Object.fromEntries(Object.entries(values).map(([name, list]) => [name, summarize(list)]));
}
