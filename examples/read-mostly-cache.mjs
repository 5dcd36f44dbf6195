// A cache file that everybody reads and that anybody rebuilds when it is too old. Readers hold the lock shared. Who finds the
// cache stale acquires it exclusively, *looks again* (somebody may have been faster), rebuilds it if it still is, and then
// downgrades: it reads what it built, and so do the others.
import { fork } from 'node:child_process';
import { once } from 'node:events';
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { SharedLock } from 'proclock';

const READERS = 6;

const lock = new SharedLock('cache');

async function load(file) {
  const text = await readFile(file, 'utf8').catch(() => '');
  return text === '' ? { version: 0 } : JSON.parse(text);
}

async function read(file, wanted) {
  const cache = await lock.shared(() => load(file));
  if (cache.version >= wanted) return { cache, rebuilt: false };
  // Not an upgrade: the shared hold was given back. Two that upgraded would wait for each other.
  const guard = await lock.exclusive();
  try {
    const found = await load(file);
    if (found.version >= wanted) return { cache: found, rebuilt: false };
    await writeFile(file, JSON.stringify({ version: wanted, by: process.pid }));
    guard.downgrade();
    return { cache: await load(file), rebuilt: true };
  } finally {
    guard.release();
  }
}

if (process.argv[2] === undefined) {
  const folder = await mkdtemp(join(tmpdir(), 'cache-'));
  const readers = Array.from({ length: READERS }, () =>
    fork(fileURLToPath(import.meta.url), [join(folder, 'cache')]),
  );
  const rebuilds = [0, 0, 0];
  for (const reader of readers) {
    reader.on('message', ({ version, rebuilt }) => {
      if (rebuilt) rebuilds[version - 1]++;
    });
  }
  await Promise.all(readers.map((reader) => once(reader, 'exit')));
  for (const [index, count] of rebuilds.entries()) {
    console.log(`version ${index + 1}: wanted by ${READERS} processes, built ${count} time(s)`);
  }
  await rm(folder, { recursive: true });
  process.exitCode = rebuilds.every((count) => count === 1) ? 0 : 1;
} else {
  for (const version of [1, 2, 3]) {
    const { cache, rebuilt } = await read(process.argv[2], version);
    if (cache.version < version) throw new Error(`wanted version ${version}, got ${cache.version}`);
    process.send({ version, rebuilt });
  }
  process.disconnect();
}
