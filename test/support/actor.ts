// Actors: forked children, cluster workers and worker threads that take and release locks on command.
//
// Commands begin in the order in which they are sent, so a test proceeds step by step: when the answer to a later
// command is there, an acquire sent before it is granted or queued. No test has to sleep.
import { type ChildProcess, fork, spawn } from 'node:child_process';
import cluster from 'node:cluster';
import { readdirSync, readFileSync, readlinkSync, realpathSync } from 'node:fs';
import { join } from 'node:path';
import type { Readable } from 'node:stream';
import { Worker } from 'node:worker_threads';
import { type CommandName, type Commands, errorOf, Party, type PlainError } from './party';
import { until } from './until';

export type {
  Abandoned,
  AcquireArgs,
  Call,
  Grant,
  Info,
  LockArgs,
  Pending,
  RequestArgs,
  Snapshot,
} from './party';

export type ActorKind = 'fork' | 'cluster' | 'thread';
export const ACTOR_KINDS: readonly ActorKind[] = ['fork', 'cluster', 'thread'];
export const PROCESS_KINDS = ['fork', 'cluster'] as const;

/** An entry of the package, its function that opens a space, and the arguments of that. */
export type Opening = readonly [entry: string, open: string, args: readonly unknown[]];

export interface ActorOptions {
  /** Of its locks in shared memory. */
  namespace?: string;
  /** Its locks are those of `proclock/remote`, in this space. */
  space?: Opening;
  env?: Record<string, string>;
  execArgv?: string[];
  /** The words of a command that starts it (`unshare`, say). Of a fork only. */
  via?: readonly string[];
  /** Stays until the file ends, not until the test does. */
  lasting?: boolean;
}

export interface Ended {
  code: number | null;
  signal: NodeJS.Signals | null;
}

/** What the three kinds have in common. */
interface Transport {
  send(text: string): void;
  onMessage(listener: (text: string) => void): void;
  ended: Promise<Ended>;
  stderr: Readable | null;
  child?: ChildProcess;
  worker?: Worker;
}

const MAIN = join(__dirname, 'actor-main.js');

function processTransport(child: ChildProcess): Transport {
  return {
    child,
    // An actor that is about to end may close the channel first: `ended` says so, not the channel.
    send: (text) => child.send(text, () => {}),
    onMessage: (listener) => child.on('message', (text) => listener(String(text))),
    ended: new Promise((resolve) => {
      child.once('exit', (code, signal) => resolve({ code, signal }));
      child.on('error', () => {});
    }),
    stderr: child.stderr,
  };
}

const transports: Record<ActorKind, (options: ActorOptions) => Transport> = {
  fork(options) {
    const { env, execArgv } = settings(options);
    if (options.via === undefined) return processTransport(fork(MAIN, { env, execArgv, silent: true }));
    const [command = '', ...args] = [...options.via, process.execPath, ...execArgv, MAIN];
    return processTransport(spawn(command, args, { env, stdio: ['ignore', 'pipe', 'pipe', 'ipc'] }));
  },
  cluster(options) {
    const { env, execArgv } = settings(options);
    cluster.setupPrimary({ exec: MAIN, args: [], execArgv, silent: true });
    return processTransport(cluster.fork(env).process as ChildProcess);
  },
  thread(options) {
    const { env } = settings(options);
    const execArgv = options.execArgv ? { execArgv: options.execArgv } : {};
    const worker = new Worker(MAIN, { env, ...execArgv, stdout: true, stderr: true });
    return {
      worker,
      send: (text) => worker.postMessage(text),
      onMessage: (listener) => worker.on('message', listener),
      ended: new Promise((resolve) => {
        worker.once('exit', (code) => resolve({ code, signal: null }));
        worker.on('error', () => {}); // what was thrown is on stderr, and the exit code is 1
      }),
      stderr: worker.stderr,
    };
  },
};

function settings({ namespace, space, env, execArgv = [] }: ActorOptions) {
  const own = {
    ...(namespace === undefined ? {} : { PROCLOCK_TEST_NAMESPACE: namespace }),
    ...(space === undefined ? {} : { PROCLOCK_TEST_SPACE: JSON.stringify(space) }),
  };
  return { env: { ...process.env, ...env, ...own }, execArgv };
}

/** Actors that have not ended. */
export const running = new Set<Actor>();

export async function startActor(kind: ActorKind, options: ActorOptions): Promise<Actor> {
  const actor = new Actor(kind, transports[kind](options), options.lasting ?? false);
  await actor.ready;
  return actor;
}

/** Starts one actor per kind given. */
export function startActors(kinds: readonly ActorKind[], options: ActorOptions): Promise<Actor[]> {
  return Promise.all(kinds.map((kind) => startActor(kind, options)));
}

const NODE = realpathSync(process.execPath);

/** The process that runs Node, at or below this one. */
function nodeAt(pid: number): number | undefined {
  try {
    if (readlinkSync(`/proc/${pid}/exe`) === NODE) return pid;
    const children = readFileSync(`/proc/${pid}/task/${pid}/children`, 'utf8').split(' ').filter(Boolean);
    return children.map((child) => nodeAt(Number(child))).find((found) => found !== undefined);
  } catch {
    return undefined; // it has ended
  }
}

export class Actor extends Party {
  /** As it sees it itself. */
  pid = 0;
  /** As we see it. */
  systemPid = 0;
  threadId = 0;
  /** What it wrote to stderr so far. */
  stderr = '';
  readonly ended: Promise<Ended>;
  /** @internal */
  readonly ready: Promise<void>;
  private readonly calls = new Map<number, { resolve(value: unknown): void; reject(error: Error): void }>();
  private lastId = 0;

  /** @internal */
  constructor(
    readonly kind: ActorKind,
    private readonly transport: Transport,
    readonly lasting: boolean,
  ) {
    super();
    running.add(this);
    transport.stderr?.on('data', (text) => {
      this.stderr += text;
    });
    this.ready = new Promise((resolve, reject) => {
      transport.onMessage((text) => this.onMessage(JSON.parse(text), resolve));
      this.lostWhenEnded(reject);
    });
    this.ended = transport.ended.then((ended) => {
      running.delete(this);
      return ended;
    });
  }

  /** Sends a command; resolves with its result, rejects with its error, or when the actor ends before it answers. */
  call<K extends CommandName>(command: K, args?: Commands[K][0]): Promise<Commands[K][1]> {
    const id = ++this.lastId;
    const answer = new Promise((resolve, reject) => {
      this.calls.set(id, { resolve, reject });
      this.lostWhenEnded(reject, command);
    });
    this.transport.send(JSON.stringify({ id, command, args: args ?? {} }));
    return answer as Promise<Commands[K][1]>;
  }

  exit(code = 0): Promise<Ended> {
    this.begin('exit', { code });
    return this.ended;
  }

  throw(message: string): Promise<Ended> {
    this.begin('throw', { message });
    return this.ended;
  }

  kill(signal: NodeJS.Signals = 'SIGKILL'): Promise<Ended> {
    this.signal(signal);
    return this.ended;
  }

  /** SIGSTOP; resolves when it has stopped. */
  async stop(): Promise<void> {
    this.signal('SIGSTOP');
    await this.stopped();
  }

  /** Resolves when all its threads have stopped, each at its time, or when it has ended. */
  stopped(): Promise<void> {
    return until(() => this.hasEnded || this.states().every((state) => state === 'T'));
  }

  get hasEnded(): boolean {
    return !running.has(this);
  }

  cont(): void {
    this.signal('SIGCONT');
  }

  /** Ends a worker thread from outside, at whatever it does. */
  terminate(): Promise<Ended> {
    if (this.transport.worker === undefined) throw new Error(`${this.kind} actors are no threads: kill them`);
    void this.transport.worker.terminate();
    return this.ended;
  }

  /** Without mercy, whatever it is. */
  destroy(): Promise<Ended> {
    if (this.kind === 'thread') return this.terminate();
    if (!this.hasEnded) {
      for (const pid of [this.systemPid, this.transport.child?.pid ?? 0]) {
        try {
          if (pid !== 0) process.kill(pid, 'SIGKILL');
        } catch {
          // it has ended, or the other took it along
        }
      }
    }
    return this.ended;
  }

  private signal(signal: NodeJS.Signals): void {
    const { child } = this.transport;
    if (child === undefined) throw new Error('a thread can not be signalled: terminate it');
    if (this.systemPid === 0 || this.systemPid === child.pid) child.kill(signal);
    else process.kill(this.systemPid, signal);
  }

  /** The state letters of its threads. */
  private states(): string[] {
    const tasks = `/proc/${this.systemPid}/task`;
    return readdirSync(tasks).flatMap((task) => {
      try {
        const stat = readFileSync(join(tasks, task, 'stat'), 'utf8');
        return stat[stat.lastIndexOf(')') + 2] as string;
      } catch {
        return []; // it has ended meanwhile
      }
    });
  }

  private lostWhenEnded(reject: (error: Error) => void, command = 'start'): void {
    void this.transport.ended.then(({ code, signal }) =>
      reject(
        new Error(
          `${this.kind} actor ${this.pid} ended (${signal ?? code}) during ${command}\n${this.stderr.slice(-2000)}`,
        ),
      ),
    );
  }

  private onMessage(
    message: {
      ready?: { pid: number; threadId: number };
      id?: number;
      result?: unknown;
      error?: PlainError;
    },
    ready: () => void,
  ): void {
    if (message.ready) {
      Object.assign(this, message.ready);
      const started = this.transport.child?.pid;
      this.systemPid = started === undefined ? this.pid : (nodeAt(started) ?? started);
      ready();
      return;
    }
    const call = this.calls.get(message.id!);
    this.calls.delete(message.id!);
    if (message.error) call?.reject(errorOf(message.error));
    else call?.resolve(message.result);
  }
}
