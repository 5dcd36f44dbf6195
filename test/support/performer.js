'use strict';
// Obeys commands: takes locks and gives them back, keeps the guards by name. Who it is, and over which channel the commands
// come, is the business of whoever makes it: a process or thread of its own (actor-main.js), or this process, in a space of
// its own (engines/peer.ts).
//
// A command begins in the turn in which it is given, and whatever is given later finds its effect. What a lock answers may
// be a promise: then the answer to the command comes when that has settled.

/**
 * @param proclock the classes
 * @param lockOptions what makes the options of a lock, or of a LockManager, of the arguments of a command
 */
function createPerformer({ proclock, lockOptions }) {
  /** Handles, guards and the abort controllers of acquires, by the keys that the commands give them. */
  const handles = new Map();
  const guards = new Map();
  const controllers = new Map();
  /** LockManagers by namespace, and their requests by the keys that the commands give them. */
  const managers = new Map();
  const requests = new Map();

  function lock(args) {
    const { name, namespace, class: className = 'SharedLock', fair = false, handle } = args;
    const options = lockOptions({ namespace, fair });
    const key = handle ?? `${className} ${fair} ${options.namespace} ${name}`;
    const known = handles.get(key);
    if (known !== undefined) return known;
    const made = new proclock[className](name, options);
    handles.set(key, made);
    return made;
  }

  function manager(namespace) {
    const known = managers.get(namespace);
    if (known !== undefined) return known;
    const made = new proclock.LockManager(lockOptions({ namespace }));
    managers.set(namespace, made);
    return made;
  }

  function keep(args, guard) {
    if (guard === null) return null;
    guards.set(args.as ?? args.name, guard);
    return grantOf(guard);
  }

  function guardOf(key) {
    const guard = guards.get(key);
    if (guard === undefined) throw new Error(`no guard is named ${key}`);
    return guard;
  }

  function requestOf(key) {
    const request = requests.get(key);
    if (request === undefined) throw new Error(`no request is named ${key}`);
    return request;
  }

  /** A signal that the command `abort` aborts, by this key. */
  function signalOf(key) {
    const controller = new AbortController();
    controllers.set(key, controller);
    return controller.signal;
  }

  function optionsOf(args) {
    const options = { exclusive: args.mode === 'exclusive' };
    if (args.timeout !== undefined) options.timeout = args.timeout;
    if (args.within !== undefined) options.within = guardOf(args.within);
    return options;
  }

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

    async acquire(args) {
      const signal = signalOf(args.as ?? args.name);
      return keep(args, await lock(args).acquire({ ...optionsOf(args), signal }));
    },
    acquireSync: (args) => keep(args, lock(args).acquireSync(optionsOf(args))),
    async tryAcquire(args) {
      return keep(args, await lock(args).tryAcquire({ exclusive: args.mode === 'exclusive' }));
    },
    abort: ({ guard, reason }) =>
      controllers.get(guard).abort(reason === undefined ? undefined : new Error(reason)),
    async release({ guard: key }) {
      const guard = guardOf(key);
      await guard.release();
      if (guards.get(key) === guard) guards.delete(key);
    },
    async downgrade({ guard }) {
      await guardOf(guard).downgrade();
    },
    async upgrade({ guard: key, timeout }) {
      const guard = guardOf(key);
      await guard.upgrade({ signal: signalOf(key), ...(timeout === undefined ? {} : { timeout }) });
      return grantOf(guard);
    },
    tryUpgrade: ({ guard }) => guardOf(guard).tryUpgrade(),
    forget: ({ guard }) => void guards.delete(guard),
    async query(args) {
      return snapshotOf(await lock(args).query());
    },

    request({ namespace, name, as, options, signal }) {
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
        signal ? { ...options, signal: signalOf(as) } : options,
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
  };

  /** Does what the command says. Never rejects: the answer has the `result`, or the `error` as plain data. */
  return async function perform(command, args) {
    try {
      return { result: await commands[command](args) };
    } catch (error) {
      return { error: errorOf(error) };
    }
  };
}

const AsyncFunction = (async () => {}).constructor;

const infoOf = ({ name, mode, clientId, pid, threadId, since }) => ({
  name,
  mode,
  clientId,
  pid,
  threadId,
  since: since.getTime(),
});

const snapshotOf = ({ held, pending }) => ({ held: held.map(infoOf), pending: pending.map(infoOf) });

const abandonedOf = (abandoned) =>
  abandoned && { ...abandoned, since: abandoned.since.getTime(), token: String(abandoned.token) };

const grantOf = (guard) => ({
  token: String(guard.token),
  abandoned: abandonedOf(guard.abandoned),
  mode: guard.mode,
});

function errorOf(error) {
  // Also one of another realm, which jest makes of every file.
  if (typeof error?.message !== 'string') return { name: 'thrown', message: String(error) };
  const { name, message, code, stack, holders, cycle, cause } = error;
  return {
    name,
    message,
    code,
    stack,
    holders: holders?.map(infoOf),
    cycle: cycle?.map(infoOf),
    cause: cause && errorOf(cause),
  };
}

module.exports = { createPerformer, errorOf };
