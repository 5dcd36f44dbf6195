'use strict';
// Processes of two C libraries over one namespace, whose locks have different insides: who comes second is refused, and
// disturbs nobody; who comes when nobody is left makes the namespace anew.
//
// This process itself stays out of it. The last line is "N passed, N failed".
//   SMOKE_FOREIGN  the two, a JSON array of { libc, command, env }, in the order in which they come
const assert = require('node:assert');
const { closeSync, openSync, readSync, statSync } = require('node:fs');
const { Actor, runAll } = require('./actors.cjs');

const [first, second] = JSON.parse(process.env.SMOKE_FOREIGN);
const prefix = `foreign-${process.pid}-${Date.now().toString(36)}`;
const file = (namespace) => `/dev/shm/proclock-${process.geteuid()}-${namespace}`;
const start = ({ command, env }, namespace) =>
  Actor.start(namespace, { command, env: { ...process.env, ...env } });

const LIBCS = { 1: 'glibc', 2: 'musl' };
const ABI_OFFSET = 12; // of the head of the file, in every layout version
const libcOf = (namespace) => {
  const byte = Buffer.alloc(1);
  const fd = openSync(file(namespace), 'r');
  readSync(fd, byte, 0, 1, ABI_OFFSET); // the whole file is large
  closeSync(fd);
  return LIBCS[byte[0]];
};

async function refused(actor, step, { libc }, found) {
  await assert.rejects(actor.do(step), ({ code, message }) => {
    assert.strictEqual(code, 'ERR_LOCK_INCOMPATIBLE');
    assert.match(message, new RegExp(`in use by layout version \\d+ built for ${found.libc}, `));
    assert.match(message, new RegExp(`this is layout version \\d+ for ${libc};`));
    return true;
  });
}

runAll(
  {
    async 'who comes second is refused, again and again, and may have a namespace of its own'() {
      const namespace = `${prefix}-one`;
      const holder = await start(first, namespace);
      await holder.do('exclusive');
      assert.strictEqual(libcOf(namespace), first.libc);
      const { ino, size, mode } = statSync(file(namespace));
      const held = await holder.do('look');
      assert.deepStrictEqual({ held: held.held, pending: held.pending }, { held: [holder.pid], pending: [] });

      const newcomer = await start(second, namespace);
      for (const step of ['tryExclusive', 'exclusive', 'shared', 'tryExclusive', 'look']) {
        await refused(newcomer, step, second, first);
      }
      const own = `${prefix}-own`;
      const apart = await start(second, own);
      await apart.do('exclusive');
      assert.strictEqual(libcOf(own), second.libc);
      await apart.do('release');
      await apart.end();

      // The holder has what it had, and nobody else.
      const now = statSync(file(namespace));
      assert.deepStrictEqual({ ino: now.ino, size: now.size, mode: now.mode }, { ino, size, mode });
      assert.strictEqual(libcOf(namespace), first.libc);
      assert.deepStrictEqual(await holder.do('look'), held);

      // And the lock works on, between its kind, while the refused one is alive and when it is dead.
      for (const ending of ['alive', 'dead']) {
        const other = await start(first, namespace);
        assert.strictEqual(await other.do('tryExclusive'), false);
        const granted = other.do('exclusive');
        await holder.do('yield');
        await granted;
        const { abandoned, held, pending } = await other.do('look');
        assert.deepStrictEqual(
          { abandoned, held, pending },
          { abandoned: null, held: [other.pid], pending: [] },
        );
        await other.do('release');
        await other.end();
        await holder.do('exclusive');
        if (ending === 'alive') await newcomer.kill();
      }
      const last = await holder.do('look');
      assert.strictEqual(last.abandoned, null);
      assert.ok(BigInt(last.token) > BigInt(held.token));
      await holder.do('release');
      await holder.end();
    },

    async 'when the last one was killed, holding, the other kind has the namespace, and is the one that refuses'() {
      const namespace = `${prefix}-other`;
      const holder = await start(first, namespace);
      await holder.do('exclusive');
      const newcomer = await start(second, namespace);
      await refused(newcomer, 'tryExclusive', second, first);
      await holder.kill();
      await newcomer.do('exclusive');
      assert.strictEqual(libcOf(namespace), second.libc);
      const { abandoned, held, pending } = await newcomer.do('look');
      assert.deepStrictEqual(
        { abandoned, held, pending },
        { abandoned: null, held: [newcomer.pid], pending: [] },
      );

      const late = await start(first, namespace);
      await refused(late, 'tryExclusive', first, second);
      await newcomer.do('release');
      await refused(late, 'tryExclusive', first, second);
      await newcomer.end();
      await late.do('exclusive');
      assert.strictEqual(libcOf(namespace), first.libc);
      await late.do('release');
      await late.end();
    },
  },
  prefix,
);
