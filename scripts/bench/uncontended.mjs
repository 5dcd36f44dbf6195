// What a call costs when nobody else wants the lock; against the limit, that is, two empty Node-API calls and one raw
// try and unlock of the rwlock in C, and against the peers.
import { openSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { dropNamespace, freshNamespace, perCall, probe, proclock, summarize } from './measure.mjs';
import { peer } from './peers.mjs';

const RAW_PAIRS = 5000;

/** Callback forms run in an AsyncLocalStorage: on Node 20 that slows every await of a process, so they have their own. */
export async function run({ quick, forms }) {
  const namespace = freshNamespace();
  const file = join(tmpdir(), namespace);
  writeFileSync(file, '');
  const lock = new proclock.SharedLock('uncontended', { namespace });
  try {
    return await withLimit(forms === 'callbacks' ? callbackForms(lock) : guardForms(lock, file), quick);
  } finally {
    lock.close();
    dropNamespace(namespace);
    rmSync(file, { force: true, recursive: true });
  }
}

/** Nanoseconds per call of each function, and of what the limit is made of. */
export async function withLimit(functions, quick) {
  const raw = { exclusive: [], shared: [] };
  const all = {
    'two empty N-API calls': () => {
      probe.empty();
      probe.empty();
    },
    'raw pairs': () => {
      raw.exclusive.push(probe.rwlockPairs(RAW_PAIRS) / RAW_PAIRS);
      raw.shared.push(probe.rwlockSharedPairs(RAW_PAIRS) / RAW_PAIRS);
    },
    ...functions,
  };
  const { 'raw pairs': _, ...figures } = await perCall(all, quick ? 5 : 25);
  return {
    ...figures,
    'raw exclusive pair in C': summarize(raw.exclusive),
    'raw shared pair in C': summarize(raw.shared),
  };
}

function guardForms(lock, file) {
  return {
    'exclusiveSync() + release()': () => lock.exclusiveSync().release(),
    'sharedSync() + release()': () => lock.sharedSync().release(),
    'tryExclusive() + release()': () => lock.tryExclusive().release(),
    'tryShared() + release()': () => lock.tryShared().release(),
    'await exclusive() + release()': async () => (await lock.exclusive()).release(),
    'await shared() + release()': async () => (await lock.shared()).release(),
    'query()': () => lock.query(),
    'exclusiveSync() + downgrade() + release()': () => {
      const guard = lock.exclusiveSync();
      guard.downgrade();
      guard.release();
    },
    'tryShared() + tryUpgrade() + downgrade() + release()': () => {
      const guard = lock.tryShared();
      guard.tryUpgrade();
      guard.downgrade();
      guard.release();
    },
    ...flock(file),
    ...fsNative(file),
    ...asyncMutex((mutex) => ({
      'async-mutex acquire + release': async () => (await mutex.acquire())(),
    })),
    ...properLockfile(file),
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

function flock(file) {
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

function fsNative(file) {
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

function properLockfile(file) {
  const module = peer('proper-lockfile');
  return module === null ? {} : { 'proper-lockfile lockSync + unlock': () => module.lockSync(file)() };
}
