// etcd members of our own: one, or a cluster of several.
import { type ChildProcess, execFile } from 'node:child_process';
import { readFileSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { until } from '../../support/until';
import { commandOf, end, found, freePort, hasEnded, launch, temporaryFolder } from '../programs';

/** Who the members are. */
const USER = 'etcd';

const etcd = found(() => commandOf('etcd'), 'etcd-server');
const etcdctl = found(() => commandOf('etcdctl'), 'etcd-client');

/** Whether members can be started here. */
export const isThere = etcd !== undefined && etcdctl !== undefined;

const START_MS_MAX = 30_000;
const YES_OR_NO = [() => true, () => false] as const;

const run = promisify(execFile);

class Member {
  private child: ChildProcess | undefined;
  private readonly folder = temporaryFolder(USER);
  /** Of all members, when it is started first. */
  cluster = '';

  constructor(
    readonly name: string,
    readonly port: number,
    readonly peerPort: number,
    private readonly scheme: string,
    private readonly flags: readonly string[],
  ) {}

  get url(): string {
    return `${this.scheme}://127.0.0.1:${this.port}`;
  }

  get peerUrl(): string {
    return `http://127.0.0.1:${this.peerPort}`;
  }

  get log(): string {
    return readFileSync(join(this.folder, 'log'), 'utf8');
  }

  get pid(): number | undefined {
    return this.child?.pid;
  }

  get isRunning(): boolean {
    return this.child !== undefined && !hasEnded(this.child);
  }

  start(): void {
    const { url, peerUrl } = this;
    const args = [
      ...['--name', this.name, '--data-dir', join(this.folder, 'data')],
      ...['--listen-client-urls', url, '--advertise-client-urls', url],
      ...['--listen-peer-urls', peerUrl, '--initial-advertise-peer-urls', peerUrl],
      ...['--initial-cluster', this.cluster, '--initial-cluster-token', this.cluster],
      ...['--logger', 'zap', '--log-outputs', join(this.folder, 'log')],
      ...this.flags,
    ];
    this.child = launch(etcd as string, args, USER);
  }

  signal(signal: NodeJS.Signals): void {
    this.child?.kill(signal);
  }

  /** @param how `SIGKILL`, unless it has to end in order */
  async end(how: NodeJS.Signals = 'SIGKILL'): Promise<void> {
    if (this.child === undefined) return;
    this.signal('SIGCONT');
    await end(this.child, how);
  }

  async remove(): Promise<void> {
    await this.end();
    rmSync(this.folder, { recursive: true, force: true, maxRetries: 5 });
  }
}

export interface ClusterOptions {
  /** @default 1 */
  members?: number;
  /** For each of them. */
  flags?: readonly string[];
  /** @default 'http' */
  scheme?: 'http' | 'https';
  /** What etcdctl is told where that is `https`. */
  ctl?: readonly string[];
}

export class EtcdCluster {
  /** What etcdctl is told besides. */
  ctlFlags: readonly string[] = [];

  private constructor(readonly members: readonly Member[]) {}

  static async start(options: ClusterOptions = {}): Promise<EtcdCluster> {
    const { members: count = 1, flags = [], scheme = 'http', ctl = [] } = options;
    const members: Member[] = [];
    for (let index = 0; index < count; index++)
      members.push(new Member(`m${index}`, await freePort(), await freePort(), scheme, flags));
    const all = members.map(({ name, peerUrl }) => `${name}=${peerUrl}`).join(',');
    for (const member of members) member.cluster = all;
    const cluster = new EtcdCluster(members);
    cluster.ctlFlags = ctl;
    for (const member of members) member.start();
    await cluster.untilHealthy();
    return cluster;
  }

  get endpoints(): string[] {
    return this.members.map(({ url }) => url);
  }

  get port(): number {
    return (this.members[0] as Member).port;
  }

  /** Until every member that runs answers, with the consent of the majority. */
  async untilHealthy(): Promise<void> {
    const running = this.members.filter((member) => member.isRunning);
    const check = ({ url }: Member) => this.ctl(['--endpoints', url, 'endpoint', 'health']);
    const areHealthy = () => Promise.all(running.map(check)).then(...YES_OR_NO);
    await until(areHealthy, { within: START_MS_MAX });
  }

  /** Resolves with what etcdctl prints. */
  async ctl(args: readonly string[]): Promise<string> {
    const endpoints = args.includes('--endpoints') ? [] : ['--endpoints', this.endpoints.join(',')];
    const env = { ...process.env, ETCDCTL_API: '3' };
    const all = [...endpoints, '--command-timeout', '10s', ...this.ctlFlags, ...args];
    return (await run(etcdctl as string, all, { env })).stdout;
  }

  /** Those of locks and sessions. */
  async keys(prefix = 'proclock/'): Promise<string[]> {
    return (await this.ctl(['get', prefix, '--prefix', '--keys-only']))
      .split('\n')
      .filter((line) => line !== '');
  }

  /** Ends the session of that process, as if the lease had run out. */
  async revokeLeaseOf(namespace: string, pid: number): Promise<void> {
    const prefix = `proclock/${namespace}/session/`;
    const text = (coded: string) => Buffer.from(coded, 'base64').toString();
    const { kvs } = JSON.parse(await this.ctl(['get', prefix, '--prefix', '-w', 'json']));
    for (const { key, value } of kvs) {
      if (JSON.parse(text(value)).pid === pid)
        await this.ctl(['lease', 'revoke', text(key).slice(prefix.length)]);
    }
  }

  async leader(): Promise<Member> {
    let leader: Member | undefined;
    const look = async (): Promise<void> => {
      for (const member of this.members) {
        if (!member.isRunning) continue;
        const text = await this.ctl(['--endpoints', member.url, 'endpoint', 'status', '-w', 'json']);
        // Numbers of 64 bits: as text, they are compared digit by digit.
        const [, self] = /"member_id":(\d+)/.exec(text) ?? [];
        if (self !== undefined && text.includes(`"leader":${self}`)) leader = member;
      }
    };
    await until(
      () =>
        look().then(
          () => leader !== undefined,
          () => false,
        ),
      { within: START_MS_MAX },
    );
    return leader as Member;
  }

  async version(): Promise<string> {
    const [status] = JSON.parse(await this.ctl(['endpoint', 'status', '-w', 'json']));
    return status.Status.version;
  }

  /** A figure that the first member keeps of itself. */
  async metric(name: string): Promise<number> {
    const text = await (await fetch(`${(this.members[0] as Member).url}/metrics`)).text();
    return Number(new RegExp(`^${name} (.*)$`, 'm').exec(text)?.[1] ?? Number.NaN);
  }

  async restart(member: Member, how: NodeJS.Signals = 'SIGKILL'): Promise<void> {
    await member.end(how);
    member.start();
    await this.untilHealthy();
  }

  async stop(): Promise<void> {
    await Promise.all(this.members.map((member) => member.remove()));
  }
}
