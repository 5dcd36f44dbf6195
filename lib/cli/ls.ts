// `proclock ls`: who holds which lock, and who waits for it.
import { jsonOf, sourceOf } from './locks';
import { Screen } from './screen';
import { tableOf } from './table';
import { complain } from './text';
import { Exit } from './usage';

/** @returns the exit code */
export async function ls(args: string[]): Promise<number> {
  const { source, values } = await sourceOf(args);
  try {
    const { locks, problems } = await source.look();
    const { stdout } = process;
    const screen = new Screen(stdout);
    if (values.json === true) stdout.write(`${jsonOf(locks)}\n`);
    else
      stdout.write(
        tableOf(locks)
          .map((line) => `${screen.textOf(line)}\n`)
          .join(''),
      );
    if (stdout.isTTY && values.json !== true && locks.length === 0)
      stdout.write('Nobody holds a lock, or waits for one.\n');
    for (const problem of problems) complain(problem);
    return problems.length === 0 ? Exit.OK : Exit.FAILED;
  } finally {
    await source.close();
  }
}
