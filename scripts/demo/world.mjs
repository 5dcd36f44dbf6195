// Where the locks of the demo are: in the memory of this machine, or over an engine.
//
// A place is what a participant has to be told: `{ name, namespace }`, and over an engine also its entry, and what is to be
// connected to. What a lock answers may be a promise, and is awaited wherever it is.
import { rmSync } from 'node:fs';
import { createRequire } from 'node:module';
import { servers } from '../servers.mjs';

const require = createRequire(import.meta.url);
/** Of an engine: the dead are missed within the patience of those who wait. */
const TTL_MS = 2000;
const NOBODY = { held: [], pending: [] };

/** The place that the arguments of the demo name (`--postgres [URL]`, `--etcd [URL]`), and how to leave it. */
export async function placeOf(args, { name, namespace }) {
  const entry = Object.keys(servers).find((each) => args.includes(`--${each}`));
  if (entry === undefined) {
    const leave = () => rmSync(`/dev/shm/proclock-${process.geteuid()}-${namespace}`, { force: true });
    return { place: { name, namespace }, where: '', leave };
  }
  const given = args[args.indexOf(`--${entry}`) + 1];
  const target = given?.startsWith('--') ? undefined : given;
  const server = target === undefined ? await servers[entry]() : undefined;
  if (target === undefined && server === undefined) {
    throw new Error(`there is no server for --${entry}, and none can be had here: give its URL`);
  }
  return {
    place: { name, namespace, entry, target: target ?? server.target },
    where: server === undefined ? `over ${entry}` : `over ${server.name}, started for this`,
    leave: async () => server?.stop(),
  };
}

/** The lock of a place; `close()` ends all that this process or thread has in it. */
export async function enter({ name, namespace, entry, target }) {
  if (entry === undefined) {
    const { SharedLock } = require('proclock');
    const lock = new SharedLock(name, { namespace });
    return { lock, snapshot: () => lock.query(), close: () => lock.close() };
  }
  const { SharedLock } = require('proclock/remote');
  const space = await require(`proclock/${entry}`).connect(target, { namespace, ttl: TTL_MS });
  const lock = new SharedLock(name, { space });
  let last = NOBODY;
  let asked = false;
  /** What was answered last; the next answer is asked for. */
  const snapshot = () => {
    if (!asked) {
      asked = true;
      lock
        .query()
        .then((answer) => {
          last = answer;
        })
        .catch(() => {}) // closed, or out of reach: what uses the lock says so
        .finally(() => {
          asked = false;
        });
    }
    return last;
  };
  return { lock, snapshot, close: () => space.close() };
}
