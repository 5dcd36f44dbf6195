// Web Locks, query(): what is held and what is pending, under every name, in every agent.
import { conforms, name, takeTurns } from './support/web-locks';

const shared = { mode: 'shared' } as const;

const sorted = (names: Array<{ name: string; mode: string }>) =>
  names.map((info) => `${info.name} ${info.mode}`).sort();

conforms('nothing is there before, and nothing after', 1, async (test, agent) => {
  const empty = { held: [], pending: [] };
  const { namespace } = test;
  expect(await agent!.actor.call('queryAll', { namespace })).toEqual(empty);
  const hold = await agent!.hold();
  const wait = await agent!.request();
  await hold.finish();
  await wait.granted();
  await wait.finish();
  expect(await agent!.actor.call('queryAll', { namespace })).toEqual(empty);
});

conforms('shows holds and requests of all agents, each agent the same', 3, async (test, ...agents) => {
  const [a, b, c] = agents;
  const holds = [
    await a!.hold(),
    await b!.hold({ name: 'other', ...shared }),
    await c!.hold({ name: 'other', ...shared }),
  ];
  const waits = [await b!.request(), await c!.request(shared), await a!.request()];
  await test.expectState(holds, waits);
  const seen = await test.manager.query();
  for (const { actor } of agents) {
    const same = await actor.call('queryAll', { namespace: test.namespace });
    expect(same.pending).toEqual(seen.pending.map((info) => ({ ...info, since: info.since.getTime() })));
    expect(new Set(same.held)).toEqual(
      new Set(seen.held.map((info) => ({ ...info, since: info.since.getTime() }))),
    );
  }
  await takeTurns(...holds, ...waits);
});

conforms('shows names as they are, and modes', 1, async (test, agent) => {
  const names = ['', '\0', 'a b', '😀', '\ud83d', 'x'.repeat(10_000)];
  const holds = [];
  for (const each of names) holds.push(await agent!.hold({ name: each }));
  holds.push(await agent!.hold({ name: 'read', ...shared }));
  const { held, pending } = await test.manager.query();
  expect(sorted(held)).toEqual([...names.map((each) => `${each} exclusive`), 'read shared'].sort());
  expect(pending).toEqual([]);
  for (const one of holds) await one.finish();
});

conforms('shows each request of one agent, in the order in which they were made', 2, async (test, a, b) => {
  const hold = await a!.hold();
  const waits = [];
  for (const mode of ['shared', 'exclusive', 'shared', 'shared', 'exclusive'] as const)
    waits.push(await b!.request({ mode, signal: true }));
  await test.expectState([hold], waits);
  for (const one of [waits[1]!, waits[3]!]) {
    await one.abort();
    await one.outcome.catch(() => {});
  }
  const left = [waits[0]!, waits[2]!, waits[4]!];
  await test.expectState([hold], left);
  await hold.finish();
  for (const one of left.slice(0, 2)) await one.granted();
  await test.expectState(left.slice(0, 2), left.slice(2));
  await takeTurns(...left);
});

conforms(
  'clientId is one per agent, for holds and requests, and no other agent has it',
  3,
  async (test, ...agents) => {
    const requests = [];
    for (const agent of agents) {
      requests.push(await agent.hold(shared));
      requests.push(await agent.hold({ name: `of ${requests.length}` }));
    }
    for (const agent of agents) requests.push(await agent.request());
    const { held, pending } = await test.manager.query();
    const byAgent = new Map<string, Set<string>>();
    for (const { pid, threadId, clientId } of [...held, ...pending]) {
      const key = `${pid}/${threadId}`;
      byAgent.set(key, (byAgent.get(key) ?? new Set()).add(clientId));
    }
    const ids = [...byAgent.values()].map((ids) => [...ids]);
    expect(ids.flat()).toHaveLength(test.kind === 'one thread' ? 1 : 3);
    expect(new Set(ids.flat()).size).toBe(ids.length);
    for (const { clientId } of [...held, ...pending]) expect(clientId).toMatch(/./);
    await takeTurns(...requests);
  },
);

conforms('a second look shows the same clientId, and since when', 1, async (test, agent) => {
  const began = Date.now();
  const hold = await agent!.hold();
  const first = await test.manager.query();
  expect(await test.manager.query()).toEqual(first);
  const since = first.held[0]!.since.getTime();
  expect(since).toBeGreaterThan(began - 50);
  expect(since).toBeLessThan(Date.now() + 50);
  await hold.finish();
});

conforms('is a snapshot: what happens later does not change it', 2, async (test, a, b) => {
  const hold = await a!.hold();
  const wait = await b!.request();
  const seen = await test.manager.query();
  const copy = structuredClone(seen);
  await hold.finish();
  await wait.granted();
  await wait.finish();
  expect(seen).toEqual(copy);
  expect(seen).toMatchObject({ held: [{ name }], pending: [{ name }] });
});

conforms('a stolen lock is held by its thief alone', 3, async (test, a, b, c) => {
  const robbed = await a!.hold();
  const wait = await b!.request();
  const thief = await c!.hold({ steal: true });
  await test.expectState([thief], [wait]);
  await robbed.finishUnheard();
  await expect(robbed.outcome).rejects.toMatchObject({ name: 'AbortError' });
  await thief.finish();
  await wait.granted();
  await wait.finish();
});
