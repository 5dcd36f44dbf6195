// At most one exclusive holder, and no shared holder beside it, whoever they are.
import { SharedLock } from '../lib';
import { ACTOR_KINDS, startActor } from './support/actor';
import { testNamespace } from './support/namespace';

const name = 'ledger';

describe.each(ACTOR_KINDS)('an exclusive hold of a %s actor', (kind) => {
  test('keeps everybody else out until it is released', async () => {
    const namespace = testNamespace();
    const actor = await startActor(kind, { namespace });
    const others = await Promise.all(ACTOR_KINDS.map((other) => startActor(other, { namespace })));
    const lock = new SharedLock(name, { namespace });

    await actor.acquire({ name, mode: 'exclusive' });
    expect(lock.tryShared()).toBeNull();
    expect(lock.tryExclusive()).toBeNull();
    for (const other of others) {
      expect(await other.call('tryAcquire', { name, mode: 'shared' })).toBeNull();
      expect(await other.call('tryAcquire', { name, mode: 'exclusive' })).toBeNull();
    }

    await actor.release(name);
    for (const other of others) {
      expect(await other.call('tryAcquire', { name, mode: 'exclusive' })).not.toBeNull();
      await other.release(name);
    }
  });
});
