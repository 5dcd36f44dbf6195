// A LockManager and its namespace: entered by the first request, left to itself when it was removed, for any number of names.
import { spawnSync } from 'node:child_process';
import { existsSync, unlinkSync } from 'node:fs';
import { LockManager, locks } from '../lib';
import { testNamespace, until } from './support/namespace';
import { DIST, segmentFile } from './support/segment';
import { type Agent, type Case, conforms, name, SEPARATE_KINDS } from './support/web-locks';

const REMOVED = { name: 'LockError', code: 'ERR_LOCK_NAMESPACE_REMOVED' };

describe('construction', () => {
  test('touches nothing', async () => {
    const namespace = testNamespace();
    const manager = new LockManager({ namespace });
    expect(existsSync(segmentFile(namespace))).toBe(false);
    expect(await manager.request(name, () => existsSync(segmentFile(namespace)))).toBe(true);
  });

  test('and import load no native code; the first request or query does', () => {
    for (const use of [`request('x', () => {})`, 'query()']) {
      const namespace = testNamespace();
      const script = `
        const loaded = () => process.report.getReport().sharedObjects.filter((file) => file.endsWith('.node')).length;
        const { LockManager, locks } = require(${JSON.stringify(DIST)});
        const manager = new LockManager({ namespace: ${JSON.stringify(namespace)} });
        const before = [loaded(), String(locks instanceof LockManager)];
        manager.${use}.then(() => console.log(JSON.stringify([...before, loaded()])));`;
      const { stdout, status, stderr } = spawnSync(process.execPath, ['-e', script], { encoding: 'utf8' });
      expect({ stdout, status, stderr }).toEqual({ stdout: '[0,"true",1]\n', status: 0, stderr: '' });
    }
  });

  test('refuses what is no namespace, and a group, of which it has none', () => {
    const wrong = (options: unknown) => () => new LockManager(options as object);
    const values = [...['', 'a/b', 'x'.repeat(65)].map((namespace) => ({ namespace })), { group: 0 }];
    for (const options of values) {
      expect(wrong(options)).toThrow(
        expect.objectContaining({ name: 'TypeError', code: 'ERR_INVALID_ARG_VALUE' }),
      );
    }
    for (const options of [null, 1, 'name', { namespace: 1 }, { namespace: null }]) {
      expect(wrong(options)).toThrow(
        expect.objectContaining({ name: 'TypeError', code: 'ERR_INVALID_ARG_TYPE' }),
      );
    }
    expect(locks).toBeInstanceOf(LockManager);
  });

  conforms('two managers of one namespace are one', 1, async (test, agent) => {
    const hold = await agent!.hold();
    const seen = await agent!.inside(async ({ proclock, args }) => {
      const other = new proclock.LockManager({ namespace: args });
      const lock = await other.request('ledger', { ifAvailable: true }, (lock) => lock);
      return [lock, (await other.query()).held.length];
    }, test.namespace);
    expect(seen).toEqual([null, 1]);
    await hold.finish();
  });
});

describe('a namespace that is removed under its users', () => {
  const remove = ({ namespace }: Case) => unlinkSync(segmentFile(namespace));

  conforms('pending requests reject, and their callbacks are never called', 3, async (test, a, b, c) => {
    const hold = await a!.hold();
    const waits = [
      await b!.request(),
      await c!.request({ mode: 'shared' }),
      await a!.request({ signal: true }),
    ];
    remove(test);
    for (const one of waits) {
      await expect(one.outcome).rejects.toMatchObject(REMOVED);
      expect(await one.calls()).toBe(0);
    }
    await hold.finish('value'); // what was held may be finished
    for (const one of waits) expect(await one.calls()).toBe(0);
  });

  const ways: Array<[string, Parameters<Agent['request']>[0]]> = [
    ['a request', {}],
    ['a shared request', { mode: 'shared' }],
    ['one with ifAvailable', { ifAvailable: true }],
    ['one that steals', { steal: true }],
    ['one with a signal', { signal: true }],
  ];
  for (const [title, options] of ways) {
    conforms(
      `${title} made later enters the new namespace, for a name that was used and is held`,
      2,
      async (test, a, b) => {
        const old = await a!.hold();
        const used = await b!.hold({ name: 'used' });
        await used.finish();
        remove(test);
        const first = await b!.hold(options);
        await test.expectState([first]);
        const second = await a!.hold({ ...options, name: 'used' });
        await test.expectState([first, second]);
        await old.finish('value');
        await test.expectState([first, second]);
        for (const one of [first, second]) await one.finish('value');
      },
    );
  }

  conforms('query() shows the new one at once', 2, async (test, a, b) => {
    const { namespace } = test;
    const holds = [await a!.hold(), await b!.hold({ name: 'other' })];
    remove(test);
    for (const { actor } of [a!, b!])
      expect(await actor.call('queryAll', { namespace })).toEqual({ held: [], pending: [] });
    for (const one of holds) await one.finish('value');
  });

  // Whoever neither waits nor asks may take a free lock of the old one until the next look at the file.
  conforms('those who used it exclude each other again, soon', 2, async (test, a, b) => {
    for (const agent of [a!, b!]) await (await agent.hold()).finish();
    remove(test);
    await until(async () => {
      const hold = await a!.hold();
      const other = await b!.request({ ifAvailable: true });
      const call = await other.called;
      await other.finish();
      await hold.finish();
      return call?.args[0] === null;
    });
  });
});

describe('names without number', () => {
  const NAMES = 200; // more than a manager keeps open

  conforms('one after the other, and again', 1, async (_, agent) => {
    const count = await agent!.inside(async ({ manager, args }) => {
      let granted = 0;
      for (let round = 0; round < 3; round++) {
        for (let n = 0; n < args; n++) {
          await manager.request(`name ${n}`, (lock) => {
            if (lock.name === `name ${n}`) granted++;
          });
        }
      }
      return granted;
    }, NAMES);
    expect(count).toBe(3 * NAMES);
  });

  conforms(
    'all held and waited for at the same time',
    2,
    async (test, a, b) => {
      const hold = (agent: Agent) =>
        agent.inside(async ({ manager, args }) => {
          const holding = globalThis as { letGo?: () => void };
          const done = new Promise<void>((resolve) => {
            holding.letGo = resolve;
          });
          const held = Array.from({ length: args }, (_, n) => manager.request(`name ${n}`, () => done));
          return (await Promise.all(held)).length;
        }, NAMES);
      const letGo = (agent: Agent) => agent.inside(() => (globalThis as { letGo?: () => void }).letGo?.());
      const first = hold(a!);
      await a!.actor.call('ping');
      const second = hold(b!);
      await b!.actor.call('ping');
      const { held, pending } = await test.manager.query();
      expect([held.length, pending.length]).toEqual([NAMES, NAMES]);
      expect(new Set(pending.map((info) => info.name)).size).toBe(NAMES);
      await letGo(a!);
      expect(await first).toBe(NAMES);
      await letGo(b!);
      expect(await second).toBe(NAMES);
    },
    SEPARATE_KINDS,
  );

  conforms('held while so many others are used: it is held on', 2, async (test, a, b) => {
    const hold = await a!.hold();
    const wait = await b!.request();
    for (const agent of [a!, b!]) {
      await agent.inside(async ({ manager, args }) => {
        for (let n = 0; n < args; n++) await manager.request(`name ${n}`, () => {});
      }, NAMES);
    }
    await test.expectState([hold], [wait]);
    await hold.finish('value');
    await wait.granted();
    await wait.finish();
  });
});

describe('a manager that nobody keeps', () => {
  conforms('is collected; what was requested by it goes on', 2, async (test, a, b) => {
    const ran = a!.inside(async ({ proclock, args }) => {
      const held = globalThis as { done?: () => void };
      return new proclock.LockManager({ namespace: args }).request('ledger', async (lock) => {
        await new Promise<void>((resolve) => {
          held.done = resolve;
        });
        return lock.name;
      });
    }, test.namespace);
    await a!.inside(async () => {
      const { setFlagsFromString } = require('node:v8') as typeof import('node:v8');
      const { runInNewContext } = require('node:vm') as typeof import('node:vm');
      setFlagsFromString('--expose-gc');
      const collect = runInNewContext('gc') as () => void;
      for (let n = 0; n < 3; n++) {
        collect();
        await new Promise((resolve) => setImmediate(resolve));
      }
    });
    const wait = await b!.request();
    expect(await test.manager.query()).toMatchObject({ held: [a!.info()], pending: [b!.info()] });
    await a!.inside(() => (globalThis as { done?: () => void }).done?.());
    expect(await ran).toBe(name);
    await wait.granted();
    await wait.finish();
  });
});
