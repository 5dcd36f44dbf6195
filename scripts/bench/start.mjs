// How long programs take from the start to the end: Node.js by itself, one that loads the package, and `proclock run`.
import { spawnSync } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import { dropNamespace, freshNamespace, nowNs, summarize } from './measure.mjs';

const DIST = fileURLToPath(new URL('../../dist', import.meta.url));

export async function run({ quick }) {
  const namespace = freshNamespace();
  const rounds = quick ? 15 : 60;
  const programs = {
    'node -e 0': ['-e', '0'],
    'node -e "require(\'proclock\')"': ['-e', `require(${JSON.stringify(DIST)})`],
    'proclock run NAME true': [`${DIST}/cli/main.js`, 'run', '--namespace', namespace, 'start', 'true'],
  };
  const values = Object.fromEntries(Object.keys(programs).map((name) => [name, []]));
  try {
    for (let round = 0; round <= rounds; round++) {
      for (const [name, args] of Object.entries(programs)) {
        const beginNs = nowNs();
        const { status, stderr } = spawnSync(process.execPath, args, { encoding: 'utf8' });
        const ms = (nowNs() - beginNs) / 1e6;
        if (status !== 0) throw new Error(`${name} ended with ${status}: ${stderr}`);
        if (round > 0) values[name].push(ms); // the first round reads the files
      }
    }
  } finally {
    dropNamespace(namespace);
  }
  return Object.fromEntries(Object.entries(values).map(([name, list]) => [name, summarize(list)]));
}
