// On a kernel that does not know some of the calls, or in a sandbox that refuses them, waits are granted and deaths are
// noticed, in one namespace as in several, and who waits does not spin. It may take longer.
import { type Actor, startActor, startActors } from './support/actor';
import { expectLoadBelow, needsCompiler, refusing, testWith, timeOf } from './support/disturb';
import { name } from './support/locks';
import { testNamespace } from './support/namespace';

const GRANTED_MS_MAX = 1000;
const DEATH_MS_MAX = 3000;
const LOAD_MAX = 20; // percent

const CALLS = ['pidfd_open', 'close_range', 'futex_waitv', 'pidfd_open close_range futex_waitv'];

describe.each(CALLS)('without %s', (calls) => {
  const testIt = testWith(needsCompiler);
  const start = (namespace: string): Promise<Actor> =>
    startActor('fork', { namespace, env: refusing(...calls.split(' ')) });

  testIt('waits in three namespaces are granted at the release, and at the death of the holder', async () => {
    const namespaces = ['-a', '-b', '-c'].map((suffix) => testNamespace(suffix));
    const [waiter, holder] = await Promise.all([start(namespaces[0]!), start(namespaces[0]!)]);
    const args = (namespace: string) => ({ name, namespace, mode: 'exclusive' as const, as: namespace });
    for (const namespace of namespaces) await holder.acquire(args(namespace));
    const waits = [];
    for (const namespace of namespaces) waits.push(await waiter.queue(args(namespace)));
    await expectLoadBelow(LOAD_MAX, waiter);
    await holder.release(namespaces[1]!);
    expect(await timeOf(waits[1]!.promise)).toBeLessThan(GRANTED_MS_MAX);
    await holder.release(namespaces[2]!);
    expect(await timeOf(waits[2]!.promise)).toBeLessThan(GRANTED_MS_MAX);
    expect(waits[0]!.settled).toBe(false);
    await holder.kill('SIGKILL');
    expect(await timeOf(waits[0]!.promise)).toBeLessThan(DEATH_MS_MAX);
    for (const namespace of namespaces) await waiter.release(namespace);
  });

  testIt(
    'a shared holder that dies behind a hundred idle slots is noticed, beside another lock that is waited for',
    async () => {
      const namespace = testNamespace();
      const env = refusing(...calls.split(' '));
      const [dead, busy, waiter] = (await startActors(['fork', 'fork', 'fork'], { namespace, env })) as [
        Actor,
        Actor,
        Actor,
      ];
      await dead.acquire({ name, mode: 'shared' });
      await busy.run(
        `const it = lock({ name: args });
       const held = await Promise.all(Array.from({ length: 100 }, () => it.shared()));
       for (const guard of held) guard.release();`,
        name,
      );
      await busy.acquire({ name: 'other' });
      await waiter.queue({ name: 'other', mode: 'exclusive' });
      const waiting = await waiter.queue({ name, mode: 'exclusive' });
      await dead.kill('SIGKILL');
      expect(await timeOf(waiting.promise)).toBeLessThan(DEATH_MS_MAX);
      await waiter.release(name);
    },
  );
});
