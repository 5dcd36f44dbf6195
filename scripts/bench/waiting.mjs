// What a process pays for waits that are pending and that nothing happens to: CPU time, and delays of its event loop.
import { Actor } from './actor.mjs';
import { dropNamespace, freshNamespace, sleep, summarize } from './measure.mjs';

export async function run({ quick }) {
  const ms = quick ? 400 : 2000;
  const rounds = 5;
  const counts = [0, 1, 100, 1000];
  const namespace = freshNamespace();
  const [holder, ...idlers] = await Actor.startMany(counts.length + 1);
  try {
    await holder.call('hold', 'held', namespace);
    await Promise.all(idlers.map((idler, i) => idler.call('beginWaits', 'held', namespace, counts[i])));
    await sleep(1500); // what it took to begin them is over, and the locks count as quiet
    const results = counts.map(() => []);
    // One after the other: the others' timers would delay the one that is measured.
    for (let round = 0; round < rounds; round++) {
      for (const [i, idler] of idlers.entries()) results[i].push(await idler.call('idle', ms));
    }
    return Object.fromEntries(counts.map((count, i) => [count, figures(results[i])]));
  } finally {
    await Promise.all([holder, ...idlers].map((actor) => actor.end()));
    dropNamespace(namespace);
  }
}

function figures(rounds) {
  const median = (of) => summarize(rounds.map(of)).median;
  return {
    cpuMsPerSecond: median((round) => round.cpuMsPerSecond),
    delayUs: {
      p50: median((round) => round.delayUs.p50),
      p99: median((round) => round.delayUs.p99),
      max: Math.max(...rounds.map((round) => round.delayUs.max)),
    },
  };
}
