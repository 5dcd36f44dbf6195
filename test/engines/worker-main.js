'use strict';
// The child side of worker.ts: has a space over an engine, and runs what it is told to.
const remote = require('../../dist/remote');

const [entry, where, options] = JSON.parse(process.env.PROCLOCK_TEST_SPACE);
const guards = new Map();
const AsyncFunction = (async () => {}).constructor;
const replacer = (_, value) => (typeof value === 'bigint' ? String(value) : value);

async function main() {
  const space = await require(`../../dist/${entry}`).connect(where, options);
  const lock = (name) => new remote.SharedLock(name, { space });
  process.on('message', async ({ id, source, args }) => {
    let answer;
    try {
      const run = new AsyncFunction('space', 'remote', 'lock', 'guards', 'args', 'require', source);
      answer = { id, value: await run(space, remote, lock, guards, args, require) };
    } catch (error) {
      answer = { id, error: { message: String(error?.stack ?? error), code: error?.code } };
    }
    process.send(JSON.stringify(answer, replacer));
  });
  process.send(JSON.stringify({ id: 0 }));
}

main().catch((error) => {
  console.error(error);
  process.exit(1);
});
