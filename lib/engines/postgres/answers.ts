// What the server's answers and messages say, and what that means to those who asked.
import type { Abandoned, LockInfo } from '../../common/types';
import type { Answer, Grant } from '../../remote/engine';
import { decodeName } from './names';

/** A dead holder as the server writes it. */
export interface AbandonedText {
  pid: number;
  threadId: number;
  since: number;
  token: string;
}

export interface MarkText {
  name: string;
  abandoned: AbandonedText;
}

/** A grant as the server writes it. */
export interface GrantText {
  token: string;
  abandoned: AbandonedText | null;
  flights: number;
}

export type Message =
  | ({ event: 'granted'; id: number } & GrantText)
  /** `thief` is null where the server does not know the session of it any more. */
  | { event: 'robbed'; id: number; thief: string | null };

/** What every verb answers with: what else happened, and to whom of us. */
export interface Told {
  told: Message[];
}

export interface Asked extends Told {
  state: Answer['state'];
  grant: GrantText;
  flights: number | null;
}

export interface InfoText {
  name: string;
  held: boolean;
  exclusive: boolean;
  since: number;
  clientId: string;
  pid: number;
  threadId: number;
  host: string;
}

/** What was sent to our channel, if it has the form of a message: anybody may send something there. */
export function messageIn(payload: string): Message | undefined {
  let sent: unknown;
  try {
    sent = JSON.parse(payload);
  } catch {
    return undefined;
  }
  return isMessage(sent) ? sent : undefined;
}

function isMessage(sent: unknown): sent is Message {
  if (!isObject(sent) || !Number.isSafeInteger(sent.id)) return false;
  if (sent.event === 'robbed') return typeof sent.thief === 'string' || sent.thief === null;
  return (
    sent.event === 'granted' &&
    isToken(sent.token) &&
    Number.isSafeInteger(sent.flights) &&
    (sent.abandoned === null || isAbandoned(sent.abandoned))
  );
}

function isAbandoned(sent: unknown): boolean {
  if (!isObject(sent)) return false;
  return [sent.pid, sent.threadId, sent.since].every(Number.isSafeInteger) && isToken(sent.token);
}

function isToken(sent: unknown): boolean {
  return typeof sent === 'string' && /^\d{1,19}$/.test(sent);
}

function isObject(sent: unknown): sent is Record<string, unknown> {
  return typeof sent === 'object' && sent !== null;
}

export function grantOf({ token, abandoned, flights }: GrantText): Grant {
  return {
    token: BigInt(token),
    abandoned: abandoned === null ? null : abandonedOf(abandoned),
    flights,
  };
}

export function abandonedOf({ pid, threadId, since, token }: AbandonedText): Abandoned {
  return { pid, threadId, since: new Date(since), token: BigInt(token) };
}

export function infoOf({ name, exclusive, since, clientId, pid, threadId, host }: InfoText): LockInfo {
  return {
    name: nameIn(name),
    mode: exclusive ? 'exclusive' : 'shared',
    clientId,
    pid,
    threadId,
    host,
    since: new Date(since),
  };
}

export function nameIn(hex: string): string {
  return decodeName(Buffer.from(hex, 'hex'));
}
