// A process that is stopped (SIGSTOP) or busy keeps what it holds, and does not hold up those who wait behind it.
import { existsSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { SharedLock } from '../lib';
import { ACTOR_KINDS, type Actor, PROCESS_KINDS, startActors } from './support/actor';
import { expectIdle, lockPerTest, MODES, name, state, untilPending } from './support/locks';
import { until } from './support/namespace';
import { FOLDER } from './support/segment';

let namespace: string;
let lock: SharedLock;

lockPerTest((fresh) => {
  lock = fresh;
  ({ namespace } = fresh);
});

describe.each(PROCESS_KINDS)('a stopped %s process', (kind) => {
  test.each(MODES)('keeps what it holds (%s)', async (mode) => {
    const [holder, other] = await startActors([kind, 'fork'], { namespace });
    await holder!.acquire({ name, mode });
    const pending = await other!.queue({ name, mode: 'exclusive' });
    await holder!.stop();
    for (const patience of [0, 1, 300]) {
      await expect(lock.exclusive({ timeout: patience })).rejects.toMatchObject({ code: 'ERR_LOCK_TIMEOUT' });
    }
    expect(lock.tryExclusive()).toBeNull();
    expect(lock.query()).toEqual(state([mode], ['exclusive']));
    expect(pending.settled).toBe(false);
    holder!.cont();
    await holder!.release(name);
    expect((await pending.promise).abandoned).toBeNull();
    await other!.release(name);
    expectIdle(lock);
  });

  test.each(['acquire', 'acquireSync'] as const)(
    'at the front of the queue (%s) lets those behind it pass, and gets its turn when it goes on',
    async (way) => {
      const [front, ...behind] = await startActors([kind, ...ACTOR_KINDS], { namespace });
      const guard = lock.exclusiveSync();
      const first = front!.begin(way, { name, mode: 'exclusive' });
      await untilPending(lock, 1);
      const waiting = new Map<Actor, Promise<Actor>>();
      for (const waiter of behind) {
        const { promise } = await waiter.queue({ name, mode: 'exclusive' });
        waiting.set(
          waiter,
          promise.then(() => waiter),
        );
      }
      await front!.stop();
      guard.release();
      while (waiting.size > 0) {
        // In any order: on a busy machine one of them may itself be too late to keep its turn.
        const waiter = await Promise.race(waiting.values());
        waiting.delete(waiter);
        expect(lock.query().pending[0]).toMatchObject({ pid: front!.pid });
        expect(first.settled).toBe(false);
        // The last one stays inside while the front goes on: its turn comes with the release.
        if (waiting.size === 0) front!.cont();
        await waiter.release(name);
      }
      expect((await first.promise).abandoned).toBeNull();
      await front!.release(name);
      expectIdle(lock);
    },
  );

  test('at the front of the queue gets a free lock when it goes on', async () => {
    const [front, other] = await startActors([kind, 'fork'], { namespace });
    const guard = lock.exclusiveSync();
    const first = await front!.queue({ name, mode: 'exclusive' });
    const second = await other!.queue({ name, mode: 'shared' });
    await front!.stop();
    guard.release();
    await second.promise;
    await other!.release(name);
    await until(() => lock.query().held.length === 0);
    front!.cont();
    await first.promise;
    await front!.release(name);
    expectIdle(lock);
  });
});

test('a stopped process with four hundred waits at the front of the queue is passed over with all of them at once', async () => {
  const WAITS = 400;
  const GRANTED_MS_MAX = 5000; // each of them alone would be waited for for 50
  const [front, next] = await startActors(['fork', 'fork'], { namespace });
  const guard = lock.exclusiveSync();
  const waits = Array.from({ length: WAITS }, (_, n) =>
    front!.begin('acquire', { name, mode: 'exclusive', as: `wait ${n}` }),
  );
  await untilPending(lock, WAITS);
  const waiting = await next!.queue({ name, mode: 'exclusive' });
  await front!.stop();
  guard.release();
  const from = performance.now();
  await waiting.promise;
  expect(performance.now() - from).toBeLessThan(GRANTED_MS_MAX);
  front!.cont();
  await next!.release(name);
  // None of them is lost. (In which order they come, when their process goes on, is another matter.)
  const left = new Map(
    waits.map(({ promise }, n) => [n, promise.then(({ abandoned }) => ({ n, abandoned }))]),
  );
  while (left.size > 0) {
    const { n, abandoned } = await Promise.race(left.values());
    expect(abandoned).toBeNull();
    left.delete(n);
    await front!.release(`wait ${n}`);
  }
  expectIdle(lock);
});

test.each(ACTOR_KINDS)('a %s waiter whose event loop is busy lets those behind it pass', async (kind) => {
  const [front, next] = await startActors([kind, 'fork'], { namespace });
  const guard = lock.exclusiveSync();
  const first = await front!.queue({ name, mode: 'exclusive' });
  const second = await next!.queue({ name, mode: 'exclusive' });
  const marker = join(tmpdir(), `proclock-busy-${namespace}`);
  const busy = front!.begin('run', {
    source: `const fs = require('node:fs'); fs.writeFileSync(args, ''); while (fs.existsSync(args));`,
    args: marker,
  });
  try {
    await until(() => existsSync(marker));
    guard.release();
    await second.promise;
    expect(first.settled).toBe(false);
    await next!.release(name);
  } finally {
    rmSync(marker, { force: true });
  }
  await busy.promise;
  await first.promise;
  await front!.release(name);
  expectIdle(lock);
});

test('processes that are stopped at any moment of an acquire or release break nothing', async () => {
  const ROUNDS = 60;
  const actors = await startActors(['fork', 'fork', 'cluster', 'fork'], { namespace });
  const loop = `
    const { openSync, closeSync, unlinkSync } = require('node:fs');
    const it = lock({ name: args.name });
    globalThis.counts = { grants: 0, violations: 0 };
    globalThis.running = true;
    const use = (guard) => {
      if (guard.mode === 'shared') { globalThis.counts.grants++; return; }
      try { closeSync(openSync(args.marker, 'wx')); } catch { globalThis.counts.violations++; return; }
      unlinkSync(args.marker);
      globalThis.counts.grants++;
    };
    const nextTurn = () => new Promise((resolve) => setImmediate(resolve));
    (async () => {
      for (let n = 0; globalThis.running; n++) {
        const way = Math.floor(Math.random() * 5);
        if (way === 0) it.exclusiveSync(use);
        else if (way === 1) await it.exclusive(async (guard) => { use(guard); });
        else if (way === 2) await it.shared(async (guard) => { use(guard); });
        else if (way === 3) it.exclusiveSync((guard) => { use(guard); guard.downgrade(); });
        else { const guard = it.tryExclusive(); if (guard) { use(guard); guard.release(); } }
        if (n % 8 === 0) await nextTurn();
      }
      globalThis.done = true;
    })();`;
  const marker = `${FOLDER}/proclock-marker-${namespace}`;
  for (const actor of actors) await actor.run(loop, { name, marker });
  for (let round = 0; round < ROUNDS; round++) {
    const actor = actors[Math.floor(Math.random() * actors.length)]!;
    await actor.stop();
    await new Promise((resolve) => setTimeout(resolve, Math.random() * 20));
    actor.cont();
    await new Promise((resolve) => setTimeout(resolve, Math.random() * 5));
  }
  for (const actor of actors) {
    const before = await actor.run<{ grants: number }>('return { ...globalThis.counts };');
    await until(
      async () => (await actor.run<{ grants: number }>('return globalThis.counts;')).grants > before.grants,
    );
  }
  for (const actor of actors) await actor.run('globalThis.running = false;');
  for (const actor of actors) {
    await until(() => actor.run<boolean>('return globalThis.done === true;'));
    expect(await actor.run('return globalThis.counts.violations;')).toBe(0);
  }
  const guard = await lock.exclusive({ timeout: 10_000 });
  expect(guard.abandoned).toBeNull();
  guard.release();
  expectIdle(lock);
});
