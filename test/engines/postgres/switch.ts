// What a pooler does that does not keep its promise: behind one and the same connection of a client there is suddenly another
// connection to the server.
import { createServer, type Server, type Socket, connect as tcpConnect } from 'node:net';

/** A startup message of version 3.0, and how the server says that it waits for a question. */
const PROTOCOL = 196_608;
const READY = 'Z'.charCodeAt(0);

export class ConnectionSwitch {
  port = 0;
  private readonly sockets: Socket[] = [];
  private readonly links: Array<{ client: Socket; server: Socket }> = [];
  private listener!: Server;

  private constructor(private readonly target: number) {}

  static async start(target: number): Promise<ConnectionSwitch> {
    const made = new ConnectionSwitch(target);
    made.listener = createServer((client) => made.join(client, made.connect()));
    await new Promise<void>((resolve) => made.listener.listen(0, '127.0.0.1', resolve));
    made.port = (made.listener.address() as { port: number }).port;
    return made;
  }

  /** Gives all clients another connection each. The old ones stay open. */
  async change(): Promise<void> {
    for (const { client, server } of this.links.splice(0)) {
      const other = this.connect();
      other.write(startup({ user: 'postgres', database: 'postgres' }));
      await new Promise<void>((resolve) => {
        let heard = Buffer.alloc(0);
        other.on('data', (data) => {
          heard = Buffer.concat([heard, data]);
          // The message is a letter, its length and a state: six bytes.
          if (heard.at(-6) === READY) resolve();
        });
      });
      other.removeAllListeners('data');
      client.removeAllListeners('data');
      server.removeAllListeners('data').resume();
      this.join(client, other);
    }
  }

  async stop(): Promise<void> {
    for (const socket of this.sockets) socket.destroy();
    await new Promise((resolve) => this.listener.close(resolve));
  }

  private connect(): Socket {
    const server = tcpConnect(this.target, '127.0.0.1');
    server.on('error', () => {});
    this.sockets.push(server);
    return server;
  }

  private join(client: Socket, server: Socket): void {
    this.sockets.push(client);
    this.links.push({ client, server });
    client.on('error', () => {});
    client.on('data', (data) => server.write(data));
    server.on('data', (data) => client.write(data));
    client.once('close', () => server.destroy());
  }
}

function startup(parameters: Record<string, string>): Buffer {
  const text = Object.entries(parameters).map(([name, value]) => `${name}\0${value}\0`);
  const body = Buffer.from(`${text.join('')}\0`);
  const head = Buffer.alloc(8);
  head.writeInt32BE(head.length + body.length, 0);
  head.writeInt32BE(PROTOCOL, 4);
  return Buffer.concat([head, body]);
}
