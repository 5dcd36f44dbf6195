// Deaths that no event tells of are noticed: of processes whose pid says nothing here (another PID namespace), whose pid lives on
// (exec), whose descriptors live on (a child of a raw fork), or who are not buried (zombies); and of many at a time.
import { readFileSync } from 'node:fs';
import { type Pending, startActor } from './support/actor';
import { disturbing, needsCompiler, testWith, timeOf, unshare } from './support/disturb';
import { lockPerTest, MODES, name, untilPending } from './support/locks';
import { until } from './support/until';

const DEATH_MS_MAX = 3000;
const WAYS = ['acquire', 'acquireSync'] as const;
const CASES = WAYS.flatMap((way) => MODES.map((mode) => ({ way, mode })));

const apart = unshare('--pid');

let namespace: string;
let lock: { query(): { held: unknown[]; pending: unknown[] } };

lockPerTest((fresh) => {
  lock = fresh;
  ({ namespace } = fresh);
});

const commOf = (pid: number): string => readFileSync(`/proc/${pid}/comm`, 'utf8').trim();
const stateOf = (pid: number): string | undefined =>
  readFileSync(`/proc/${pid}/stat`, 'utf8').replace(/^.*\) /s, '')[0];

/** One holds, one waits. */
async function holderAndWaiter({ way, mode }: (typeof CASES)[number], via?: readonly string[]) {
  const [holder, waiter] = await Promise.all([
    startActor('fork', { namespace, ...(via && { via }) }),
    startActor('fork', { namespace }),
  ]);
  await holder.acquire({ name, mode });
  const waiting = waiter.begin(way, { name, mode: 'exclusive' });
  await untilPending(lock, 1);
  return { holder, waiter, waiting };
}

describe('a holder that becomes another program', () => {
  testWith(needsCompiler).each(CASES)('($mode) is noticed by who waits ($way)', async (how) => {
    const { holder, waiter, waiting } = await holderAndWaiter(how);
    holder.run(disturbing('exec')).catch(() => undefined);
    await until(() => commOf(holder.systemPid) === 'sleep');
    expect(await timeOf(waiting.promise)).toBeLessThan(DEATH_MS_MAX);
    const { abandoned } = await waiting.promise;
    if (how.mode === 'shared') expect(abandoned).toBeNull();
    else expect(abandoned).toMatchObject({ pid: holder.pid });
    await waiter.release(name);
    expect(holder.hasEnded).toBe(false);
    await holder.destroy();
  });

  testWith(needsCompiler, apart)('in another PID namespace is noticed', async () => {
    const { holder, waiter, waiting } = await holderAndWaiter(CASES[1]!, apart!);
    holder.run(disturbing('exec')).catch(() => undefined);
    await until(() => commOf(holder.systemPid) === 'sleep');
    expect(await timeOf(waiting.promise)).toBeLessThan(DEATH_MS_MAX);
    await waiter.release(name);
    await holder.destroy();
  });

  testWith(needsCompiler)('and that is at the front of the queue lets those behind it pass', async () => {
    const {
      holder,
      waiter: front,
      waiting: lost,
    } = await holderAndWaiter({ way: 'acquire', mode: 'exclusive' });
    lost.promise.catch(() => undefined);
    const waiter = await startActor('fork', { namespace });
    const waiting = await waiter.queue({ name, mode: 'exclusive' });
    front.run(disturbing('exec')).catch(() => undefined);
    await until(() => commOf(front.systemPid) === 'sleep');
    await holder.release(name);
    expect(await timeOf(waiting.promise)).toBeLessThan(DEATH_MS_MAX);
    expect((await waiting.promise).abandoned).toBeNull();
    await waiter.release(name);
    await front.destroy();
  });
});

// The child of a raw fork has all descriptors of its parent, and with one of them what the kernel drops at its end.
describe.each(['fork', 'clone'])('a holder that dies and whose child by %s has its descriptors', (how) => {
  testWith(needsCompiler).each(CASES)('($mode) is noticed by who waits ($way)', async (one) => {
    const { holder, waiter, waiting } = await holderAndWaiter(one);
    await holder.run(`${disturbing(how)} return null;`);
    const children = readFileSync(`/proc/${holder.pid}/task/${holder.pid}/children`, 'utf8')
      .trim()
      .split(' ');
    expect(children).toHaveLength(1);
    try {
      // Its pipes are the child's as well: the end of them is not that of the holder.
      holder.kill('SIGKILL').catch(() => undefined);
      expect(await timeOf(waiting.promise)).toBeLessThan(DEATH_MS_MAX);
    } finally {
      process.kill(Number(children[0]), 'SIGKILL');
    }
    await holder.ended;
    await waiter.release(name);
  });

  testWith(needsCompiler)('and that nobody buries, is noticed', async () => {
    const unburied = ['sh', '-c', '"$@" & exec sleep 20', 'sh'];
    const { holder, waiter, waiting } = await holderAndWaiter(
      { way: 'acquire', mode: 'exclusive' },
      unburied,
    );
    await holder.run(`${disturbing(how)} return null;`);
    const children = readFileSync(`/proc/${holder.pid}/task/${holder.pid}/children`, 'utf8')
      .trim()
      .split(' ');
    try {
      process.kill(holder.pid, 'SIGKILL');
      await until(() => stateOf(holder.pid) === 'Z');
      expect(await timeOf(waiting.promise)).toBeLessThan(DEATH_MS_MAX);
      expect(stateOf(holder.pid)).toBe('Z');
    } finally {
      process.kill(Number(children[0]), 'SIGKILL');
      await holder.destroy();
    }
    await waiter.release(name);
  });
});

describe('in other PID namespaces', () => {
  testWith(apart)('holders of some of sixty waited locks are killed: each of these is granted', async () => {
    const COUNT = 60;
    const killed = [0, 40, 45, 50, 59];
    const names = Array.from({ length: COUNT }, (_, n) => `lock ${n}`);
    const holder = await startActor('fork', { namespace });
    for (const [n, one] of names.entries()) {
      if (!killed.includes(n)) await holder.acquire({ name: one, mode: 'exclusive' });
    }
    const victims = await Promise.all(killed.map(() => startActor('fork', { namespace, via: apart! })));
    for (const [n, victim] of victims.entries())
      await victim.acquire({ name: names[killed[n]!]!, mode: 'exclusive' });
    const waiter = await startActor('fork', { namespace });
    const waits: Pending<unknown>[] = [];
    for (const one of names) waits.push(await waiter.queue({ name: one, mode: 'exclusive' }));
    await Promise.all(victims.map((victim) => victim.kill('SIGKILL')));
    const times = await Promise.all(killed.map((n) => timeOf(waits[n]!.promise)));
    expect(Math.max(...times)).toBeLessThan(DEATH_MS_MAX);
    expect(waits.filter(({ settled }) => settled)).toHaveLength(killed.length);
  });

  testWith(apart)(
    'of thirty holders that are killed one after the other, all but one at most are noticed within a second',
    async () => {
      const ROUNDS = 3;
      const TOGETHER = 10;
      const MS_MAX = 1000; // some 50 on a machine that has nothing else to do
      const waiter = await startActor('fork', { namespace });
      const times: number[] = [];
      for (let round = 0; round < ROUNDS; round++) {
        const victims = await Promise.all(
          Array.from({ length: TOGETHER }, () => startActor('fork', { namespace, via: apart! })),
        );
        for (const [n, victim] of victims.entries()) {
          const one = `lock ${n}`;
          await victim.acquire({ name: one, mode: 'exclusive' });
          const waiting = await waiter.queue({ name: one, mode: 'exclusive' });
          process.kill(victim.systemPid, 'SIGKILL');
          times.push(await timeOf(waiting.promise));
          await waiter.release(one);
        }
        await Promise.all(victims.map(({ ended }) => ended));
      }
      times.sort((a, b) => a - b);
      expect(times.at(-2)).toBeLessThan(MS_MAX);
      expect(times.at(-1)).toBeLessThan(DEATH_MS_MAX);
    },
  );
});
