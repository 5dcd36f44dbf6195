// Both kinds of locks, for what is the same over shared memory and over an engine once everything is awaited.
import * as local from '../../lib';
import { memory } from '../../lib/memory';
import * as remote from '../../lib/remote';
import { startActor } from './actor';
import { testNamespace } from './namespace';

type ClassName = 'SharedLock' | 'SharedRLock' | 'Lock' | 'RLock';

/** What the functions of both entries have in common. */
export interface Kind {
  acquireAll(wanted: unknown[], first?: unknown, second?: unknown): Promise<local.MultiGuard>;
  tryAcquireAll(wanted: unknown[]): Promise<local.MultiGuard | null> | local.MultiGuard | null;
  lead: typeof local.lead;
  singleFlight: typeof local.singleFlight;
  make(name: string, className?: ClassName): local.SharedLock;
  manager(): local.LockManager;
  /** Somebody dies who holds the lock of that name. */
  abandon(name: string): Promise<void>;
}

const { Lock, RLock, SharedLock, SharedRLock } = local;
const localClasses = { Lock, RLock, SharedLock, SharedRLock };
const remoteClasses = {
  Lock: remote.Lock,
  RLock: remote.RLock,
  SharedLock: remote.SharedLock,
  SharedRLock: remote.SharedRLock,
};

/** Each makes locks in a world of its own. */
export const kinds: Record<string, () => Kind> = {
  'in shared memory': () => {
    const { acquireAll, lead, singleFlight, tryAcquireAll } = local;
    const namespace = testNamespace();
    return {
      ...{
        acquireAll: acquireAll as Kind['acquireAll'],
        lead,
        singleFlight,
        tryAcquireAll: tryAcquireAll as never,
      },
      make: (name, className = 'SharedLock') =>
        new localClasses[className](name, { namespace }) as local.SharedLock,
      manager: () => new local.LockManager({ namespace }),
      abandon: async (name) => {
        const actor = await startActor('fork', { namespace });
        await actor.acquire({ name, mode: 'exclusive' });
        await actor.kill('SIGKILL');
      },
    };
  },
  'over an engine': () => {
    const { acquireAll, lead, singleFlight, tryAcquireAll } = remote as never as Kind;
    const space = memory();
    return {
      ...{ acquireAll, lead, singleFlight, tryAcquireAll },
      make: (name, className = 'SharedLock') => new remoteClasses[className](name, { space }) as never,
      manager: () => new remote.LockManager({ space }) as never,
      abandon: async (name) => {
        const peer = space.peer();
        await new remote.Lock(name, { space: peer }).acquire();
        peer.kill();
      },
    };
  },
};

export const KINDS = Object.keys(kinds);

/** Who is there, by the modes. */
export const modesOf = async (lock: local.SharedLock) => {
  const { held, pending } = await lock.query();
  return { held: held.map(({ mode }) => mode), pending: pending.map(({ mode }) => mode) };
};

export const FREE = { held: [], pending: [] };

/** Some turns of the event loop, in which whatever can go on in this process does. */
export async function turns(count = 5): Promise<void> {
  for (let turn = 0; turn < count; turn++) await new Promise(setImmediate);
}
