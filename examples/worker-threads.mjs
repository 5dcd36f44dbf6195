// Worker threads and memory that they share. A worker may block its thread, so the sync forms will do: no promise is made.
import { once } from 'node:events';
import { isMainThread, parentPort, Worker, workerData } from 'node:worker_threads';
import { SharedLock } from 'proclock';

const THREADS = 4;
const ROUNDS = 20_000;
const COLUMNS = 64;

const lock = new SharedLock('table');

if (isMainThread) {
  const table = new Int32Array(new SharedArrayBuffer(4 * COLUMNS));
  const workers = Array.from(
    { length: THREADS },
    () => new Worker(new URL(import.meta.url), { workerData: table }),
  );
  const torn = (await Promise.all(workers.map((worker) => once(worker, 'message')))).flat();
  const rows = torn.reduce((sum, count) => sum + count, 0);
  console.log(`${table[0]} changes of all ${COLUMNS} columns; ${rows} readers saw columns that differ`);
  process.exitCode = rows === 0 && new Set(table).size === 1 ? 0 : 1;
} else {
  const table = workerData;
  let torn = 0;
  for (let round = 0; round < ROUNDS; round++) {
    if (round % 10 === 0) {
      lock.exclusiveSync(() => {
        for (let column = 0; column < COLUMNS; column++) table[column]++;
      });
    } else {
      lock.sharedSync(() => {
        if (table.some((value) => value !== table[0])) torn++;
      });
    }
  }
  parentPort.postMessage(torn);
}
