// Processes that die at a chosen instruction. In each role the victim is killed behind every step that it takes, one
// process per step; then the others, on the shipped build, find the lock as it should be: what they hold they still hold,
// who waits gets it, a dead exclusive holder is reported and nobody else, tokens grow, and nothing is left behind.
//
// The roles are played once without a death, to see which steps they take. Together they take all that there are in
// test/native/crash-points.mjs.
import { type LockGuard, SharedLock } from '../lib';
import { type Actor, startActor } from './support/actor';
import {
  arming,
  hasCrashPoints,
  hasTaken,
  type Order,
  POINTS,
  type Point,
  startVictim,
  type Thread,
  traceOf,
  useCrashPackage,
} from './support/crash';
import { expectIdle, name, untilPending } from './support/locks';
import { allowPerTest, testNamespace } from './support/namespace';
import { until } from './support/until';

const LANES = 3; // roles are played that many times at once
/** How often a point that a role comes to again and again is one to die at. */
const PASSES = Number(process.env.PROCLOCK_CRASH_PASSES ?? 1);
const GRANT_MS = 15_000;

interface World {
  namespace: string;
  lock: SharedLock;
  victim: Actor;
  /** Two processes of the shipped build. The second one can be blocked, and stopped. */
  one: Actor;
  two: Actor;
  /** Whose death as an exclusive holder was not yet reported when the victim began. */
  dead: number | null;
  /** How what the others hold ends, after the death. */
  holds: Array<() => unknown>;
  /** Waits of others: they end with their guards released. */
  waits: Array<Promise<Report>>;
  /** In another namespace each, for whoever needs some. */
  spare: string[];
}

interface Report {
  exclusive: boolean;
  token: bigint;
  abandoned: number | null;
}

interface Role {
  title: string;
  /** The mode in which a try that succeeds (A5) holds. */
  mode?: 'shared' | 'exclusive';
  /** Holds exclusively when it begins. */
  holds?: boolean;
  thread?: Thread;
  /** Has not opened the lock yet. */
  newcomer?: boolean;
  /** Stops there before it goes on to its death; `meanwhile` is done by the others then. */
  stopsAt?: string;
  /** Robbed while it stands behind A5. */
  robbed?: boolean;
  /** The only points to die at: those that the role is about, where others take much time or come in any order. */
  only?: RegExp;
  /** Needs other namespaces. */
  spare?: number;
  before?(world: World): unknown;
  /** The body of an async function of `lock, args`: what the victim does. */
  act: string;
  meanwhile?(world: World): unknown;
  after?(world: World, steps: string[]): unknown;
}

const open = 'lock({ name: args.name })';

// ---- the others

function hold(world: World, mode: 'shared' | 'exclusive'): void {
  const guard = world.lock.acquireSync({ exclusive: mode === 'exclusive', timeout: GRANT_MS });
  world.holds.push(() => guard.release());
}

const used = (guard: LockGuard): Report => {
  guard.release();
  return {
    exclusive: guard.mode === 'exclusive',
    token: guard.token,
    abandoned: guard.abandoned?.pid ?? null,
  };
};

async function waitsIn(actor: Actor, world: World, way: string, mode: string): Promise<Report> {
  const report = await actor.run<{ exclusive: boolean; token: string; abandoned: number | null }>(
    `const { namespace, name, mode, timeout } = args;
     const guard = await lock({ namespace, name })[${JSON.stringify(way)}]({ exclusive: mode === 'exclusive', timeout });
     guard.release();
     return { exclusive: mode === 'exclusive', token: String(guard.token), abandoned: guard.abandoned?.pid ?? null };`,
    { namespace: world.namespace, name, mode, timeout: GRANT_MS },
  );
  return { ...report, token: BigInt(report.token) };
}

/** A wait of a process that is stopped, so that it neither notices a death nor reacts to anything before its time. */
async function stoppedWait(world: World, mode: 'shared' | 'exclusive'): Promise<void> {
  const pending = world.lock.query().pending.length;
  world.waits.push(waitsIn(world.two, world, 'acquireSync', mode));
  await untilPending(world.lock, pending + 1);
  await world.two.stop();
}

/** The lock is held, and the victim waits for it asynchronously, to release it at once. */
async function victimWaits(world: World, mode: 'shared' | 'exclusive'): Promise<void> {
  hold(world, 'exclusive');
  world.victim.begin('run', {
    source: `const guard = await ${open}[args.mode](); guard.release(); globalThis.granted?.();`,
    args: { name, mode },
  });
  await untilPending(world.lock, 1);
}
const untilGranted = 'await new Promise((resolve) => { globalThis.granted = resolve; });';

/** A process that is killed while it holds; nobody has noticed when this is done. */
async function dies(world: World, mode: 'shared' | 'exclusive'): Promise<void> {
  const { namespace } = world;
  const actor = await startActor('fork', { namespace });
  await actor.acquire({ name, mode });
  await actor.kill('SIGKILL');
  if (mode === 'exclusive') world.dead = actor.pid;
}

/**
 * A process that does this, when the result is called, and is killed at a point of it; nobody has noticed when that is
 * done. It has opened the lock before: whoever opens one looks for the dead.
 */
async function toDieAt(world: World, point: string, act: string): Promise<() => Promise<void>> {
  const actor = await startVictim(world.namespace);
  await actor.run(open, { name });
  await actor.run(arming([{ point, pass: 1, thread: 'main', what: 'SIGKILL' }]));
  return async () => {
    actor.begin('run', { source: act, args: { name } });
    expect(await actor.ended).toEqual({ code: null, signal: 'SIGKILL' });
  };
}

// ---- the roles

const exclusiveSync = `${open}.exclusiveSync({ timeout: ${GRANT_MS} })`;
const steal = `new proclock.LockManager({ namespace: process.env.PROCLOCK_TEST_NAMESPACE })
  .request(args.name, { steal: true }, () => new Promise(() => {})).catch(() => {});
  await new Promise((resolve) => setImmediate(resolve));`;

/** A worker that holds exclusively, until it is terminated. */
const workerHolds = `const { Worker } = require('node:worker_threads');
  const worker = new Worker(
    \`const { parentPort, workerData } = require('node:worker_threads');
     const { SharedLock } = require(process.env.PROCLOCK_TEST_DIST);
     const lock = new SharedLock(workerData, { namespace: process.env.PROCLOCK_TEST_NAMESPACE });
     globalThis.guard = lock.exclusiveSync();
     parentPort.postMessage('holds');
     setInterval(() => {}, 1000);\`,
    { eval: true, workerData: args.name },
  );
  await new Promise((resolve) => worker.once('message', resolve));`;

const ROLES: Role[] = [
  { title: 'an acquirer, exclusive', mode: 'exclusive', act: `${open}.tryExclusive();` },
  { title: 'an acquirer, shared', mode: 'shared', act: `${open}.tryShared();` },
  {
    title: 'an acquirer, shared, beside a reader',
    mode: 'shared',
    before: (world) => hold(world, 'shared'),
    act: `${open}.tryShared();`,
  },
  {
    title: 'an acquirer of a lock that is held',
    before: (world) => hold(world, 'exclusive'),
    act: `${open}.tryShared();`,
  },
  {
    title: 'an acquirer that a change of the storage overtakes before A3',
    mode: 'exclusive',
    stopsAt: 'A2',
    act: `${open}.tryExclusive();`,
    meanwhile: ({ lock }) => {
      const guard = lock.exclusiveSync();
      guard.downgrade();
      guard.release();
    },
  },
  {
    title: 'an acquirer that a recovery finds in A4',
    mode: 'exclusive',
    stopsAt: 'A4',
    before: async (world) => (await toDieAt(world, 'A3', `${open}.tryExclusive();`))(),
    act: `${open}.tryExclusive();`,
    meanwhile: ({ lock }) => expectIdle(lock),
  },
  {
    title: 'an acquirer that is robbed before A6',
    mode: 'exclusive',
    stopsAt: 'A5',
    robbed: true,
    act: `${open}.tryExclusive();`,
    meanwhile: (world) => robs(world),
  },
  { title: 'a releaser, exclusive', holds: true, act: 'guards.get("held").release();' },
  {
    title: 'a releaser, shared, beside a reader',
    mode: 'shared',
    before: (world) => hold(world, 'shared'),
    act: `const guard = ${open}.tryShared(); guard.release();`,
  },
  {
    title: 'a releaser while others wait: a blocked one',
    holds: true,
    before: (world) => stoppedWait(world, 'exclusive'),
    act: 'guards.get("held").release();',
  },
  {
    title: 'a releaser while others wait: an asynchronous one',
    holds: true,
    before: async (world) => {
      world.waits.push(waitsIn(world.two, world, 'acquire', 'shared'));
      await untilPending(world.lock, 1);
      await world.two.stop();
    },
    act: 'guards.get("held").release();',
  },
  { title: 'a downgrader', holds: true, act: 'guards.get("held").downgrade();' },
  {
    title: 'a downgrader while a reader waits',
    holds: true,
    before: (world) => stoppedWait(world, 'shared'),
    act: 'guards.get("held").downgrade();',
  },
  {
    title: 'an upgrader, the only reader',
    mode: 'shared',
    act: `${open}.tryShared().tryUpgrade();`,
  },
  {
    title: 'an upgrader that waits for another reader',
    only: /^(U|S|upgrade)/,
    mode: 'shared',
    before: (world) => hold(world, 'shared'),
    act: `await ${open}.tryShared().upgrade();`,
    meanwhile: async (world) => {
      await until(() => world.victim.hasEnded || hasTaken(world.victim, 'upgrade.W2', 'main'));
      if (!world.victim.hasEnded) await world.holds.pop()!();
    },
  },
  {
    title: 'a waiter, asynchronous, that queues',
    mode: 'exclusive',
    before: (world) => hold(world, 'exclusive'),
    act: `${open}.exclusive().catch(() => {}); await new Promise((resolve) => setImmediate(resolve));`,
  },
  {
    title: 'a waiter, asynchronous, that is granted and releases, with others behind it',
    mode: 'shared',
    before: async (world) => {
      await victimWaits(world, 'shared');
      await stoppedWait(world, 'shared');
    },
    act: untilGranted,
    meanwhile: (world) => world.holds.pop()!(),
  },
  {
    title: 'a waiter, asynchronous, that is told by its native thread',
    thread: 'other',
    mode: 'exclusive',
    before: (world) => victimWaits(world, 'exclusive'),
    act: untilGranted,
    meanwhile: (world) => world.holds.pop()!(),
  },
  {
    title: 'a waiter, blocked, that queues and is granted',
    mode: 'exclusive',
    before: (world) => hold(world, 'exclusive'),
    act: `${exclusiveSync};`,
    meanwhile: async (world) => {
      // It has tried as the front for long enough, and is about to sleep.
      await until(() => world.victim.hasEnded || hasTaken(world.victim, 'W1', 'main'));
      if (!world.victim.hasEnded) await world.holds.pop()!();
    },
  },
  {
    title: 'a waiter whose time is over, with another behind it',
    mode: 'exclusive',
    before: async (world) => {
      hold(world, 'exclusive');
      await world.victim.run(
        `globalThis.controller = new AbortController();
         globalThis.waiting = ${open}.exclusive({ signal: controller.signal }).catch(() => {});`,
        { name },
      );
      await stoppedWait(world, 'exclusive');
    },
    act: 'controller.abort(); await waiting;',
  },
  {
    title: 'a waiter behind one that does not react, which it passes over',
    thread: 'any',
    only: /^skip/,
    before: async (world) => {
      hold(world, 'exclusive');
      await stoppedWait(world, 'exclusive');
    },
    act: `const guard = ${exclusiveSync};`,
    meanwhile: async (world) => {
      await until(() => world.victim.hasEnded || world.lock.query().pending.length === 2);
      if (!world.victim.hasEnded) await world.holds.pop()!();
    },
  },
  {
    title: 'a waiter that was passed over',
    only: /^react.unskipped/,
    before: (world) => victimWaits(world, 'exclusive'),
    act: untilGranted,
    meanwhile: async ({ victim, lock, holds }) => {
      const second = lock.exclusive();
      await victim.stop();
      await holds.pop()!();
      (await second).release(); // it has passed over the victim
      victim.cont();
    },
  },
  {
    title: 'a recoverer of an exclusive holder, with a waiter',
    before: async (world) => {
      await stoppedWaitFirst(world, 'exclusive');
    },
    act: `${open}.query();`,
  },
  {
    title: 'a recoverer of a shared holder, beside a reader',
    only: /^V/,
    before: async (world) => {
      hold(world, 'shared');
      await dies(world, 'shared');
    },
    act: `${open}.query();`,
  },
  {
    title: 'a recoverer of a waiter',
    only: /^dead/,
    before: async (world) => {
      hold(world, 'exclusive');
      const waiter = await startActor('fork', { namespace: world.namespace });
      await waiter.queue({ name, mode: 'exclusive' });
      await waiter.kill('SIGKILL');
    },
    act: `${open}.query();`,
  },
  {
    title: 'an acquirer that has to recover first',
    only: /^[AV]/,
    mode: 'exclusive',
    before: (world) => dies(world, 'exclusive'),
    act: `${exclusiveSync};`,
  },
  {
    title: 'a recoverer of a recoverer',
    only: /^(rebuild|V|L7)/,
    before: async (world) => {
      const recovers = await toDieAt(world, 'V3', `${open}.query();`);
      await dies(world, 'exclusive');
      await recovers();
    },
    act: `${open}.query();`,
  },
  {
    title: 'a thief',
    act: steal,
    before: async (world) => {
      const { one, namespace } = world;
      const as = `robbed ${namespace}`;
      const robbed = one.begin('request', { namespace, name, as, options: { mode: 'exclusive' } });
      await one.call('called', { request: as });
      let lost = false;
      robbed.promise.catch(() => {
        lost = true;
      });
      world.holds.push(async () => {
        await one.call('fulfil', { request: as });
        await robbed.promise.catch(() => undefined);
      });
      Object.assign(world, { lost: () => lost });
    },
    after: async (world, steps) => {
      const { lost } = world as World & { lost(): boolean };
      if (!steps.includes('S3.robbed')) return expect(world.lock.tryShared()).toBeNull();
      // Nobody looks by itself: nobody waits.
      await until(() => {
        world.lock.query();
        return lost();
      });
    },
  },
  {
    title: 'a holder that was robbed, releasing',
    act: 'try { guards.get("held").release(); } catch {}',
    before: async (world) => {
      await world.victim.acquire({ name, mode: 'exclusive', as: 'held' });
      await robs(world);
    },
  },
  {
    title: 'an opener of a new namespace',
    newcomer: true,
    mode: 'exclusive',
    act: `const held = ${open}; const guard = held.exclusiveSync(); guard.release(); held.close();`,
  },
  {
    title: 'an opener of an old namespace, of a name more than there is room for',
    only: /^(attach|bind|create|reclaim)/,
    newcomer: true,
    mode: 'exclusive',
    before: ({ namespace }) => {
      for (let n = 0; n < 31; n++) new SharedLock(`${n}`, { namespace }).close();
    },
    act: `for (const n of ['a', 'b']) lock({ name: n }); const guard = ${open}.tryExclusive(); guard.release();`,
  },
  {
    title: 'a contender for the latch, whose owner takes its time',
    only: /^L/,
    before: async (world) => {
      const owner = await startVictim(world.namespace);
      await owner.run(open, { name });
      await owner.run(arming([{ point: 'L1', pass: 1, thread: 'main', what: 300 }]));
      owner.begin('run', { source: `${open}.query();`, args: { name } });
      await until(() => hasTaken(owner, 'L1', 'main'));
    },
    act: `${open}.query();`,
  },
  {
    title: 'a thread that ends while it holds exclusively',
    thread: 'other',
    mode: 'exclusive',
    only: /^E/,
    act: `${workerHolds} await worker.terminate();`,
  },
  {
    title: 'a waiter, blocked, that looks for the dead',
    only: /^D2/,
    mode: 'exclusive',
    before: (world) => hold(world, 'exclusive'),
    act: `${exclusiveSync};`,
    meanwhile: async (world) => {
      await until(() => world.victim.hasEnded || hasTaken(world.victim, 'D2', 'main'));
      if (!world.victim.hasEnded) await world.holds.pop()!();
    },
  },
  {
    title: 'a waiter that finds what an ended thread has left',
    only: /^D5/,
    thread: 'any',
    mode: 'exclusive',
    before: async (world) => {
      const ends = await startVictim(world.namespace);
      await ends.run(`${workerHolds} globalThis.worker = worker;`, { name });
      await ends.run(arming([{ point: 'E3', pass: 1, thread: 'other', what: 'SIGSTOP' }]));
      ends.begin('run', { source: 'await globalThis.worker.terminate();', args: { name } });
      await ends.stopped();
      world.dead = ends.pid;
      world.holds.push(() => ends.kill('SIGKILL'));
    },
    act: `${exclusiveSync};`,
    after: () => undefined, // what it has left is no hold any more
  },
  {
    title: 'one that leaves',
    only: /^(unbind|detach|L)/,
    spare: 9,
    before: async ({ victim, spare }) => {
      await victim.run(
        `for (const namespace of args.slice(1)) lock({ namespace, name: 'x' }).close();`,
        spare,
      );
    },
    act: `${open}.close(); lock({ namespace: args.spare[0], name: 'x' }).close();`,
  },
];

async function robs({ one, namespace, holds }: World): Promise<void> {
  const as = `thief ${namespace}`;
  const request = one.begin('request', { namespace, name, as, options: { steal: true } });
  expect(await one.call('called', { request: as })).not.toBeNull();
  holds.push(async () => {
    await one.call('fulfil', { request: as });
    await request.promise;
  });
}

async function stoppedWaitFirst(world: World, mode: 'shared' | 'exclusive'): Promise<void> {
  const holder = await startActor('fork', { namespace: world.namespace });
  await holder.acquire({ name, mode: 'exclusive' });
  await stoppedWait(world, mode);
  await holder.kill('SIGKILL');
  world.dead = holder.pid;
}

// ---- a play

/** Whether these steps leave the victim holding exclusively, if it dies behind the last one. */
function holdsExclusively({ mode, holds = false, robbed = false }: Role, steps: string[]): boolean {
  let held = holds;
  for (const step of steps) {
    if (step === 'A5') held = mode === 'exclusive';
    if (step === 'S5') held = true;
    if (step === 'R1' || step === 'downgrade.held' || (step === 'A6' && robbed)) held = false;
  }
  return held;
}

interface Lane {
  one: Actor;
  two: Actor;
}

/**
 * Plays a role up to a death, or to its end: then the result is where one can die in it. It can come to its end in spite of
 * a death: what a waiter does depends on whether it was too late, and that on the machine. That no death was missed for
 * good is what the last test looks at. For the same reason it is the victim's own steps that tell whether it held.
 */
async function play(role: Role, lane: Lane, at: Point | null): Promise<Point[]> {
  const namespace = testNamespace();
  const spare = Array.from({ length: role.spare ?? 0 }, () => testNamespace());
  const victim = await startVictim(namespace);
  const lock = role.newcomer && !role.before ? null : new SharedLock(name, { namespace });
  const world: World = {
    ...{ namespace, victim, ...lane, dead: null, holds: [], waits: [], spare },
    get lock() {
      return lock ?? new SharedLock(name, { namespace });
    },
  };
  const args = { name, spare };
  await victim.run(role.newcomer ? 'proclock.locks;' : open, args);
  if (role.holds) await victim.acquire({ name, mode: 'exclusive', as: 'held' });
  await role.before?.(world);
  const orders: Order[] = at === null ? [] : [{ ...at, what: 'SIGKILL' }];
  if (role.stopsAt && !(at?.point === role.stopsAt && at.pass === 1)) {
    orders.unshift({ point: role.stopsAt, pass: 1, thread: 'main', what: 'SIGSTOP' });
  }
  await victim.run(arming(orders)).catch((error) => {
    // A thread may come to its death at once: the native one does if it has only now begun to listen.
    if (!victim.hasEnded) throw error;
  });
  const acted = victim.begin('run', { source: role.act, args });
  if (role.stopsAt) {
    await victim.stopped();
    if (!victim.hasEnded) {
      await role.meanwhile?.(world);
      victim.cont();
    }
  } else {
    await role.meanwhile?.(world);
  }
  const ended = await Promise.race([
    victim.ended,
    acted.promise.then(
      () => null,
      () => victim.ended,
    ),
  ]);
  if (ended === null) {
    const deaths = deathsIn(stepsOf(victim, role), role);
    await victim.kill('SIGKILL');
    world.two.cont();
    for (const end of world.holds) await end();
    await Promise.all(world.waits);
    return deaths;
  }
  expect(ended).toEqual({ code: null, signal: 'SIGKILL' });
  expect(at).not.toBeNull();
  await verify(role, world, stepsOf(victim, role));
  visits++;
  reached.add(at!.point);
  return [];
}

/** What the threads have done that the role is about. */
function stepsOf(victim: Actor, { thread: wanted = 'main' }: Role): string[] {
  return traceOf(victim)
    .filter(({ thread }) => wanted === 'any' || wanted === thread)
    .map(({ point }) => point);
}

/** Where one can die who takes these steps. */
function deathsIn(steps: string[], { thread = 'main', only = /./ }: Role): Point[] {
  const passes = new Map<string, number>();
  const deaths: Point[] = [];
  for (const point of steps) {
    const pass = (passes.get(point) ?? 0) + 1;
    passes.set(point, pass);
    if (pass <= PASSES && only.test(point)) deaths.push({ point, pass, thread });
  }
  return deaths;
}

/** The victim is dead. */
async function verify(role: Role, world: World, steps: string[]): Promise<void> {
  const { lock, namespace, victim, one, two } = world;
  await role.after?.(world, steps);
  // What is held stays held.
  if (world.holds.length > 0 && !role.after) expect(lock.tryExclusive()).toBeNull();
  for (const waiting of [
    waitsIn(one, world, 'acquire', 'exclusive'),
    lock.exclusive({ timeout: GRANT_MS }).then(used),
    lock.shared({ timeout: GRANT_MS }).then(used),
  ]) {
    world.waits.push(waiting);
  }
  two.cont();
  for (const end of world.holds) await end();
  const reports = await Promise.all([...world.waits, waitsIn(two, world, 'acquireSync', 'exclusive')]);

  const expected = holdsExclusively(role, steps) ? victim.pid : world.dead;
  const exclusive = reports.filter((report) => report.exclusive).sort((a, b) => (a.token < b.token ? -1 : 1));
  expect(exclusive.map(({ abandoned }) => abandoned)).toEqual(
    exclusive.map((_, n) => (n === 0 ? expected : null)),
  );
  expect(new Set(exclusive.map(({ token }) => token)).size).toBe(exclusive.length);
  for (const { abandoned } of reports) expect([expected, null]).toContain(abandoned);
  expectIdle(lock);
  lock.close();
  for (const actor of [one, two]) {
    await actor.call('close', { name, namespace });
  }
}

useCrashPackage();
allowPerTest(120_000);

let visits = 0;
const reached = new Set<string>();
let lanes: Lane[];

beforeAll(async () => {
  if (!hasCrashPoints) return;
  const namespace = testNamespace();
  lanes = await Promise.all(
    Array.from({ length: LANES }, async () => ({
      one: await startActor('fork', { namespace, lasting: true }),
      two: await startActor('fork', { namespace, lasting: true }),
    })),
  );
});

const testCrash = hasCrashPoints ? test : test.skip;

testCrash.each(ROLES)('killed at every step: $title', async (role) => {
  const deaths = await play(role, lanes[0]!, null);
  expect(deaths).not.toEqual([]);
  await Promise.all(
    lanes.map(async (lane) => {
      for (let death = deaths.shift(); death !== undefined; death = deaths.shift()) {
        const { point, pass } = death;
        try {
          await play(role, lane, death);
        } catch (error) {
          throw new Error(`killed at ${point} (pass ${pass}): ${(error as Error).stack}`);
        }
      }
    }),
  );
});

testCrash('every point was visited', () => {
  console.log(
    `${visits} deaths at ${reached.size} of ${POINTS.length} crash points, in ${ROLES.length} roles`,
  );
  expect(POINTS.filter((point) => !reached.has(point))).toEqual([]);
});
