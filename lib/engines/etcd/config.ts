// What `connect` takes. The types of `@grpc/grpc-js` are not named, so that programs without it can be compiled.
import { argumentTypeError, argumentValueError } from '../../common/errors';
import { checkObject } from '../../common/options';
import { checkSpaceOptions, type SpaceOptions } from '../../remote/space';

/** For TLS: each in PEM. */
export interface EtcdCredentials {
  /** Of whoever has signed the certificate of the server. @default what Node trusts */
  rootCertificate?: Buffer;
  /** Of this client, where the server asks for a certificate. */
  privateKey?: Buffer;
  /** The certificate of this client, and of those who have signed it. */
  certChain?: Buffer;
}

/** Who this is, where etcd has `auth enable`. */
export interface EtcdAuth {
  /** Of the user. */
  username: string;
  /** Of the user. */
  password: string;
}

/** How a space over etcd is opened. */
export interface EtcdOptions extends SpaceOptions {
  /** With them, also an endpoint that says neither `http://` nor `https://` is connected to by TLS. */
  credentials?: EtcdCredentials;
  /** Without it, etcd is asked as nobody in particular. */
  auth?: EtcdAuth;
  /** What all keys begin with. Locks under different prefixes have nothing to do with each other. @default 'proclock/' */
  prefix?: string;
}

/** One member of the cluster. */
export interface Endpoint {
  /** `host:port`. */
  readonly address: string;
  readonly secure: boolean;
}

/** The same, checked. */
export interface Settings {
  readonly endpoints: readonly Endpoint[];
  readonly namespace: string;
  readonly ttl: number;
  readonly prefix: string;
  readonly credentials: EtcdCredentials;
  readonly auth: EtcdAuth | undefined;
}

const ENDPOINT = /^(?:(https?):\/\/)?((?:\[[0-9A-Fa-f:.%]+\]|[^/:@?#[\]\s]+):(\d{1,5}))\/?$/;
const PORT_MAX = 65_535;

export function checkSettings(endpoints: unknown, options: EtcdOptions): Settings {
  const common = checkSpaceOptions(options);
  const { credentials, auth, prefix = 'proclock/' } = options;
  if (typeof prefix !== 'string') throw argumentTypeError('options.prefix', 'of type string', prefix);
  checkCredentials(credentials);
  checkAuth(auth);
  return {
    ...common,
    prefix,
    auth,
    credentials: credentials ?? {},
    endpoints: checkEndpoints(endpoints, credentials !== undefined),
  };
}

function checkEndpoints(endpoints: unknown, secureByDefault: boolean): Endpoint[] {
  const list = typeof endpoints === 'string' ? [endpoints] : endpoints;
  if (!Array.isArray(list))
    throw argumentTypeError('endpoints', 'of type string or an array of strings', endpoints);
  if (list.length === 0) throw argumentValueError('endpoints', 'must not be empty', endpoints);
  return list.map((endpoint) => {
    if (typeof endpoint !== 'string') throw argumentTypeError('endpoints', 'of strings', endpoint);
    const [, scheme, address, port] = ENDPOINT.exec(endpoint) ?? [];
    if (address === undefined || Number(port) === 0 || Number(port) > PORT_MAX)
      throw argumentValueError(
        'endpoints',
        'must be host:port, http://host:port or https://host:port',
        endpoint,
      );
    return { address, secure: scheme === undefined ? secureByDefault : scheme === 'https' };
  });
}

function checkCredentials(credentials: EtcdCredentials | undefined): void {
  if (credentials === undefined) return;
  checkObject('options.credentials', credentials);
  const { rootCertificate, privateKey, certChain } = credentials;
  for (const [name, value] of Object.entries({ rootCertificate, privateKey, certChain })) {
    if (value !== undefined && !Buffer.isBuffer(value))
      throw argumentTypeError(`options.credentials.${name}`, 'an instance of Buffer', value);
  }
  if ((privateKey === undefined) !== (certChain === undefined))
    throw argumentValueError(
      'options.credentials',
      'must have privateKey and certChain, or none of them',
      credentials,
    );
}

function checkAuth(auth: EtcdAuth | undefined): void {
  if (auth === undefined) return;
  checkObject('options.auth', auth);
  const { username, password } = auth;
  for (const [name, value] of Object.entries({ username, password })) {
    if (typeof value !== 'string') throw argumentTypeError(`options.auth.${name}`, 'of type string', value);
  }
}
