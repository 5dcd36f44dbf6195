// Where everything is. docs/etcd.md shows it to users.
import { createHash } from 'node:crypto';
import { type Keys, startingWith } from './txn';

/** Of a session, and of its holds and waits: 16 digits, and the same with a number. */
const SESSION_DIGITS = 16;

/** The keys of one name. */
export interface LockKeys {
  readonly queue: string;
  readonly exclusive: string;
  readonly held: string;
  readonly marks: string;
  readonly ahead: string;
  readonly token: string;
  readonly flights: string;
}

export class SpaceKeys {
  private readonly root: string;

  constructor(prefix: string, namespace: string) {
    this.root = `${prefix}${namespace}/`;
  }

  session(session: string): string {
    return `${this.root}session/${session}`;
  }

  /** Where a thief leaves word for the hold or wait of that name. */
  robbed(slot: string): string {
    return `${this.session(sessionOf(slot))}/${numberOf(slot)}`;
  }

  /** The key of the session, and all that was left there. */
  mailbox(session: string): Keys {
    const key = this.session(session);
    // No other key of ours is in between: the number of a session has a fixed length.
    return { key: Buffer.from(key), rangeEnd: Buffer.from(`${key}0`) };
  }

  /** Of all names, or of one. */
  all(name?: string): Keys {
    return startingWith(name === undefined ? `${this.root}lock/` : this.rootOf(name));
  }

  lock(name: string): LockKeys {
    const root = this.rootOf(name);
    return {
      queue: `${root}queue/`,
      exclusive: `${root}exclusive/`,
      held: `${root}held/`,
      marks: `${root}mark/`,
      ahead: `${root}ahead`,
      token: `${root}token`,
      flights: `${root}flights`,
    };
  }

  private rootOf(name: string): string {
    // UTF-16, for halves of surrogate pairs have no UTF-8.
    const hash = createHash('sha256').update(Buffer.from(name, 'utf16le')).digest('base64url');
    return `${this.root}lock/${hash}/`;
  }
}

/** What a hold or wait is called in the keys. */
export function slotOf(session: string, id: number): string {
  return `${session}-${id}`;
}

export function sessionOf(slot: string): string {
  return slot.slice(0, SESSION_DIGITS);
}

export function numberOf(slot: string): number {
  return Number(slot.slice(SESSION_DIGITS + 1));
}

/** The last part of a key. */
export function lastPart(key: Buffer): string {
  const text = key.toString();
  return text.slice(text.lastIndexOf('/') + 1);
}

/** The part before that. */
export function kindOf(key: Buffer): string | undefined {
  return key.toString().split('/').at(-2);
}

export function idOf(digits: string): bigint {
  return BigInt(`0x${digits}`);
}
