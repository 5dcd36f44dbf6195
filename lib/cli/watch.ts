// `proclock watch`: what `ls` shows, again and again. On a terminal in place; elsewhere lines once a second, so that it notices
// soon when nobody reads them any more.
import { jsonOf, type LockState, type Source, sourceOf } from './locks';
import { type Line, Screen } from './screen';
import { lineOfLock, tableOf } from './table';
import { Exit } from './usage';

const FRAME_MS = 250;
const LINES_MS = 1000;

/** The picture of one moment. */
export function pictureOf(locks: LockState[], problems: string[], at: Date): Line[] {
  const sum = (of: 'held' | 'pending'): number => locks.reduce((count, lock) => count + lock[of].length, 0);
  const counts = `${locks.length} locks, ${sum('held')} holders, ${sum('pending')} waiting`;
  return [
    [
      ['bold', 'proclock watch'],
      ['', `  ${counts}`],
      ['dim', `  ${at.toTimeString().slice(0, 8)}`],
    ],
    [],
    ...tableOf(locks),
    ...problems.map((problem): Line => [['red', problem]]),
  ];
}

function linesOf(locks: LockState[], problems: string[], at: Date): string {
  const time = at.toTimeString().slice(0, 8);
  const lines = locks.length === 0 ? ['nobody holds a lock, or waits for one'] : locks.map(lineOfLock);
  return [...lines, ...problems].map((line) => `${time}  ${line}\n`).join('');
}

/** Calls `show` now and every so often, until a signal ends us. */
async function repeat(source: Source, ms: number, show: (seen: Awaited<ReturnType<Source['look']>>) => void) {
  for (;;) {
    show(await source.look());
    await new Promise((resolve) => setTimeout(resolve, ms));
  }
}

/** ^Z: the cursor comes back, and what is drawn afterwards is below what the shell has written. */
function endWhileStopped(screen: Screen): void {
  // Stopped by the system's own handling: it does not stop a process that no shell would continue.
  const stop = (): void => {
    screen.end();
    process.off('SIGTSTP', stop);
    process.kill(process.pid, 'SIGTSTP');
  };
  process.on('SIGTSTP', stop);
  process.on('SIGCONT', () => {
    process.off('SIGTSTP', stop).on('SIGTSTP', stop);
    process.kill(process.pid, 'SIGWINCH'); // Node.js was not told of a terminal that was resized meanwhile.
  });
}

/** Ends by a signal, when its output is closed, or when the locks can not be looked at any more. */
export async function watch(args: string[]): Promise<number> {
  const { source, values } = await sourceOf(args);
  const { stdout } = process;
  const screen = new Screen(stdout);
  process.on('exit', () => screen.end());
  for (const [signal, number] of [
    ['SIGINT', 2],
    ['SIGTERM', 15],
    ['SIGHUP', 1],
    ['SIGQUIT', 3],
  ] as const)
    process.on(signal, () => process.exit(Exit.BY_SIGNAL + number));
  if (values.json === true) await repeat(source, LINES_MS, ({ locks }) => stdout.write(`${jsonOf(locks)}\n`));
  else if (screen.isLive) {
    endWhileStopped(screen);
    await repeat(source, FRAME_MS, ({ locks, problems }) =>
      screen.draw(pictureOf(locks, problems, new Date())),
    );
  } else
    await repeat(source, LINES_MS, ({ locks, problems }) =>
      stdout.write(linesOf(locks, problems, new Date())),
    );
  return Exit.OK;
}
