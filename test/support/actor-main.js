'use strict';
// The child side of actor.ts: obeys commands, each in its own time, so that a pending acquire does not hold up what
// comes after it. A command begins in the turn in which it arrives: whatever is sent later finds its effect.
const { parentPort, isMainThread, threadId } = require('node:worker_threads');
const proclock = require(process.env.PROCLOCK_TEST_DIST ?? '../../dist');

const namespace = process.env.PROCLOCK_TEST_NAMESPACE;
const channel = isMainThread ? process : parentPort;
const send = isMainThread ? (text) => process.send(text) : (text) => parentPort.postMessage(text);

/** Handles, guards and the abort controllers of acquires, by the keys that the commands give them. */
const handles = new Map();
const guards = new Map();
const controllers = new Map();
/** LockManagers by namespace, and their requests by the keys that the commands give them. */
const managers = new Map();
const requests = new Map();

function lock({
  name,
  namespace: within = namespace,
  class: className = 'SharedLock',
  fair = false,
  handle,
}) {
  const key = handle ?? `${className} ${fair} ${within} ${name}`;
  const known = handles.get(key);
  if (known !== undefined) return known;
  const made = new proclock[className](name, { namespace: within, fair });
  handles.set(key, made);
  return made;
}

const infoOf = ({ name, mode, clientId, pid, threadId, since }) => ({
  name,
  mode,
  clientId,
  pid,
  threadId,
  since: since.getTime(),
});

const abandonedOf = (abandoned) =>
  abandoned && { ...abandoned, since: abandoned.since.getTime(), token: String(abandoned.token) };

const grantOf = (guard) => ({
  token: String(guard.token),
  abandoned: abandonedOf(guard.abandoned),
  mode: guard.mode,
});

function keep(args, guard) {
  if (guard === null) return null;
  guards.set(args.as ?? args.name, guard);
  return grantOf(guard);
}

function optionsOf(args) {
  const options = { exclusive: args.mode === 'exclusive' };
  if (args.timeout !== undefined) options.timeout = args.timeout;
  if (args.within !== undefined) options.within = guardOf(args.within);
  return options;
}

function guardOf(key) {
  const guard = guards.get(key);
  if (guard === undefined) throw new Error(`no guard is named ${key}`);
  return guard;
}

function manager(namespace) {
  const known = managers.get(namespace);
  if (known !== undefined) return known;
  const made = new proclock.LockManager({ namespace });
  managers.set(namespace, made);
  return made;
}

function requestOf(key) {
  const request = requests.get(key);
  if (request === undefined) throw new Error(`no request is named ${key}`);
  return request;
}

const snapshotOf = ({ held, pending }) => ({ held: held.map(infoOf), pending: pending.map(infoOf) });

const AsyncFunction = (async () => {}).constructor;

const commands = {
  ping: () => process.pid,
  run: ({ source, args }) =>
    new AsyncFunction('require', 'proclock', 'lock', 'guards', 'args', source)(
      require,
      proclock,
      lock,
      guards,
      args,
    ),

  acquire(args) {
    const controller = new AbortController();
    controllers.set(args.as ?? args.name, controller);
    const acquired = lock(args).acquire({ ...optionsOf(args), signal: controller.signal });
    return acquired.then((guard) => keep(args, guard));
  },
  acquireSync: (args) => keep(args, lock(args).acquireSync(optionsOf(args))),
  tryAcquire: (args) => keep(args, lock(args).tryAcquire({ exclusive: args.mode === 'exclusive' })),
  abort: ({ guard, reason }) =>
    controllers.get(guard).abort(reason === undefined ? undefined : new Error(reason)),
  release({ guard }) {
    guardOf(guard).release();
    guards.delete(guard);
  },
  downgrade: ({ guard }) => guardOf(guard).downgrade(),
  forget: ({ guard }) => void guards.delete(guard),
  query: (args) => snapshotOf(lock(args).query()),

  request({ namespace, name, as, options, signal }) {
    const controller = new AbortController();
    controllers.set(as, controller);
    const request = { calls: 0 };
    requests.set(as, request);
    const ended = new Promise((resolve, reject) => Object.assign(request, { resolve, reject }));
    ended.catch(() => {});
    let tell;
    request.called = new Promise((resolve) => {
      tell = resolve;
    });
    let synchronous = true;
    const outcome = manager(namespace).request(
      name,
      signal ? { ...options, signal: controller.signal } : options,
      (...args) => {
        request.calls++;
        tell({ args: args.map((lock) => lock && { name: lock.name, mode: lock.mode }), synchronous });
        return ended;
      },
    );
    synchronous = false;
    outcome.then(
      () => tell(null),
      () => tell(null),
    );
    return outcome;
  },
  called: ({ request }) => requestOf(request).called,
  calls: ({ request }) => requestOf(request).calls,
  fulfil: ({ request, value }) => requestOf(request).resolve(value),
  fail: ({ request, message }) => requestOf(request).reject(new Error(message)),
  queryAll: async ({ namespace }) => snapshotOf(await manager(namespace).query()),

  close: (args) => lock(args).close(),

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

function errorOf(error) {
  if (!(error instanceof Error)) return { name: 'thrown', message: String(error) };
  const { name, message, code, stack, holders } = error;
  return { name, message, code, stack, holders: holders?.map(infoOf) };
}

channel.on('message', async (text) => {
  const { id, command, args } = JSON.parse(text);
  try {
    const result = await commands[command](args);
    send(JSON.stringify({ id, result }));
  } catch (error) {
    send(JSON.stringify({ id, error: errorOf(error) }));
  }
});
if (isMainThread) process.on('disconnect', () => process.exit(1));
send(JSON.stringify({ ready: { pid: process.pid, threadId } }));
