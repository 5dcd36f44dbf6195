// An expensive report that several processes want at once, after its cache has expired, say. One of them makes it; those who
// came meanwhile wait for that, and read what it made. If it dies or fails, the next one makes it.
//
// Here six processes come at once; the first one that is at it is killed.
import { fork } from 'node:child_process';
import { once } from 'node:events';
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { Lock, SharedLock, singleFlight } from 'proclock';

async function report(folder, attempt) {
  const file = join(folder, 'report.txt');
  const { ran } = await singleFlight(new Lock(folder), async () => {
    process.send('at it');
    if (attempt === 'first') await setTimeout(60_000); // until it is killed
    await writeFile(file, `made by ${process.pid}`);
  });
  return { ran, text: await readFile(file, 'utf8') };
}

const [folder, attempt] = process.argv.slice(2);
if (folder !== undefined) {
  process.send(await report(folder, attempt));
  process.disconnect();
} else {
  const cache = await mkdtemp(join(tmpdir(), 'report-'));
  const come = (attempt) => fork(fileURLToPath(import.meta.url), [cache, attempt]);
  const first = come('first');
  await once(first, 'message');
  const results = [];
  const others = [1, 2, 3, 4, 5].map(() => {
    const other = come('other');
    other.on('message', (message) => {
      if (message !== 'at it') results.push({ pid: other.pid, ...message });
    });
    return other;
  });
  // Once all of them wait for it, the one that is at it dies.
  const lock = new SharedLock(cache);
  while (lock.query().pending.length < others.length) await setTimeout(5);
  first.kill('SIGKILL');
  await Promise.all(others.map((other) => once(other, 'exit')));
  const makers = results.filter(({ ran }) => ran);
  console.log(`wanted by ${others.length} processes, made ${makers.length} time(s) after the first one died`);
  const right = results.every(({ text }) => text === `made by ${makers[0]?.pid}`);
  console.log(right ? 'all of them have read it' : 'somebody has read something else');
  await rm(cache, { recursive: true });
  process.exitCode = right && makers.length === 1 && results.length === others.length ? 0 : 1;
}
