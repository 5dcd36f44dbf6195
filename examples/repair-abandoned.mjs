// Repairing what a dead process left. Two files belong together; a child is killed when it has written one of them. Whoever
// holds the lock next is told by `guard.abandoned`, and makes the pair whole from a journal.
import { fork } from 'node:child_process';
import { once } from 'node:events';
import { mkdtemp, readFile, rename, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { SharedLock } from 'proclock';

const lock = new SharedLock('accounts');
const folder = process.argv[2] ?? (await mkdtemp(join(tmpdir(), 'accounts-')));
const files = { from: join(folder, 'from'), to: join(folder, 'to'), journal: join(folder, 'journal') };

async function balances() {
  return { from: Number(await readFile(files.from, 'utf8')), to: Number(await readFile(files.to, 'utf8')) };
}

/** Has to be the same however often it is done: the one that repairs may be killed as well. */
async function apply({ from, to }, betweenTheFiles = () => {}) {
  await writeFile(files.from, String(from));
  betweenTheFiles();
  await writeFile(files.to, String(to));
}

async function repair() {
  const journal = await readFile(files.journal, 'utf8').catch(() => '');
  if (journal !== '') await apply(JSON.parse(journal));
}

async function transfer(amount, betweenTheFiles) {
  await lock.exclusive(async () => {
    const { from, to } = await balances();
    const after = { from: from - amount, to: to + amount };
    await writeFile(`${files.journal}.new`, JSON.stringify(after));
    await rename(`${files.journal}.new`, files.journal); // from here on the transfer will be done, by whomever
    await apply(after, betweenTheFiles);
  });
}

if (process.argv[2] === undefined) {
  await apply({ from: 100, to: 0 });
  const child = fork(fileURLToPath(import.meta.url), [folder]);
  const [, signal] = await once(child, 'exit');
  console.log(`the child was ended by ${signal}`);

  // A reader is told as well. It may not repair, but it knows better than to believe what it sees.
  const { abandoned } = await lock.shared(async (guard) => guard);
  const torn = await lock.shared(balances);
  console.log(`a reader was told of pid ${abandoned.pid}, and sees`, torn);

  const repaired = await lock.exclusive(async (guard) => {
    if (guard.abandoned) await repair();
    return balances();
  });
  // Now that an exclusive holder which was told has come to its end, nobody is told any more.
  const cleared = (await lock.shared((guard) => guard.abandoned)) === null;
  console.log('repaired:', repaired);
  await rm(folder, { recursive: true });
  const ok =
    abandoned.pid === child.pid && torn.from + torn.to !== 100 && repaired.from + repaired.to === 100;
  process.exitCode = ok && cleared ? 0 : 1;
} else {
  await transfer(30, () => process.kill(process.pid, 'SIGKILL'));
}
