// Two accounts, each with its own lock, so that transfers between others go on meanwhile. Who locks "from" and then "to" will
// one day meet somebody who does it the other way round, and both wait for ever. acquireAll() takes them in one order that
// is the same for everybody.
//
// Here four processes move money to and fro between three accounts, and the sum has to stay what it was.
import { fork } from 'node:child_process';
import { once } from 'node:events';
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { acquireAll, Lock } from 'proclock';

const ACCOUNTS = ['alice', 'bob', 'carol'];
const TRANSFERS = 100;
const START = 1000;

const balance = async (file) => Number(await readFile(file, 'utf8'));

async function transfer(folder, from, to, amount) {
  const [source, target] = [join(folder, from), join(folder, to)];
  await acquireAll([new Lock(source), new Lock(target)], { timeout: 10_000 }, async () => {
    await writeFile(source, String((await balance(source)) - amount));
    await writeFile(target, String((await balance(target)) + amount));
  });
}

const [folder] = process.argv.slice(2);
if (folder !== undefined) {
  for (let n = 0; n < TRANSFERS; n++) {
    const from = ACCOUNTS[(process.pid + n) % 3];
    const to = ACCOUNTS[(process.pid + n + 1 + (n % 2)) % 3];
    await transfer(folder, from, to, 1 + (n % 7));
  }
} else {
  const bank = await mkdtemp(join(tmpdir(), 'bank-'));
  for (const account of ACCOUNTS) await writeFile(join(bank, account), String(START));
  const clerks = [1, 2, 3, 4].map(() => fork(fileURLToPath(import.meta.url), [bank]));
  await Promise.all(clerks.map((clerk) => once(clerk, 'exit')));
  const balances = await Promise.all(ACCOUNTS.map((account) => balance(join(bank, account))));
  const sum = balances.reduce((total, one) => total + one);
  console.log(`${clerks.length} processes, ${TRANSFERS} transfers each: ${balances.join(' + ')} = ${sum}`);
  await rm(bank, { recursive: true });
  process.exitCode = sum === START * ACCOUNTS.length ? 0 : 1;
}
