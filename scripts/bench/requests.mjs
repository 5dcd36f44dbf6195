// Web Locks requests that nobody contends: ours against Node's own, in one process of a Node that has them. Theirs are
// locks of one process, ours of the machine.
import workerThreads from 'node:worker_threads';
import { dropNamespace, freshNamespace, proclock } from './measure.mjs';
import { withLimit } from './uncontended.mjs';

export async function run({ quick, missing }) {
  const namespace = freshNamespace();
  const ours = new proclock.LockManager({ namespace });
  const { locks: theirs } = workerThreads;
  const forms = (name, locks) => ({
    [`await ${name}.request(fn)`]: async () => await locks.request('uncontended', () => 1),
    [`await ${name}.request(async fn)`]: async () => await locks.request('uncontended', async () => 1),
  });
  try {
    const figures = await withLimit(
      {
        ...forms('locks', ours),
        ...(theirs === undefined ? {} : forms('worker_threads.locks', theirs)),
      },
      quick,
    );
    return { node: process.versions.node, figures, missing: missing ?? null };
  } finally {
    dropNamespace(namespace);
  }
}
