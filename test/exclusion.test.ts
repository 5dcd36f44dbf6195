// At most one exclusive holder, and no shared holder beside it, whoever they are.
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { SharedLock } from '../lib';
import { ACTOR_KINDS, startActor, startActors } from './support/actor';
import { name } from './support/locks';
import { testNamespace } from './support/namespace';

describe.each(ACTOR_KINDS)('a hold of a %s actor', (kind) => {
  test.each([
    { mode: 'exclusive' as const, excluded: ['shared', 'exclusive'] as const },
    { mode: 'shared' as const, excluded: ['exclusive'] as const },
  ])('$mode: keeps $excluded out, everywhere, until it is released', async ({ mode, excluded }) => {
    const namespace = testNamespace();
    const [actor, ...others] = await startActors([kind, ...ACTOR_KINDS], { namespace });
    const lock = new SharedLock(name, { namespace });

    await actor!.acquire({ name, mode });
    for (const wanted of excluded) {
      expect(lock.tryAcquire({ exclusive: wanted === 'exclusive' })).toBeNull();
      for (const other of others) expect(await other.call('tryAcquire', { name, mode: wanted })).toBeNull();
    }

    await actor!.release(name);
    for (const other of others) {
      expect(await other.call('tryAcquire', { name, mode: 'exclusive' })).not.toBeNull();
      await other.release(name);
    }
    expect(lock.query()).toEqual({ held: [], pending: [] });
  });
});

describe('a counter in a file, that everybody reads and writes', () => {
  let folder: string;
  beforeEach(() => {
    folder = mkdtempSync(join(tmpdir(), 'proclock-test-'));
  });
  afterEach(() => rmSync(folder, { recursive: true }));

  const ROUNDS = 150;
  // Each round is a read, a turn of the event loop where there may be one, and a write.
  const ways = {
    'awaited guards': `for (let i = 0; i < args.rounds; i++) {
      const guard = await it.exclusive();
      const seen = read();
      await nextTurn();
      write(seen + 1);
      guard.release();
    }`,
    callbacks: `for (let i = 0; i < args.rounds; i++) {
      await it.exclusive(async () => { const seen = read(); await nextTurn(); write(seen + 1); });
    }`,
    'sync guards': `for (let i = 0; i < args.rounds; i++) {
      const guard = it.exclusiveSync();
      write(read() + 1);
      guard.release();
    }`,
    tries: `for (let done = 0; done < args.rounds; await nextTurn()) {
      const guard = it.tryExclusive();
      if (guard === null) continue;
      write(read() + 1);
      guard.release();
      done++;
    }`,
  };

  test('loses no increment', async () => {
    const namespace = testNamespace();
    const file = join(folder, 'counter');
    writeFileSync(file, '0');
    const loops = Object.values(ways);
    const actors = await Promise.all(
      loops.map((_, i) => startActor(ACTOR_KINDS[i % ACTOR_KINDS.length]!, { namespace })),
    );
    await Promise.all(
      actors.map((actor, i) =>
        actor.run(
          `const fs = require('node:fs');
           const read = () => Number(fs.readFileSync(args.file, 'utf8'));
           const write = (value) => fs.writeFileSync(args.file, String(value));
           const nextTurn = () => new Promise(setImmediate);
           const it = lock({ name: args.name });
           ${loops[i]}`,
          { file, name, rounds: ROUNDS },
        ),
      ),
    );
    expect(Number(readFileSync(file, 'utf8'))).toBe(loops.length * ROUNDS);
  });
});
