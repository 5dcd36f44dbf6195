// A child process that does what it is told, step by step: [method, ...arguments] in, the result out.
import { fork } from 'node:child_process';
import { once } from 'node:events';
import { fileURLToPath } from 'node:url';

const CHILD = fileURLToPath(new URL('./child.mjs', import.meta.url));

export class Actor {
  #child;
  #ended;
  #pending = null;

  /** @param launcher a command that starts Node. @param script what the child runs */
  constructor(launcher, script) {
    const [execPath, ...execArgv] = [...launcher, process.execPath];
    // What a launcher has to say is not what was asked for.
    const stderr = launcher.length > 0 ? 'ignore' : 'inherit';
    this.#child = fork(script, [], { execPath, execArgv, stdio: ['ignore', 'inherit', stderr, 'ipc'] });
    this.#ended = once(this.#child, 'exit');
    this.#child.on('message', ({ result, error }) => {
      const { resolve, reject } = this.#pending;
      this.#pending = null;
      if (error === undefined) resolve(result);
      else reject(new Error(error));
    });
    this.#child.on('exit', (code, signal) => {
      this.#pending?.reject(new Error(`a child of the benchmark ended (${signal ?? code})`));
    });
  }

  static async start(launcher = [], script = CHILD) {
    const actor = new Actor(launcher, script);
    await actor.call('ready');
    return actor;
  }

  static startMany(count) {
    return Promise.all(Array.from({ length: count }, () => Actor.start()));
  }

  get pid() {
    return this.#child.pid;
  }

  /** One call at a time. */
  call(method, ...args) {
    return new Promise((resolve, reject) => {
      this.#pending = { resolve, reject };
      this.#child.send([method, ...args]);
    });
  }

  async end() {
    this.#child.kill('SIGKILL');
    await this.#ended;
  }
}
