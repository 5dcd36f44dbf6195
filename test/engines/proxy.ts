// A TCP proxy on loopback that disturbs what goes through it: stalls it, in one direction or both, delays it, lets it trickle,
// or resets it.
import { createServer, type Server, type Socket, connect as tcpConnect } from 'node:net';

/** `up`: from the client to the server. */
export type Direction = 'up' | 'down';

interface Link {
  readonly client: Socket;
  readonly server: Socket;
}

export class NetworkProxy {
  port = 0;
  /** What is stalled is kept, and goes on when the stall ends. */
  private readonly stalled = new Set<Direction>();
  private readonly links = new Set<Link>();
  private delayMs = 0;
  private bytesPerSecond = Number.POSITIVE_INFINITY;
  private readonly pumps = new Set<() => void>();
  private server!: Server;

  private constructor(private readonly target: number) {}

  /** In front of that port. */
  static async start(target: number): Promise<NetworkProxy> {
    const proxy = new NetworkProxy(target);
    proxy.server = createServer((client) => proxy.accept(client));
    await new Promise<void>((resolve) => proxy.server.listen(0, '127.0.0.1', resolve));
    proxy.port = (proxy.server.address() as { port: number }).port;
    return proxy;
  }

  stall(...directions: Direction[]): void {
    for (const direction of directions.length > 0 ? directions : (['up', 'down'] as const))
      this.stalled.add(direction);
  }

  resume(...directions: Direction[]): void {
    for (const direction of directions.length > 0 ? directions : (['up', 'down'] as const))
      this.stalled.delete(direction);
    for (const pump of this.pumps) pump();
  }

  /** Each way, for what comes from now on. */
  delay(ms: number): void {
    this.delayMs = ms;
  }

  trickle(bytesPerSecond: number): void {
    this.bytesPerSecond = bytesPerSecond;
  }

  /** Resets all connections there are. */
  reset(): void {
    for (const { client, server } of this.links) {
      client.resetAndDestroy();
      server.resetAndDestroy();
    }
  }

  /** How many connections go through it. */
  get count(): number {
    return this.links.size;
  }

  async stop(): Promise<void> {
    this.reset();
    await new Promise((resolve) => this.server.close(resolve));
  }

  private accept(client: Socket): void {
    const server = tcpConnect(this.target, '127.0.0.1');
    const link = { client, server };
    this.links.add(link);
    for (const socket of [client, server]) {
      socket.setNoDelay(true);
      socket.on('error', () => {});
      socket.on('close', () => this.links.delete(link));
    }
    this.pass('up', client, server);
    this.pass('down', server, client);
  }

  /** Also the end of a connection is kept while it is stalled. */
  private pass(direction: Direction, from: Socket, to: Socket): void {
    const queue: Array<{ due: number; data: Buffer | undefined }> = [];
    let timer: NodeJS.Timeout | undefined;
    const pump = (): void => {
      clearTimeout(timer);
      while (queue.length > 0 && !this.stalled.has(direction)) {
        const [first] = queue;
        const wait = first!.due - Date.now();
        if (wait > 0) {
          timer = setTimeout(pump, wait).unref();
          return;
        }
        const { data } = queue.shift()!;
        if (data === undefined) {
          to.end();
          this.pumps.delete(pump);
          return;
        }
        if (this.bytesPerSecond === Number.POSITIVE_INFINITY) {
          to.write(data);
          continue;
        }
        to.write(data.subarray(0, 1));
        if (data.length > 1) {
          queue.unshift({ due: Date.now() + 1000 / this.bytesPerSecond, data: data.subarray(1) });
        }
      }
    };
    this.pumps.add(pump);
    const push = (data: Buffer | undefined): void => {
      queue.push({ due: Date.now() + this.delayMs, data });
      pump();
    };
    from.on('data', push);
    from.on('close', () => push(undefined));
  }
}
