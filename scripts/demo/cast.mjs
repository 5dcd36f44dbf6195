// The participants as the main process sees them, whatever kind of process or thread each of them is.
import { fork } from 'node:child_process';
import cluster from 'node:cluster';
import { EventEmitter } from 'node:events';
import { fileURLToPath } from 'node:url';
import { Worker } from 'node:worker_threads';

const ACTOR = fileURLToPath(new URL('actor.mjs', import.meta.url));
const ROLES = [
  ...['child 1', 'child 2', 'child 3', 'child 4'].map((label) => ({ label, kind: 'child', role: 'writer' })),
  ...['cluster 1', 'cluster 2'].map((label) => ({ label, kind: 'cluster', role: 'writer' })),
  ...['thread 1', 'thread 2'].map((label) => ({ label, kind: 'thread', role: 'writer' })),
  { label: 'auditor 1', kind: 'child', role: 'auditor' },
  { label: 'auditor 2', kind: 'thread', role: 'auditor' },
];

/** Emits `message` (report), and `exit` (code, signal) once. */
class Actor extends EventEmitter {
  count = 0;
  fate = '';
  ended = false;
  #process;
  #thread;

  constructor({ label, kind, role }, number, data) {
    super();
    Object.assign(this, { label, kind, role, number });
    const given = { ...data, role, number };
    if (kind === 'thread') this.#startThread(given);
    else this.#startProcess({ PROCLOCK_DEMO: JSON.stringify(given) });
  }

  #startThread(workerData) {
    this.#thread = new Worker(ACTOR, { workerData });
    this.pid = process.pid;
    this.threadId = this.#thread.threadId;
    this.#thread.on('message', (message) => this.#receive(message));
    this.#thread.on('error', (error) => this.#receive({ type: 'failed', message: error.stack }));
    this.#thread.on('exit', (code) => this.#end(code, null));
  }

  #startProcess(env) {
    if (this.kind === 'cluster') {
      cluster.setupPrimary({ exec: ACTOR, serialization: 'advanced' });
      this.#process = cluster.fork(env).process;
    } else {
      this.#process = fork(ACTOR, { env: { ...process.env, ...env }, serialization: 'advanced' });
    }
    this.pid = this.#process.pid;
    this.threadId = 0;
    this.#process.on('message', (message) => this.#receive(message));
    this.#process.on('exit', (code, signal) => this.#end(code, signal));
  }

  #receive(message) {
    // A cluster worker's channel carries messages of the cluster module as well.
    if (typeof message?.type !== 'string') return;
    if ('count' in message) this.count = message.count;
    this.emit('message', message);
  }

  #end(code, signal) {
    this.ended = true;
    this.emit('exit', code, signal);
  }

  send(command) {
    if (this.ended) return;
    if (this.#thread) this.#thread.postMessage(command);
    else this.#process.send(command);
  }

  /** Is this who a LockInfo speaks of? */
  is({ pid, threadId }) {
    return this.pid === pid && this.threadId === threadId;
  }

  /** Ends it without asking. */
  kill() {
    if (this.#thread) this.#thread.terminate();
    else this.#process.kill('SIGKILL');
  }
}

export function startAll(data) {
  return ROLES.map((role, index) => new Actor(role, index + 1, data));
}
