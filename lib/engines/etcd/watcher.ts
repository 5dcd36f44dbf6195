// All watches of a session, over one stream. When it fails, another one is opened, and every watch goes on from where it was:
// etcd tells what has happened since. What it has forgotten by then (compaction), the watcher says so.
//
// A watch is told of changes at once if it began with what comes next. One that begins with what has been, be it the last
// change alone, is put aside by etcd, which looks ten times a second what such watches have missed. So whoever waits for a
// change soon begins with what comes next, and looks, once the watch has begun, at what was before.
import { startTimer } from '../../common/clock';
import type { LockError } from '../../common/errors';
import type { Stream } from './client';
import {
  EventType,
  Filter,
  txn,
  type WatchEvent,
  type WatchRequest,
  type WatchResponse,
  watch,
} from './messages';
import { type Keys, toRequest } from './txn';
import type { Wire } from './wire';

/** What a watch tells. */
export interface Watching {
  /** Every later change will be told. A watch that did not say where to begin has to look now at what was before. */
  begun(): void;
  happened(event: WatchEvent): void;
  /** It may have missed something, and is over: one has to look, and to watch again. */
  missed(why: Error): void;
}

interface Watch {
  readonly keys: Keys;
  readonly deletionsOnly: boolean;
  readonly watching: Watching;
  /** Of the last change of which all is known; `undefined` until it has begun, if it begins with what comes next. */
  from: number | undefined;
}

const WHAT = 'watch the keys of locks';
/** How long until a watch is tried again that was refused more than once, though we have the right to it. */
const REFUSED_AGAIN_MS = 100;

export class Watcher {
  private stream: Stream<WatchRequest, WatchResponse> | undefined = undefined;
  private opening: Promise<void> | undefined = undefined;
  private readonly watches = new Map<number, Watch>();
  private lastId = 0;
  private over = false;
  /** What etcd has refused to watch, until it is known why. */
  private refused: Keys | undefined = undefined;
  /** How often it has refused since it has begun a watch. */
  private refusals = 0;

  constructor(private readonly wire: Wire) {}

  /**
   * Tells of every change of the keys after that revision, once or more; or of those that come next.
   *
   * etcd is asked to begin with the very revision of which everything is known. If it is the next one, a deletion at just
   * that one, and all before it, may have been forgotten (compaction), and etcd would not say so.
   *
   * @returns the number of the watch
   */
  watch(keys: Keys, deletionsOnly: boolean, watching: Watching, from?: number): number {
    const id = ++this.lastId;
    this.watches.set(id, { keys, from, deletionsOnly, watching });
    if (this.stream === undefined) void this.open();
    else this.create(id);
    return id;
  }

  unwatch(id: number): void {
    if (this.watches.delete(id)) this.stream?.write({ cancel: { watchId: id } });
  }

  close(): void {
    this.over = true;
    this.watches.clear();
    this.stream?.cancel();
    this.stream = undefined;
  }

  private open(): Promise<void> {
    this.opening ??= this.openUntilOpen();
    return this.opening;
  }

  private async openUntilOpen(): Promise<void> {
    while (!this.over && this.stream === undefined) {
      await this.wire.pause();
      let failed = false;
      try {
        await this.checkRights();
        const stream = await this.wire.stream(WHAT, watch, {
          data: (response) => this.received(response),
          failed: () => {
            failed = true;
            this.stream = undefined;
            if (!this.over) void this.open();
          },
        });
        if (this.over) stream.cancel();
        else if (!failed) this.stream = stream;
      } catch (error) {
        if ((error as LockError).code === 'ERR_LOCK_UNAVAILABLE') continue;
        this.refused = undefined;
        this.fail(error as LockError);
      }
    }
    // From here on a failure opens another one.
    this.opening = undefined;
    for (const id of this.watches.keys()) this.create(id);
  }

  /** Nothing can be watched. */
  private fail(why: LockError): void {
    for (const id of [...this.watches.keys()]) this.miss(id, why);
  }

  private create(watchId: number): void {
    const { keys, from, deletionsOnly } = this.watches.get(watchId) as Watch;
    this.stream?.write({
      create: {
        ...keys,
        startRevision: from,
        filters: deletionsOnly ? [Filter.NO_PUT] : [],
        watchId,
      },
    });
  }

  private received(response: WatchResponse): void {
    const { header, watchId, created, canceled, compactRevision, events } = response;
    if (canceled) {
      if (compactRevision > 0) this.miss(watchId, new Error('etcd has forgotten what happened'));
      else this.refuse(watchId);
      return;
    }
    if (created) this.begun(watchId, header?.revision);
    for (const event of events) {
      const known = this.watches.get(watchId);
      if (known === undefined) return;
      known.from = event.kv.modRevision;
      known.watching.happened(event);
    }
  }

  /** @param revision the last one when etcd made the watch */
  private begun(id: number, revision: number | undefined): void {
    const known = this.watches.get(id);
    this.refusals = 0;
    if (known === undefined) return;
    known.from ??= revision;
    known.watching.begun();
  }

  private miss(id: number, why: Error): void {
    const known = this.watches.get(id);
    this.watches.delete(id);
    known?.watching.missed(why);
  }

  /** Either the user has no right to it, or etcd does not know the token any more that the stream was opened with. */
  private refuse(id: number): void {
    // Newer versions do not say which one. All keys are under one prefix, so that one right is as good as another.
    const watch = id < 0 ? [...this.watches.values()].at(-1) : this.watches.get(id);
    if (watch === undefined) return;
    this.refused = watch.keys;
    this.stream?.cancel();
    this.stream = undefined;
    this.wire.forgetToken();
    void this.open();
  }

  /** Reads what etcd has refused to watch: that takes the same right. If we have it, all goes on with another token. */
  private async checkRights(): Promise<void> {
    const keys = this.refused;
    if (keys === undefined) return;
    const read = { as: 'read', when: [], does: [{ as: 'keys', get: keys, limit: 1 }] };
    await this.wire.call(WHAT, txn, toRequest(read));
    this.refused = undefined;
    if (++this.refusals > 1) await new Promise<void>((resolve) => startTimer(resolve, REFUSED_AGAIN_MS));
  }
}

export const isDeletion = ({ type }: WatchEvent): boolean => type === EventType.DELETE;
