// Five workers hold a lock shared, one that wants it alone waits for all of them, and five more shared ones wait behind it.
// The order is that of the queue, and the fencing tokens show it: a shared guard has the token of the last exclusive grant.
import { SharedLock } from '../lib';
import { type Actor, type Grant, type Pending, startActors } from './support/actor';
import { as, expectIdle, name, untilPending, who, withCode } from './support/locks';
import { testNamespace, until } from './support/namespace';

const SHARED = 5;

/** One worker; every other one blocks its thread while it waits. */
class Worker {
  constructor(
    readonly actor: Actor,
    private readonly blocks: boolean,
    private readonly className: 'SharedLock' | 'SharedRLock',
    private readonly mode: 'shared' | 'exclusive',
  ) {}

  get label(): string {
    return as(this.actor, this.mode);
  }

  begin(): Pending<Grant> {
    const args = { name, class: this.className, mode: this.mode };
    return this.actor.begin(this.blocks ? 'acquireSync' : 'acquire', args);
  }

  /** Acquires it again, as the owner that it is. */
  nest(mode = this.mode): Promise<Grant> {
    const args = { name, class: this.className, mode, as: `nested ${mode}` };
    return this.blocks ? this.actor.call('acquireSync', args) : this.actor.acquire({ ...args, within: name });
  }
}

describe.each(['thread', 'fork'] as const)('%s workers', (kind) => {
  describe.each(['SharedLock', 'SharedRLock'] as const)('%s', (className) => {
    test.each([{ nested: false }, { nested: true }])('nested: $nested', async ({ nested }) => {
      const namespace = testNamespace();
      const observer = new SharedLock(name, { namespace });
      const held = () => who(observer.query().held as never).sort();
      const pending = () => who(observer.query().pending as never);
      const labels = (workers: Worker[]) => workers.map(({ label }) => label);

      const actors = await startActors(Array(2 * SHARED + 1).fill(kind), { namespace });
      const workers = actors.map(
        (actor, i) => new Worker(actor, i % 2 === 1, className, i === SHARED ? 'exclusive' : 'shared'),
      );
      const first = workers.slice(0, SHARED);
      const writer = workers[SHARED]!;
      const late = workers.slice(SHARED + 1);

      const guardsOf = async (worker: Worker, modes: Array<'shared' | 'exclusive'>): Promise<string[]> => {
        if (!nested) return [name];
        const before = observer.query();
        for (const mode of modes) {
          const again = worker.nest(mode);
          if (className === 'SharedRLock') await again;
          else await expect(again).rejects.toEqual(withCode('ERR_LOCK_NOT_REENTRANT'));
        }
        if (!modes.includes('exclusive'))
          await expect(worker.nest('exclusive')).rejects.toEqual(withCode('ERR_LOCK_UPGRADE'));
        expect(observer.query()).toEqual(before);
        return className === 'SharedRLock' ? [name, ...modes.map((mode) => `nested ${mode}`)] : [name];
      };
      /** The outermost guard goes first, and the hold with the last one. */
      const release = async (worker: Worker, guards: string[]) => {
        for (const guard of guards) {
          expect(held()).toContain(worker.label);
          await worker.actor.release(guard);
        }
        expect(held()).not.toContain(worker.label);
      };

      const before = await Promise.all(first.map((worker) => worker.begin().promise));
      expect(held()).toEqual(labels(first).sort());

      const written = writer.begin();
      await untilPending(observer, 1);
      // For up to a millisecond another reader may still get in; this one does not wait.
      await until(() => {
        const guard = observer.tryShared();
        guard?.release();
        return guard === null;
      });
      const read: Array<Pending<Grant>> = [];
      for (const worker of late) {
        read.push(worker.begin());
        await untilPending(observer, 1 + read.length);
      }
      const queue = [writer, ...late];
      expect(pending()).toEqual(labels(queue));

      for (const [i, worker] of first.entries()) {
        const guards = await guardsOf(worker, ['shared']);
        expect(written.settled).toBe(false);
        expect(held()).toEqual(labels(first.slice(i)).sort());
        expect(pending()).toEqual(labels(queue));
        await release(worker, guards);
      }

      const { token } = await written.promise;
      for (const grant of before) expect(BigInt(grant.token)).toBeLessThan(BigInt(token));
      expect(held()).toEqual([writer.label]);
      expect(pending()).toEqual(labels(late));
      await release(writer, await guardsOf(writer, ['shared', 'exclusive']));

      const grants = await Promise.all(read.map(({ promise }) => promise));
      expect(grants.map((grant) => grant.token)).toEqual(late.map(() => token));
      expect(held()).toEqual(labels(late).sort());
      expect(pending()).toEqual([]);
      for (const worker of late) await release(worker, await guardsOf(worker, ['shared']));
      expectIdle(observer);
    });
  });
});
