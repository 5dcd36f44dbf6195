'use strict';
// What must hold wherever the package is installed: locks between processes and threads, and the death of their owners.
//
// Runs in an empty folder that has the package in node_modules, under any runtime. The last line is "N passed, N failed".
//   SMOKE_COMMAND  how to start a child, a JSON array, where the runtime's own executable is not enough (an emulator)
//   SMOKE_ROUNDS   how many processes are killed at any moment, where starting one takes seconds
const assert = require('node:assert');
const { mkdtempSync, rmSync } = require('node:fs');
const { tmpdir } = require('node:os');
const { join } = require('node:path');
const { Worker } = require('node:worker_threads');
const { Actor, runAll } = require('./actors.cjs');

const PATIENCE = { timeout: 60_000 };
const namespace = `smoke-${process.pid}-${Date.now().toString(36)}`;
const command = process.env.SMOKE_COMMAND ? { command: JSON.parse(process.env.SMOKE_COMMAND) } : {};
const startActor = () => Actor.start(namespace, command);

async function until(condition) {
  while (!condition()) await new Promise((resolve) => setTimeout(resolve, 5));
}

function tests({ SharedLock, Lock, LockError }) {
  const open = () => new SharedLock('smoke', { namespace });
  return {
    async 'readers share, a writer is alone'() {
      const [one, other] = [await startActor(), await startActor()];
      await one.do('shared');
      await other.do('shared');
      const lock = open();
      assert.strictEqual(lock.tryExclusive(), null);
      const pids = lock.query().held.map(({ pid }) => pid);
      assert.deepStrictEqual(pids.sort(), [one.pid, other.pid].sort());
      await one.do('release');
      await other.do('release');
      const guard = lock.tryExclusive();
      assert.strictEqual(await one.do('tryExclusive'), false);
      guard.release();
      assert.strictEqual(await one.do('tryExclusive'), true);
      await one.do('release');
      await one.kill();
      await other.kill();
    },

    async 'a holder that is killed is succeeded, and its successor is told'() {
      const lock = open();
      const holder = await startActor();
      await holder.do('exclusive');
      const waiting = lock.exclusive(PATIENCE);
      await until(() => lock.query().pending.length === 1);
      await holder.kill();
      const guard = await waiting;
      assert.strictEqual(guard.abandoned.pid, holder.pid);
      guard.release();
      const next = await lock.exclusive(PATIENCE);
      assert.strictEqual(next.abandoned, null);
      assert.ok(next.token > guard.token);
      next.release();
    },

    async 'a waiter that is killed leaves the queue'() {
      const lock = open();
      const guard = lock.tryExclusive();
      const waiter = await startActor();
      waiter.do('exclusive').catch(() => {});
      await until(() => lock.query().pending.some(({ pid }) => pid === waiter.pid));
      await waiter.kill();
      guard.release();
      const next = await lock.exclusive(PATIENCE);
      assert.deepStrictEqual(lock.query().pending, []);
      next.release();
    },

    async 'a timeout says who holds it'() {
      const holder = await startActor();
      await holder.do('exclusive');
      await assert.rejects(open().exclusive({ timeout: 20 }), (error) => {
        assert.ok(error instanceof LockError);
        assert.strictEqual(error.code, 'ERR_LOCK_TIMEOUT');
        assert.deepStrictEqual(
          error.holders.map(({ pid }) => pid),
          [holder.pid],
        );
        return true;
      });
      await holder.do('release');
      await holder.kill();
    },

    async 'a synchronous wait is ended by another process'() {
      const holder = await startActor();
      await holder.do('exclusive');
      const yielded = holder.do('yield');
      // The step is on its way when the promise exists; this thread does not answer anybody until it has the lock.
      await new Promise((resolve) => setImmediate(resolve));
      open().exclusiveSync(PATIENCE).release();
      await yielded;
      await holder.kill();
    },

    async 'a worker that is terminated gives its lock back'() {
      const lock = open();
      const worker = new Worker(join(__dirname, 'worker.cjs'), { workerData: namespace });
      assert.strictEqual(await new Promise((resolve) => worker.once('message', resolve)), true);
      assert.strictEqual(lock.tryExclusive(), null);
      const waiting = lock.exclusive(PATIENCE);
      await worker.terminate();
      const guard = await waiting;
      assert.strictEqual(guard.abandoned.pid, process.pid);
      guard.release();
      new Lock('smoke', { namespace }).acquireSync(PATIENCE).release();
    },

    async 'processes that are killed at any moment neither block the others nor let two in'() {
      const folder = mkdtempSync(join(tmpdir(), 'smoke-'));
      const begin = async () => {
        const actor = await startActor();
        actor.failed = actor.do('loop', join(folder, 'held'));
        await actor.failed; // It has begun.
        actor.failed = actor.reply();
        actor.failed.catch(() => {});
        return actor;
      };
      const actors = await Promise.all([begin(), begin(), begin()]);
      for (let round = 0; round < Number(process.env.SMOKE_ROUNDS ?? 15); round++) {
        await new Promise((resolve) => setTimeout(resolve, Math.random() * 10));
        const victim = actors.shift();
        await victim.kill();
        actors.push(await begin());
        const guard = await open().exclusive(PATIENCE);
        rmSync(join(folder, 'held'), { force: true });
        guard.release();
      }
      for (const actor of actors) {
        await actor.kill();
        await assert.rejects(actor.failed, /ended: SIGKILL/);
      }
      rmSync(folder, { recursive: true });
    },
  };
}

exports.run = (proclock) => runAll(tests(proclock), namespace);
