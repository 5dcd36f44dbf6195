// A child process with a space of its own over an engine, which runs what a test tells it to.
import { type ChildProcess, fork } from 'node:child_process';
import { join } from 'node:path';

export interface Ended {
  code: number | null;
  signal: NodeJS.Signals | null;
}

export class Worker {
  readonly ended: Promise<Ended>;
  stderr = '';
  private readonly calls = new Map<number, { resolve(value: unknown): void; reject(error: Error): void }>();
  private lastId = 0;

  private constructor(private readonly process: ChildProcess) {
    this.ended = new Promise((resolve) => process.once('exit', (code, signal) => resolve({ code, signal })));
    process.stderr?.on('data', (text) => {
      this.stderr += text;
    });
    process.on('message', (text) => this.answered(JSON.parse(String(text))));
    void this.ended.then(() => {
      for (const { reject } of this.calls.values()) reject(new Error(`the child has ended: ${this.stderr}`));
      this.calls.clear();
    });
  }

  /** @param entry of the package, whose `connect` opens the space. */
  static async start(entry: string, where: string | string[], options: object = {}): Promise<Worker> {
    const env = { ...process.env, PROCLOCK_TEST_SPACE: JSON.stringify([entry, where, options]) };
    const worker = new Worker(fork(join(__dirname, 'worker-main.js'), { env, silent: true }));
    await new Promise((resolve, reject) => worker.calls.set(0, { resolve, reject }));
    return worker;
  }

  get pid(): number {
    return this.process.pid as number;
  }

  /** The body of an async function of `space, remote, lock, guards, args, require`. */
  run<T = unknown>(source: string, args?: unknown): Promise<T> {
    const id = ++this.lastId;
    return new Promise((resolve, reject) => {
      this.calls.set(id, { resolve: resolve as (value: unknown) => void, reject });
      this.process.send({ id, source, args }, () => {});
    });
  }

  /** Takes the lock, and keeps the guard by the name. */
  async hold(name: string, mode: 'shared' | 'exclusive' = 'exclusive'): Promise<bigint> {
    return BigInt(
      await this.run<string>(
        'guards.set(args.name, await lock(args.name)[args.mode]()); return guards.get(args.name).token',
        { name, mode },
      ),
    );
  }

  async release(name: string): Promise<void> {
    await this.run('await guards.get(args).release()', name);
  }

  async kill(signal: NodeJS.Signals = 'SIGKILL'): Promise<Ended> {
    this.process.kill(signal);
    return this.ended;
  }

  signal(signal: NodeJS.Signals): void {
    this.process.kill(signal);
  }

  get hasEnded(): boolean {
    return this.process.exitCode !== null || this.process.signalCode !== null;
  }

  private answered(answer: {
    id: number;
    value?: unknown;
    error?: { message: string; code?: string };
  }): void {
    const call = this.calls.get(answer.id);
    this.calls.delete(answer.id);
    if (answer.error === undefined) call?.resolve(answer.value);
    else call?.reject(Object.assign(new Error(answer.error.message), { code: answer.error.code }));
  }
}
