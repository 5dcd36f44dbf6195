// One scheduler among cluster workers. All of them campaign for the lock; who has it is the scheduler until it dies, however
// it dies, and then the next one is. No heartbeat, no timeout.
import cluster from 'node:cluster';
import { once } from 'node:events';
import { Lock, lead } from 'proclock';

const WORKERS = 3;

if (cluster.isPrimary) {
  let alive = WORKERS;
  let schedulers = 0;
  for (let i = 0; i < WORKERS; i++) cluster.fork();
  cluster.on('message', (worker, { predecessor }) => {
    schedulers++;
    console.log(
      `worker ${worker.id} schedules, ${predecessor ? `after the death of ${predecessor}` : 'as the first'}`,
    );
    worker.process.kill('SIGKILL');
  });
  cluster.on('exit', () => {
    alive--;
    if (alive === 0) process.exitCode = schedulers === WORKERS ? 0 : 1;
  });
} else {
  await lead(new Lock('scheduler'), async ({ abandoned }) => {
    process.send({ predecessor: abandoned && `pid ${abandoned.pid}` });
    await once(process, 'message'); // which never comes: in office for life
  });
}
