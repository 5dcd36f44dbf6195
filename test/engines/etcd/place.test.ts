// What a hold or wait makes of an etcd that refuses to take it back: it stays where it is, and can be taken back later.

import { setTimeout as sleep } from 'node:timers/promises';
import { LockError } from '../../../lib/common/errors';
import { SpaceKeys } from '../../../lib/engines/etcd/keys';
import { type Host, Place } from '../../../lib/engines/etcd/place';
import type { Reply, Txn } from '../../../lib/engines/etcd/txn';
import { until } from '../../support/until';
import { errorOf, name } from '../stage';

const refusal = new LockError('ERR_LOCK_PERMISSION', 'not now');
const full = new LockError('ERR_LOCK_NO_SPACE', 'the database is full');

/** Longer than the pause after which a turn is tried again. */
const PAUSE_MS = 700;

/** Tells that these conditions were met, in this order; `refused` and `full` are refusals. */
class Script {
  readonly asked: string[] = [];
  readonly removed: Place[] = [];
  readonly granted: Place[] = [];
  readonly failures: unknown[] = [];
  /** Whether the session is over. */
  readonly session = { over: false };
  /** What is found by whoever looks before a theft. */
  onRead = () => ({ revision: 7, all: () => [] });
  readonly place: Place;

  constructor(...answers: string[]) {
    const transact = async (_what: string, { as }: Txn) => {
      const answer = answers.shift();
      this.asked.push(as);
      if (answer === 'refused') throw refusal;
      if (answer === 'full') throw full;
      const reply = {
        revision: 7,
        did: (condition: string) => condition === answer,
        all: () => [],
        first: () => {},
      };
      return { reply: reply as unknown as Reply, repeated: false };
    };
    const host = {
      clientId: 'client',
      keys: new SpaceKeys('prefix/', 'default'),
      lease: { id: 1n, transact, read: async () => this.onRead() },
      describe: () => '',
      inOrder: (_name: string, work: () => Promise<unknown>) => work(),
      readMail: async () => {},
      granted: (place: Place) => this.granted.push(place),
      failed: (error: unknown) => this.failures.push(error),
      remove: (place: Place) => this.removed.push(place) > 0,
      watcher: { watch: () => 1, unwatch: () => {} },
    };
    const session = Object.assign(this.session, host);
    this.place = new Place(session as unknown as Host, { id: 1, name, mode: 'shared' });
  }
}

const leaving = { repaired: false, flight: false };

test('a release', async () => {
  const { asked, place, removed } = new Script('free', 'refused', 'held');
  await place.acquire('wait');
  expect(await errorOf(() => place.release(leaving))).toBe(refusal);
  expect(removed).toEqual([]);
  expect(await place.release(leaving)).toBe(true);
  expect(await place.release(leaving)).toBe(false);
  expect(removed).toEqual([place]);
  expect(asked).toEqual(['free', 'held', 'held']);
});

test('an acquire, which may have been done before it was refused', async () => {
  for (const answer of ['waited', 'held']) {
    const { asked, place, removed } = new Script('refused', answer);
    expect(await errorOf(() => place.acquire('wait'))).toBe(refusal);
    expect(await place.withdraw()).toBeUndefined();
    expect(removed).toEqual([place]);
    expect(asked).toEqual(['free', 'waited']);
  }
});

test('a theft that is given up before it is carried out robs nobody', async () => {
  const script = new Script();
  const { asked, place } = script;
  let withdrawn: Promise<unknown> | undefined;
  const { onRead } = script;
  script.onRead = () => {
    withdrawn = place.withdraw();
    return onRead();
  };
  expect(await place.acquire('steal')).toEqual({ state: 'refused' });
  expect(await withdrawn).toBeUndefined();
  expect(asked).toEqual([]);
});

test('a wait', async () => {
  const { asked, place, removed } = new Script('new', 'refused', 'waited');
  expect(await place.acquire('wait')).toMatchObject({ state: 'queued' });
  expect(await errorOf(() => place.withdraw())).toBe(refusal);
  expect(removed).toEqual([]);
  expect(await place.withdraw()).toBeUndefined();
  expect(removed).toEqual([place]);
  expect(asked).toEqual(['free', 'waited', 'waited']);
});

test('an upgrade', async () => {
  const { asked, place, removed } = new Script('free', 'barred', 'refused', 'stood ahead', 'free', 'held');
  await place.acquire('wait');
  expect(await place.upgrade('wait')).toMatchObject({ state: 'queued' });
  expect(await errorOf(() => place.withdraw())).toBe(refusal);
  expect(await place.upgrade('wait')).toEqual({ state: 'refused' });
  expect(await place.withdraw()).toBeUndefined();
  expect(await place.upgrade('wait')).toMatchObject({ state: 'granted' });
  expect(await place.release(leaving)).toBe(true);
  expect(removed).toEqual([place]);
  expect(asked).toEqual(['free', 'free', 'stood ahead', 'stood ahead', 'free', 'held']);
});

test('an upgrade that was refused is undone, for it may have been done; where that is refused, by the release', async () => {
  for (const answer of ['undone', 'refused']) {
    const { asked, place } = new Script('free', 'refused', answer, 'held');
    await place.acquire('wait');
    expect(await errorOf(() => place.upgrade('wait'))).toBe(refusal);
    expect(place.mode).toBe('shared');
    expect(await place.withdraw()).toBeUndefined();
    expect(await place.release(leaving)).toBe(true);
    expect(asked).toEqual(['free', 'free', 'undone', 'held']);
  }
});

test('a downgrade', async () => {
  const { asked, place, removed } = new Script('free', 'free', 'refused', 'held');
  await place.acquire('wait');
  await place.upgrade('wait');
  expect(await errorOf(() => place.downgrade(false))).toBe(refusal);
  expect(place.mode).toBe('exclusive');
  expect(await place.downgrade(false)).toBe(true);
  expect(removed).toEqual([]);
  expect(asked).toEqual(['free', 'free', 'held', 'held']);
});

describe('a turn for which the database is full', () => {
  test('is tried again after a pause, until there is space', async () => {
    const script = new Script('new', 'full', 'full', 'free');
    await script.place.acquire('wait');
    await until(() => script.granted.length > 0);
    expect(script.asked).toEqual(['free', 'free', 'free', 'free']);
    expect(script.failures).toEqual([]);
  });

  test('is that of an upgrade as well', async () => {
    const script = new Script('free', 'barred', 'full', 'free');
    await script.place.acquire('wait');
    await script.place.upgrade('wait');
    await until(() => script.granted.length > 0);
    expect(script.place.mode).toBe('exclusive');
    expect(script.failures).toEqual([]);
  });

  test('is not tried again for one that has given up', async () => {
    const script = new Script('new', 'full', 'waited');
    await script.place.acquire('wait');
    await until(() => script.asked.length === 2);
    expect(await script.place.withdraw()).toBeUndefined();
    await sleep(PAUSE_MS);
    expect(script.asked).toEqual(['free', 'free', 'waited']);
    expect(script.failures).toEqual([]);
  });

  test('is not tried again in a session that is over', async () => {
    const script = new Script('new', 'full', 'full');
    await script.place.acquire('wait');
    await until(() => script.asked.length === 2);
    script.session.over = true;
    await sleep(2 * PAUSE_MS);
    expect(script.asked).toEqual(['free', 'free', 'free']);
  });

  test('any other refusal ends the session', async () => {
    const script = new Script('new', 'refused');
    await script.place.acquire('wait');
    await until(() => script.failures.length > 0);
    expect(script.failures).toEqual([refusal]);
  });
});
