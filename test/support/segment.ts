// The segment file of a namespace, as seen from outside; and programs that enter it, each a process of its own.
import { type ChildProcess, execFileSync, spawn, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import { closeSync, openSync, readSync, statSync, writeSync } from 'node:fs';
import { join } from 'node:path';

export const DIST = join(__dirname, '../../dist');

/** Where segments of this user are. A build for macOS that runs on Linux has them where those of Linux are. */
export const FOLDER =
  process.platform === 'darwin'
    ? execFileSync('getconf', ['DARWIN_USER_CACHE_DIR'], { encoding: 'utf8' }).trim().replace(/\/$/, '')
    : '/dev/shm';

/** And those of groups. */
export const GROUP_FOLDER = process.platform === 'darwin' ? '/private/var/tmp' : '/dev/shm';

/** A build for macOS, on whatever system. */
export const IS_PORTABLE = process.platform === 'darwin' || process.env.PROCLOCK_INSTRUMENT === 'portable';

/** From this number on a build for macOS that runs on Linux has what are ports on a Mac, and no descriptors (test/darwin/shim.cc). */
const PORTS_FROM = IS_PORTABLE ? 700 : Number.POSITIVE_INFINITY;
export const isDescriptor = (fd: number | string): boolean => Number(fd) < PORTS_FROM;

/** A namespace as it is in the name of its file. A file system of macOS does not tell `A` from `a`: a build for it writes `+a`. */
export function inFileName(namespace: string): string {
  return IS_PORTABLE ? namespace.replace(/[A-Z]/g, (capital) => `+${capital.toLowerCase()}`) : namespace;
}

export function segmentFile(namespace: string, group?: number): string {
  const file = inFileName(namespace);
  return group === undefined
    ? `${FOLDER}/proclock-${process.geteuid?.()}-${file}`
    : `${GROUP_FOLDER}/proclock-g${group}-${file}`;
}

/** Offsets of native/core/layout.h that are the same in every layout version. */
export const Head = { MAGIC: 0, VERSION: 8, ABI: 12 } as const;

const PAGE = 4096;
const PROCESSES = PAGE;
const LOCKS = PROCESSES + 2 ** 11 * 64; // 2,047 processes, and what fills the page up
const STORAGES = LOCKS + 2 ** 18 * 128;
const SLOTS = STORAGES + 2 ** 19 * 64;
const EXTENTS = SLOTS + 2 ** 19 * 64;
const BUCKETS = EXTENTS + 2 ** 20 * 64;

/** The others, as this version has them. */
export const Layout = {
  ...{ PAGE, ATTACH: 64, LATCH: 128, SCAN: 192, META: 512, HEADER_END: 648 },
  ...{ PROCESSES, LOCKS, STORAGES, SLOTS, EXTENTS, BUCKETS },
} as const;

/** All that is in use: the header with the latch, and the first entries of each table, rwlocks included. */
export const IN_USE: Array<[from: number, bytes: number]> = [
  [0, 64],
  [Layout.ATTACH, Layout.LATCH - Layout.ATTACH],
  [Layout.LATCH, Layout.SCAN - Layout.LATCH],
  [Layout.SCAN, Layout.META - Layout.SCAN],
  [Layout.META, Layout.HEADER_END - Layout.META],
  [Layout.PROCESSES, 4 * 64],
  [Layout.LOCKS, 8 * 128],
  [Layout.STORAGES, 16 * 64],
  [Layout.SLOTS, 24 * 64],
  [Layout.EXTENTS, 16 * 64],
  [Layout.BUCKETS, Layout.PAGE],
];

export function writeAt(file: string, offset: number, bytes: Uint8Array): void {
  const fd = openSync(file, 'r+');
  try {
    writeSync(fd, bytes, 0, bytes.length, offset);
  } finally {
    closeSync(fd);
  }
}

export function readAt(file: string, offset: number, length: number): Buffer {
  const fd = openSync(file, 'r');
  try {
    const bytes = Buffer.alloc(length);
    readSync(fd, bytes, 0, length, offset);
    return bytes;
  } finally {
    closeSync(fd);
  }
}

export function uint32(value: number): Buffer {
  const bytes = Buffer.alloc(4);
  bytes.writeUInt32LE(value);
  return bytes;
}

/** Memory that a file of a tmpfs really takes. */
export function bytesInUse(file: string): number {
  return statSync(file).blocks * 512;
}

export interface Outcome {
  /** The code of the error, or `''`. */
  code: string;
  message: string;
  /** What the script evaluated to. */
  value: unknown;
}

/** A script for `node -e`: `body` is the inside of an async function with `SharedLock`, `namespace` and `process`. */
export function script(namespace: string, body: string): string[] {
  return [
    '-e',
    `const { SharedLock } = require(${JSON.stringify(DIST)}); const namespace = ${JSON.stringify(namespace)};
     (async () => { ${body} })().then(
       (value) => ({ code: '', message: '', value: value ?? null }),
       (error) => ({ code: error.code ?? String(error), message: error.message, value: null }),
     ).then((outcome) => console.log(JSON.stringify(outcome)));`,
  ];
}

/** Runs the body in a process of its own, by way of `command` if one is given, and waits for its end. */
export function inProcess(namespace: string, body: string, command: string[] = []): Outcome {
  const [file = '', ...args] = [...command, process.execPath, ...script(namespace, body)];
  const ended = spawnSync(file, args, { encoding: 'utf8', timeout: 150_000, killSignal: 'SIGKILL' });
  if (ended.status !== 0 || ended.signal !== null) {
    throw new Error(`ended with ${ended.status ?? ended.signal}: ${ended.stdout}${ended.stderr}`);
  }
  return JSON.parse(ended.stdout.trim().split('\n').at(-1) ?? '') as Outcome;
}

/** Enters the namespace in a fresh process, takes a lock there and releases it. */
export function enter(namespace: string): Outcome {
  return inProcess(
    namespace,
    `const lock = new SharedLock('entered', { namespace }); lock.exclusiveSync().release(); lock.close();`,
  );
}

/** A process that answers messages: `body` may define `on.<name> = async (value) => result`. */
export class Helper {
  private readonly queue: Array<
    (message: { value?: unknown; error?: { code: string; message: string } }) => void
  > = [];

  private constructor(
    private readonly child: ChildProcess,
    readonly exited: Promise<{ code: number | null; signal: NodeJS.Signals | null }>,
  ) {
    child.on('message', (message: object) => this.queue.shift()?.(message));
    child.on('exit', () => {
      for (const settle of this.queue.splice(0))
        settle({ error: { code: 'EXITED', message: 'helper ended' } });
    });
  }

  static async start(namespace: string, body: string, command: string[] = [], dist = DIST): Promise<Helper> {
    const [file = '', ...args] = [
      ...command,
      process.execPath,
      '-e',
      `const { SharedLock } = require(${JSON.stringify(dist)}); const namespace = ${JSON.stringify(namespace)};
       const on = {}; const guards = {}; ${body}
       process.on('message', async ({ name, value }) => {
         try { process.send({ value: await on[name](value) }); }
         catch (error) { process.send({ error: { code: error.code ?? '', message: String(error.stack) } }); }
       });
       process.on('disconnect', () => process.exit());
       process.send({ value: 'ready' });`,
    ];
    const child = spawn(file, args, { stdio: ['ignore', 'inherit', 'inherit', 'ipc'] });
    const exited = once(child, 'exit').then(([code, signal]) => ({ code, signal }));
    const helper = new Helper(child, exited);
    await new Promise<void>((resolve, reject) => {
      helper.queue.push((message) => (message.error ? reject(new Error(message.error.message)) : resolve()));
    });
    return helper;
  }

  get pid(): number {
    return this.child.pid ?? 0;
  }

  /** Answers come in the order of the questions. */
  call(name: string, value?: unknown): Promise<unknown> {
    return new Promise((resolve, reject) => {
      this.queue.push(({ value: result, error }) => {
        if (error === undefined) resolve(result);
        else reject(Object.assign(new Error(error.message), { code: error.code }));
      });
      this.child.send({ name, value });
    });
  }

  async end(
    signal: NodeJS.Signals = 'SIGKILL',
  ): Promise<{ code: number | null; signal: NodeJS.Signals | null }> {
    if (this.child.exitCode === null && this.child.signalCode === null) this.child.kill(signal);
    return this.exited;
  }
}
