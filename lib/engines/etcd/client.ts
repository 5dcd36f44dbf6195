// The client library, as far as it is used here. It is loaded when it is needed: whoever uses another engine need not have it.
import type { Socket } from 'node:net';
import type { Endpoint, EtcdCredentials } from './config';
import { noClientLibraryError } from './errors';

/** How a call of `@grpc/grpc-js` fails. */
export interface CallError extends Error {
  /** A status code of gRPC. */
  readonly code: number;
  readonly details: string;
}

export interface Call {
  cancel(): void;
}

export interface Stream<Q, A> extends Call {
  write(question: Q): void;
  on(event: 'data', listener: (answer: A) => void): unknown;
  on(event: 'error', listener: (error: CallError) => void): unknown;
  on(event: 'end', listener: () => void): unknown;
}

/** A client of `@grpc/grpc-js`: a connection to one member. */
export interface Client {
  makeUnaryRequest<Q, A>(
    path: string,
    serialize: (question: Q) => Buffer,
    deserialize: (bytes: Buffer) => A,
    question: Q,
    metadata: Metadata,
    options: object,
    callback: (error: CallError | null, answer?: A) => void,
  ): Call;
  makeBidiStreamRequest<Q, A>(
    path: string,
    serialize: (question: Q) => Buffer,
    deserialize: (bytes: Buffer) => A,
    metadata: Metadata,
    options: object,
  ): Stream<Q, A>;
  close(): void;
}

export interface Metadata {
  set(key: string, value: string): void;
}

interface Connector {
  connect(socket: Socket): Promise<{ socket: Socket }>;
}

interface ChannelCredentials {
  _createSecureConnector(...args: unknown[]): Connector;
}

interface Library {
  Client: new (address: string, credentials: ChannelCredentials, options: object) => Client;
  Metadata: new () => Metadata;
  credentials: {
    createInsecure(): ChannelCredentials;
    createSsl(root?: Buffer | null, key?: Buffer | null, chain?: Buffer | null): ChannelCredentials;
  };
}

const OPTIONS = {
  // Each space has connections of its own.
  'grpc.use_local_subchannel_pool': 1,
  'grpc.max_receive_message_length': -1,
  'grpc.max_send_message_length': -1,
  // What may be asked again is known here, and not there.
  'grpc.enable_retries': 0,
};

export function newClient(endpoint: Endpoint, credentials: EtcdCredentials): Client {
  const { Client, credentials: make } = load();
  const { rootCertificate = null, privateKey = null, certChain = null } = credentials;
  const channel = endpoint.secure
    ? make.createSsl(rootCertificate, privateKey, certChain)
    : make.createInsecure();
  const sockets = new Sockets();
  sockets.adopt(channel);
  const client = new Client(endpoint.address, channel, OPTIONS);
  const close = client.close.bind(client);
  client.close = () => {
    close();
    sockets.end();
  };
  return client;
}

export function newMetadata(values: Record<string, string | undefined>): Metadata {
  const metadata = new (load().Metadata)();
  // Nor what is empty: a server without users gives such a token, and takes none.
  for (const [key, value] of Object.entries(values)) if (value) metadata.set(key, value);
  return metadata;
}

/**
 * The sockets of a client. A stream that is open keeps the process alive, and the watch is always open; and a client that is
 * closed leaves the socket of a server that is silent open. The library has no word to say that it should not. But what
 * makes its sockets is in the credentials, so here is where they are known; and a socket whose `ref()` does nothing keeps
 * nothing alive.
 */
class Sockets {
  private readonly all = new Set<Socket>();
  private over = false;

  /** Takes all that are made with these credentials. */
  adopt(credentials: ChannelCredentials): void {
    const create = credentials._createSecureConnector;
    credentials._createSecureConnector = (...args) => {
      const connector = create.apply(credentials, args);
      const connect = connector.connect.bind(connector);
      connector.connect = async (plain) => {
        this.take(plain);
        const made = await connect(plain);
        this.take(made.socket);
        return made;
      };
      return connector;
    };
  }

  end(): void {
    this.over = true;
    for (const socket of this.all) socket.destroy();
  }

  private take(socket: Socket): void {
    socket.ref = () => socket;
    socket.unref();
    this.all.add(socket);
    socket.once('close', () => this.all.delete(socket));
    if (this.over) socket.destroy();
  }
}

function load(): Library {
  try {
    return require('@grpc/grpc-js') as Library;
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'MODULE_NOT_FOUND') throw noClientLibraryError(error);
    throw error;
  }
}
