// New objects of which most end at once, and the few others are worth some work: what is kept here is looked at when this
// turn of the event loop is over, or the list is full.
import { startSoon } from './clock';

const RECENT_MAX = 64;

export class Recent<T> {
  // A new array for each batch: a young object that is stored into an old one costs a write barrier.
  private items: T[] = new Array(RECENT_MAX);
  private count = 0;
  private lookIsDue = false;

  /** `look` is given the first `count` of `items`. */
  constructor(private readonly look: (items: readonly T[], count: number) => void) {}

  /** Keeps it, strongly, until it is looked at. */
  add(item: T): void {
    // Before the newest is in the list: that one goes on for certain.
    if (this.count === RECENT_MAX) this.flush();
    this.items[this.count++] = item;
    if (!this.lookIsDue) this.lookLater();
  }

  private lookLater(): void {
    startSoon(() => {
      this.lookIsDue = false;
      this.flush();
    });
    this.lookIsDue = true; // not before: at the end of the stack that throws, and nobody would look any more
  }

  private flush(): void {
    const { items, count } = this;
    this.items = new Array(RECENT_MAX);
    this.count = 0;
    this.look(items, count);
  }
}
