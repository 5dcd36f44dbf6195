// Forked children that count together. Reading the file, adding one and writing it back are three steps: without the lock
// most of the counts would be lost.
import { fork } from 'node:child_process';
import { once } from 'node:events';
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { Lock } from 'proclock';

const CHILDREN = 4;
const ROUNDS = 100;

const counter = process.argv[2];
const lock = new Lock('counter'); // the same lock in the parent and in every child

if (counter === undefined) {
  const folder = await mkdtemp(join(tmpdir(), 'counter-'));
  const file = join(folder, 'count');
  await writeFile(file, '0');
  const children = Array.from({ length: CHILDREN }, () => fork(fileURLToPath(import.meta.url), [file]));
  await Promise.all(children.map((child) => once(child, 'exit')));
  const count = await lock.acquire(() => readFile(file, 'utf8'));
  console.log(`${CHILDREN} children, ${ROUNDS} rounds each: ${count}`);
  await rm(folder, { recursive: true });
  process.exitCode = Number(count) === CHILDREN * ROUNDS ? 0 : 1;
} else {
  for (let round = 0; round < ROUNDS; round++) {
    await lock.acquire(async () => {
      const count = Number(await readFile(counter, 'utf8'));
      await writeFile(counter, String(count + 1));
    });
  }
}
