// What a process pays for waits that are pending and that nothing happens to: CPU time, and delays of its event loop.
import { Actor } from './actor.mjs';
import { dropNamespace, freshNamespace } from './measure.mjs';

export async function run({ quick }) {
  const ms = quick ? 2000 : 10000;
  const counts = [0, 1, 100, 1000];
  const namespace = freshNamespace();
  const [holder, ...idlers] = await Actor.startMany(counts.length + 1);
  const rows = {};
  try {
    await holder.call('hold', 'held', namespace);
    // One after the other in a full run: the others' timers would delay the one that is measured.
    const measure = async (count, i) => {
      rows[count] = await idlers[i].call('idle', 'held', namespace, count, ms);
    };
    if (quick) await Promise.all(counts.map(measure));
    else for (const [i, count] of counts.entries()) await measure(count, i);
  } finally {
    await Promise.all([holder, ...idlers].map((actor) => actor.end()));
    dropNamespace(namespace);
  }
  return rows;
}
