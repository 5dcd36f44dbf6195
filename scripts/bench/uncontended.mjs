// What a call costs when nobody else wants the lock; against the limit, that is, two empty Node-API calls and one raw
// try and unlock of the rwlock in C, and against the peers.
import { openSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { dropNamespace, freshNamespace, perCall, probe, proclock, summarize } from './measure.mjs';
import { peer } from './peers.mjs';

const RAW_PAIRS = 5000;
const namespace = freshNamespace();
const file = join(tmpdir(), namespace);

/** Callback forms run in an AsyncLocalStorage: on Node 20 that slows every await of a process, so they have their own. */
export async function run({ quick, callbacks }) {
  writeFileSync(file, '');
  const lock = new proclock.SharedLock('uncontended', { namespace });
  const raw = { exclusive: [], shared: [] };
  const functions = {
    'two empty N-API calls': () => {
      probe.empty();
      probe.empty();
    },
    'raw pairs': () => {
      raw.exclusive.push(probe.rwlockPairs(RAW_PAIRS) / RAW_PAIRS);
      raw.shared.push(probe.rwlockSharedPairs(RAW_PAIRS) / RAW_PAIRS);
    },
    ...(callbacks ? callbackForms(lock) : guardForms(lock)),
  };
  try {
    const figures = await perCall(functions, quick ? 5 : 25);
    delete figures['raw pairs'];
    figures['raw exclusive pair in C'] = summarize(raw.exclusive);
    figures['raw shared pair in C'] = summarize(raw.shared);
    return figures;
  } finally {
    lock.close();
    dropNamespace(namespace);
    rmSync(file, { force: true, recursive: true });
  }
}

function guardForms(lock) {
  return {
    'exclusiveSync() + release()': () => lock.exclusiveSync().release(),
    'sharedSync() + release()': () => lock.sharedSync().release(),
    'tryExclusive() + release()': () => lock.tryExclusive().release(),
    'await exclusive() + release()': async () => (await lock.exclusive()).release(),
    'await shared() + release()': async () => (await lock.shared()).release(),
    'query()': () => lock.query(),
    ...flock(),
    ...fsNative(),
    ...asyncMutex((mutex) => ({
      'async-mutex acquire + release': async () => (await mutex.acquire())(),
    })),
    ...properLockfile(),
  };
}

function callbackForms(lock) {
  return {
    'await exclusive(fn)': async () => await lock.exclusive(() => 1),
    'await exclusive(async fn)': async () => await lock.exclusive(async () => 1),
    'exclusiveSync(fn)': () => lock.exclusiveSync(() => 1),
    ...asyncMutex((mutex) => ({
      'async-mutex runExclusive(fn)': async () => await mutex.runExclusive(() => 1),
      'async-mutex runExclusive(async fn)': async () => await mutex.runExclusive(async () => 1),
    })),
  };
}

function flock() {
  const fsExt = peer('fs-ext');
  if (fsExt === null) return {};
  const fd = openSync(file, 'r+');
  return {
    'fs-ext flockSync pair': () => {
      fsExt.flockSync(fd, 'ex');
      fsExt.flockSync(fd, 'un');
    },
  };
}

function fsNative() {
  const native = peer('fs-native-extensions');
  if (native === null) return {};
  const fd = openSync(file, 'r+');
  return {
    'fs-native-extensions tryLock + unlock': () => {
      native.tryLock(fd);
      native.unlock(fd);
    },
    'fs-native-extensions waitForLock + unlock': async () => {
      await native.waitForLock(fd);
      native.unlock(fd);
    },
  };
}

function asyncMutex(forms) {
  const module = peer('async-mutex');
  return module === null ? {} : forms(new module.Mutex());
}

function properLockfile() {
  const module = peer('proper-lockfile');
  return module === null ? {} : { 'proper-lockfile lockSync + unlock': () => module.lockSync(file)() };
}
