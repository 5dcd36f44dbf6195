'use strict';
// The child side of actor.ts: obeys commands, each in its own time, so that a pending acquire does not hold up what
// comes after it. A command begins in the turn in which it arrives: whatever is sent later finds its effect.
const { join } = require('node:path');
const { parentPort, isMainThread, threadId } = require('node:worker_threads');
const { createPerformer, errorOf } = require('./performer');

const dist = process.env.PROCLOCK_TEST_DIST ?? join(__dirname, '../../dist');
const channel = isMainThread ? process : parentPort;
const send = isMainThread ? (text) => process.send(text) : (text) => parentPort.postMessage(text);

/** What a process or thread can do beside taking locks. */
const ofProcess = {
  /** From now on the commands' channel alone does not keep the process (or thread) alive. */
  unref: () => void (isMainThread ? process.channel : parentPort).unref(),
  busy({ ms }) {
    const end = performance.now() + ms;
    while (performance.now() < end);
  },
  exit: ({ code }) => process.exit(code),
  throw: ({ message }) =>
    void setImmediate(() => {
      throw new Error(message);
    }),
};

/** Locks in shared memory. */
function performerOfThisMachine() {
  const namespaceOfActor = process.env.PROCLOCK_TEST_NAMESPACE;
  const lockOptions = ({ namespace = namespaceOfActor, ...others }) => ({ namespace, ...others });
  return createPerformer({ proclock: require(dist), lockOptions });
}

/** Locks over an engine: the entry that is to be loaded, and its function that returns the space, with its arguments. */
async function performerInSpace([entry, open, args]) {
  const space = await require(join(dist, entry))[open](...args);
  return createPerformer({ proclock: require(join(dist, 'remote')), lockOptions: () => ({ space }) });
}

function obey(perform) {
  channel.on('message', async (text) => {
    const { id, command, args } = JSON.parse(text);
    if (ofProcess[command] === undefined) {
      send(JSON.stringify({ id, ...(await perform(command, args)) }));
      return;
    }
    ofProcess[command](args);
    send(JSON.stringify({ id }));
  });
  if (isMainThread) process.on('disconnect', () => process.exit(1));
  send(JSON.stringify({ ready: { pid: process.pid, threadId } }));
}

const { PROCLOCK_TEST_SPACE: space } = process.env;
if (space === undefined) obey(performerOfThisMachine());
else {
  performerInSpace(JSON.parse(space)).then(obey, (error) => {
    process.exitCode = 1;
    process.stderr.write(`${JSON.stringify(errorOf(error))}\n`);
    if (isMainThread) process.disconnect();
  });
}
