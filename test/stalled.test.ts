// Somebody is stopped (SIGSTOP) inside the latch of a namespace. Nobody gets in there then; but that is all: other namespaces
// of the same processes go on, nobody's event loop or end is held up, nothing is lost, and when the stopped one goes on or
// dies, so does everything else.
import { SharedLock } from '../lib';
import { type Actor, startActor, startActors } from './support/actor';
import { expectLoadBelow, leastOf, stall, startBusy, stopInside, timeOf, unstall } from './support/disturb';
import { name, untilPending } from './support/locks';
import { testNamespace, until } from './support/namespace';
import { Layout, readAt, segmentFile, writeAt } from './support/segment';

const ELSEWHERE_MS_MAX = 1000;
const BLOCKED_MS_MAX = 300; // about 100 is what is wanted; others use this machine as well
const PATIENCE_MS = 1000; // of a process that ends
const EXIT_LATER_MS_MAX = 1000;
const MANY = 200;

let namespace: string;
beforeEach(() => {
  namespace = testNamespace();
});

/** For how long at most the event loop of the actor stood still while it did that. */
function longestBlock(actor: Actor, source: string): Promise<{ blocked: number; result: unknown }> {
  return actor.run(
    `let [last, blocked] = [performance.now(), 0];
     const look = () => {
       const now = performance.now();
       blocked = Math.max(blocked, now - last);
       last = now;
     };
     const timer = setInterval(look, 1);
     await new Promise((resolve) => setTimeout(resolve, 20));
     blocked = 0;
     const result = await (async () => { ${source} })();
     look();
     clearInterval(timer);
     return { blocked, result };`,
    name,
  );
}

/** For the actor: as many waits as that for a lock that is held; \`waits\` are promises of error codes, \`over\` have ended. */
const queueMany = (options: string) => `
  globalThis.over = 0;
  globalThis.waits = Array.from({ length: ${MANY} }, () =>
    lock({ name: args }).exclusive(${options}).then((guard) => { guard.release(); return 'granted'; }, ({ code }) => code)
      .finally(() => globalThis.over++));`;

test('what a thread has left of a thousand shared holds is recovered once, beside the writer that came next', async () => {
  const busy = await startBusy(namespace);
  const [readers, writer] = (await startActors(['thread', 'fork'], { namespace })) as [Actor, Actor];
  await readers.run(
    'globalThis.held = await Promise.all(Array.from({ length: 1000 }, () => lock({ name: args }).shared()));',
    name,
  );
  const waiting = writer.begin('acquireSync', { name, mode: 'exclusive' });
  using lock = new SharedLock(name, { namespace });
  await untilPending(lock, 1);
  await stopInside(busy, namespace);
  await readers.terminate();
  await waiting.promise; // without the latch
  await unstall(busy);
  await until(() => lock.query().held.length === 1);
  await writer.release(name);
  lock.exclusiveSync().release();
});

describe('who waits in another namespace, too', () => {
  test.each(['acquire', 'acquireSync'] as const)('is granted there at once (%s)', async (way) => {
    const elsewhere = testNamespace('-elsewhere');
    const [holder, waiter] = (await startActors(['fork', 'fork'], { namespace })) as [Actor, Actor];
    await holder.acquire({ name, mode: 'exclusive' });
    const here = await waiter.queue({ name, mode: 'exclusive' });
    const there = { name, namespace: elsewhere, as: 'there', mode: 'exclusive' as const };
    using other = new SharedLock(name, { namespace: elsewhere });
    const stopped = await stall(namespace);
    for (let round = 0; round < 3; round++) {
      await holder.acquire(there);
      const waiting = waiter.begin(way, there);
      await untilPending(other, 1);
      await holder.release('there');
      expect(await timeOf(waiting.promise)).toBeLessThan(ELSEWHERE_MS_MAX);
      await waiter.release('there');
    }
    await expectLoadBelow(30, waiter);
    await unstall(stopped);
    await holder.release(name);
    await here.promise;
    await waiter.release(name);
  });

  test('notices a death there, in a thread as in the process', async () => {
    const elsewhere = testNamespace('-elsewhere');
    const waiter = await startActor('fork', { namespace });
    const [holder, dead] = (await startActors(['fork', 'fork'], { namespace })) as [Actor, Actor];
    await holder.acquire({ name, mode: 'exclusive' });
    const here = await waiter.queue({ name, mode: 'exclusive' });
    const stopped = await stall(namespace);
    const there = { name, namespace: elsewhere, as: 'there', mode: 'exclusive' as const };
    await dead.acquire(there);
    const waiting = await waiter.queue(there);
    await dead.kill('SIGKILL');
    expect(await timeOf(waiting.promise)).toBeLessThan(ELSEWHERE_MS_MAX);
    await waiter.release('there');
    await unstall(stopped);
    await holder.release(name);
    await here.promise;
    await waiter.release(name);
  });
});

test.each(['goes on', 'dies'])(
  'what a worker thread held exclusively is marked as abandoned when the stopped one %s',
  async (how) => {
    const owner = await startActor('fork', { namespace });
    const { pid } = owner;
    const worker = `
    const { SharedLock } = require(process.env.PROCLOCK_TEST_DIST ?? ${JSON.stringify(`${__dirname}/../dist`)});
    const { parentPort, workerData, threadId } = require('node:worker_threads');
    new SharedLock(workerData.name, workerData).exclusive().then((guard) => {
      globalThis.guard = guard;
      parentPort.postMessage(threadId);
    });
    setInterval(() => {}, 1000);`;
    const threadId = await owner.run(
      `lock({ name: args.name });
     const { Worker } = require('node:worker_threads');
     globalThis.worker = new Worker(args.worker, { eval: true, workerData: args });
     return new Promise((resolve) => globalThis.worker.once('message', resolve));`,
      { worker, name, namespace },
    );
    const stopped = await stall(namespace);
    await owner.run('await globalThis.worker.terminate();');
    const next = await owner.begin('tryAcquire', { name, mode: 'exclusive' }).promise;
    if (how === 'goes on') await unstall(stopped);
    else await stopped.kill('SIGKILL');
    const grant = next ?? (await owner.acquire({ name, mode: 'exclusive' }));
    expect(grant.abandoned).toMatchObject({ pid, threadId });
    await owner.release(name);
  },
);

test('a process with thirty locks open in three such namespaces ends within two seconds', async () => {
  // One that has nothing to do with them, and takes the first of the two seconds: what holds up one holds up the other.
  const other = await startActor('fork', { namespace });
  await other.run(
    `process.on('exit', () => Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, args));`,
    PATIENCE_MS,
  );
  const namespaces = ['-a', '-b', '-c'].map((suffix) => testNamespace(suffix));
  const leaving = await startActor('fork', { namespace });
  await leaving.run(
    `globalThis.kept = [];
     for (const namespace of args.namespaces) {
       for (let n = 0; n < 10; n++) {
         const it = lock({ name: args.name + n, namespace });
         globalThis.kept.push(await it.exclusive());
         it.exclusive().catch(() => {});
       }
     }`,
    { namespaces, name },
  );
  const stopped = await Promise.all(namespaces.map((one) => stall(one)));
  const ending = leaving.exit(7);
  const [took, otherTook] = await Promise.all([timeOf(ending), timeOf(other.exit())]);
  expect(took - otherTook).toBeLessThan(EXIT_LATER_MS_MAX);
  expect(await ending).toEqual({ code: 7, signal: null });
  for (const one of stopped) await unstall(one);
  for (const one of namespaces) {
    using lock = new SharedLock(`${name}0`, { namespace: one });
    const guard = await lock.exclusive({ timeout: 5000 });
    guard.release();
  }
});

describe('with many waits at a time', () => {
  let waiter: Actor;
  let holder: Actor;
  let lock: SharedLock;

  beforeEach(async () => {
    lock = new SharedLock(name, { namespace });
    [holder, waiter] = (await startActors(['fork', 'fork'], { namespace })) as [Actor, Actor];
    await holder.acquire({ name, mode: 'exclusive' });
  });
  afterEach(() => lock.close());

  const endings = {
    'time out together': ['{ timeout: 3000 }', 'return Promise.all(globalThis.waits);', 'ERR_LOCK_TIMEOUT'],
    'are aborted together': [
      '{ signal: (globalThis.controller = globalThis.controller ?? new AbortController()).signal }',
      'globalThis.controller.abort(); globalThis.controller = undefined; return Promise.all(globalThis.waits);',
      20, // DOMException.ABORT_ERR
    ],
  } as const;

  test.each(Object.entries(endings))(
    'that %s the event loop is not blocked',
    async (_how, [options, end, code]) => {
      const attempt = async () => {
        const busy = await startBusy(namespace);
        await waiter.run(queueMany(options), name);
        await stopInside(busy, namespace);
        const { blocked, result } = await longestBlock(
          waiter,
          `if (globalThis.over > 0) return 'too late'; ${end}`,
        );
        await unstall(busy);
        await untilPending(lock, 0);
        if (result === 'too late') return Number.POSITIVE_INFINITY;
        expect(result).toEqual(Array(MANY).fill(code));
        return blocked;
      };
      expect(await leastOf(BLOCKED_MS_MAX, attempt)).toBeLessThan(BLOCKED_MS_MAX);
      await holder.release(name);
      await until(() => lock.query().held.length === 0);
    },
  );

  test('that begin, the event loop is not blocked, and all of them are granted later', async () => {
    await waiter.run('lock({ name: args });', name);
    const attempt = async () => {
      const stopped = await stall(namespace);
      const { blocked } = await longestBlock(
        waiter,
        `${queueMany('')} await new Promise((resolve) => setTimeout(resolve, 300));`,
      );
      await unstall(stopped);
      await holder.release(name);
      expect(await waiter.run('return Promise.all(globalThis.waits);')).toEqual(Array(MANY).fill('granted'));
      await holder.acquire({ name, mode: 'exclusive' });
      return blocked;
    };
    expect(await leastOf(BLOCKED_MS_MAX, attempt)).toBeLessThan(BLOCKED_MS_MAX);
    await holder.release(name);
  });
});

test.each(['goes on', 'dies'])(
  'a release is not lost: who waits is granted when the stopped one %s',
  async (how) => {
    const [holder, waiter] = (await startActors(['fork', 'fork'], { namespace })) as [Actor, Actor];
    await holder.acquire({ name, mode: 'exclusive' });
    const waiting = await waiter.queue({ name, mode: 'exclusive' });
    const stopped = await stall(namespace);
    await holder.release(name);
    if (how === 'goes on') await unstall(stopped);
    else await stopped.kill('SIGKILL');
    expect(await timeOf(waiting.promise)).toBeLessThan(ELSEWHERE_MS_MAX);
    expect((await waiting.promise).abandoned).toBeNull();
    await waiter.release(name);
  },
);

describe('a latch that names a process which lives and is not inside', () => {
  /** Writes the number of that process into the latch, as if it were in there. */
  function forge({ pid }: Actor): void {
    const file = segmentFile(namespace);
    const entries = Array.from({ length: 16 }, (_, n) => readAt(file, Layout.PROCESSES + n * 64, 64));
    const entry = entries.find((bytes) => bytes.readUInt32LE(0) === 1 && bytes.readInt32LE(4) === pid);
    const word = Buffer.alloc(8);
    word.writeBigUInt64LE(entry!.readBigUInt64LE(32) << 3n);
    writeAt(file, Layout.LATCH, word);
  }

  test('costs a second once, not with each call; and is mended by what that process does next', async () => {
    const [named, caller] = (await startActors(['fork', 'fork'], { namespace })) as [Actor, Actor];
    for (const actor of [named, caller]) await actor.run('lock({ name: args });', name);
    forge(named);
    const { took, codes } = await caller.run<{ took: number; codes: string[] }>(
      `const begun = performance.now();
       const codes = [];
       for (let n = 0; n < 20; n++) {
         try { lock({ name: args }).query(); } catch ({ code }) { codes.push(code); }
       }
       return { took: performance.now() - begun, codes };`,
      name,
    );
    expect(codes).toEqual(Array(20).fill('ERR_LOCK_TIMEOUT'));
    expect(took).toBeGreaterThan(1000);
    expect(took).toBeLessThan(4000); // about 1,700
    await named.run('lock({ name: args }).query();', name);
    await caller.run('lock({ name: args }).query();', name);
  });

  test('is mended by that process when it waits', async () => {
    const [named, holder] = (await startActors(['fork', 'fork'], { namespace })) as [Actor, Actor];
    await holder.acquire({ name, mode: 'exclusive' });
    const waiting = await named.queue({ name, mode: 'exclusive' });
    forge(named);
    await holder.release(name);
    expect(await timeOf(waiting.promise)).toBeLessThan(ELSEWHERE_MS_MAX + 1000); // its ticks may be seldom
    await named.release(name);
  });
});
