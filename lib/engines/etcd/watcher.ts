// All watches of a session, over one stream. When it fails, another one is opened, and every watch goes on from where it was:
// etcd tells what has happened since. What it has forgotten by then (compaction), the watcher says so.
//
// A watch is told of changes at once if it began with what comes next. One that begins with what has been, be it the last
// change alone, is put aside by etcd, which looks ten times a second what such watches have missed. So whoever waits for a
// change soon begins with what comes next, and looks, once the watch has begun, at what was before.
import { LockError } from '../../common/errors';
import type { Stream } from './client';
import { EventType, Filter, type WatchEvent, type WatchRequest, type WatchResponse, watch } from './messages';
import type { Keys } from './txn';
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

export class Watcher {
  private stream: Stream<WatchRequest, WatchResponse> | undefined = undefined;
  private opening: Promise<void> | undefined = undefined;
  private readonly watches = new Map<number, Watch>();
  private lastId = 0;
  private over = false;
  /** Whether etcd has refused a watch, and begun none since. */
  private wasRefused = false;

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
        if ((error as LockError).code !== 'ERR_LOCK_UNAVAILABLE') this.fail(error as LockError);
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
    const { header, watchId, created, canceled, compactRevision, cancelReason, events } = response;
    if (canceled) {
      if (compactRevision > 0) this.miss(watchId, new Error('etcd has forgotten what happened'));
      else if (this.watches.has(watchId) || watchId < 0) this.refused(cancelReason);
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
    this.wasRefused = false;
    if (known === undefined) return;
    known.from ??= revision;
    known.watching.begun();
  }

  private miss(id: number, why: Error): void {
    const known = this.watches.get(id);
    this.watches.delete(id);
    known?.watching.missed(why);
  }

  /** It may be that the token has expired which the stream was opened with: then all goes on with another one. */
  private refused(reason: string): void {
    this.stream?.cancel();
    this.stream = undefined;
    if (this.wasRefused) {
      this.fail(new LockError('ERR_LOCK_PERMISSION', reason));
      return;
    }
    this.wasRefused = true;
    this.wire.forgetToken();
    void this.open();
  }
}

export const isDeletion = ({ type }: WatchEvent): boolean => type === EventType.DELETE;
