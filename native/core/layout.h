// The shared-memory layout of a namespace: one header page, then six tables at fixed offsets of a sparse file.
//
//   header     who may map this, the latch, the detector's words, how far each table is in use
//   processes  one entry per attached process: who it is, its doorbell, its slots
//   locks      one per name: the gate, the queue, the fencing counter, the abandoned record
//   storages   the pthread_rwlock_t pool; a lock's gate names the one that excludes now
//   slots      one per open hold or wait
//   extents    the rest of names that do not fit into a lock entry
//   buckets    heads of the name index (linear hashing: it grows one bucket at a time, as names come)
//
// References are 1-based indices, 0 is "none", and each is read once and checked against its table before it is used: the
// content may be written by anybody who can open the file, at any time. There is no pointer and no object of a libc in it
// but the pthread_rwlock_t pool, whose try and unlock calls make nothing of their content but numbers. There is no absolute
// time in it that a clock is compared with but `barrier_ns`, for which every value is harmless (queue.h). Pages are
// reserved before they are touched (a full tmpfs would answer the first touch with SIGBUS), in chunks, as the tables grow;
// all-zero is a valid empty entry of every table.
//
// Only the slot words, the gates, tokens, names and abandoned records are *facts*. All else behind the latch (lists,
// queues, free lists, the index, counts) is derived from them, and rebuilt when the latch's owner died.
#pragma once

#include <cstddef>
#include <cstdint>

#include "words.h"

namespace proclock {

// Raised with every change of this file that another build could not read.
constexpr uint32_t kLayoutVersion = 2;
constexpr uint64_t kMagic = 0x314b434c434f5250;  // "PROCLCK1", little endian

constexpr uint32_t kProcessesMax = kOwnersMax;
constexpr uint32_t kLocksMax = 1u << 18;
constexpr uint32_t kStoragesMax = 1u << 19;
constexpr uint32_t kSlotsMax = 1u << 19;
constexpr uint32_t kExtentsMax = 1u << 20;
constexpr uint32_t kBucketsMax = 1u << 18;
constexpr uint32_t kBucketsMin = 1024;

constexpr size_t kPage = 4096;
constexpr size_t kNameInlineBytes = 16;
constexpr size_t kExtentBytes = 60;
constexpr uint32_t kNameBytesMax = 1u << 25;

// Name flags, in the upper bits of `name_bytes`.
constexpr uint32_t kNameUsed = 1u << 31;   // written last when an entry is made, first when it goes
constexpr uint32_t kNameUtf16 = 1u << 30;  // two bytes a unit; otherwise Latin-1, one byte a unit
constexpr uint32_t kNameBytesMask = kNameUtf16 - 1;

// Slot flags.
constexpr uint32_t kSlotQueued = 1;    // has a place in the queue of its lock
constexpr uint32_t kSlotAsync = 2;     // woken through its process's doorbell, not through its wake word
constexpr uint32_t kSlotFair = 4;      // nobody may overtake it, not even for a millisecond
constexpr uint32_t kSlotEligible = 8;  // belongs to the front of the queue: may try whatever the barrier says
constexpr uint32_t kSlotPoked = 16;    // was told to try, and has not reacted yet
constexpr uint32_t kSlotSkipped = 32;  // did not react in time: those behind may go first, its place is kept
constexpr uint32_t kSlotOnDoorbell = 64;  // is on its process's stack of poked slots
constexpr uint32_t kSlotExclusive = 128;  // waits for exclusive mode
constexpr uint32_t kSlotGranted =
    256;  // waits no more, and the latch was stalled when it was to leave the queue
// Holds, shared, and waits ahead of the queue to hold exclusively (upgrade.h). Always together with QUEUED.
constexpr uint32_t kSlotUpgrading = 512;
// Of deadlocks (deadlock.h).
constexpr uint32_t kSlotEnds = 1 << 16;       // waits with a time-out or a signal
constexpr uint32_t kSlotThrows = 1 << 17;     // is to fail where a deadlock is likely
constexpr uint32_t kSlotInContext = 1 << 18;  // `wake` says in which context it waits or holds
constexpr uint32_t kSlotVictim = 1 << 19;     // is to fail
constexpr uint32_t kSlotTold = 1 << 20;       // is in a cycle of which all members were told
constexpr uint32_t kSlotWarns = 1 << 21;      // is to say so for its process
// Has a place in the queue in which nobody waits for it, and nothing is to be expected from it.
constexpr uint32_t kSlotPassedOver = kSlotSkipped | kSlotGranted;

enum class ProcessState : uint32_t {
  kFree = 0,
  kLive = 1,
  kDead = 2,  // found dead, recovery under way: its slots are nobody's any more
};

// How far a table is in use: entries 1..used were handed out at least once, pages up to `reserved` exist.
template <class P>
struct TableMeta {
  template <class T>
  using Atomic = typename P::template Atomic<T>;
  Atomic<uint32_t> used;
  Atomic<uint32_t> reserved;
  Atomic<uint32_t> free_head;
  Atomic<uint32_t> free_count;
};

template <class P>
struct Header {
  template <class T>
  using Atomic = typename P::template Atomic<T>;
  // Checked before anything else is believed; same place in every layout version, so that builds can refuse each other.
  Atomic<uint64_t> magic;  // written last
  Atomic<uint32_t> layout_version;
  Atomic<uint32_t> abi;  // fingerprint of the libc family and of the sizes of what it puts in here
  Atomic<uint64_t> bytes;
  Atomic<uint64_t> created_ns;  // wall clock

  // Grows with every process that attaches, by a release after its entry is live: there is somebody new to watch.
  alignas(64) Atomic<uint32_t> attach_epoch;
  Atomic<uint64_t> last_number;  // of the process that attached last; see latch.h

  alignas(64) Atomic<uint64_t> latch;
  Atomic<uint32_t> asked;  // how often its owner was asked about: a turn (latch.h, L5)

  // The detector (detect.h).
  alignas(64) Atomic<uint64_t> scan;
  alignas(
      64) Atomic<uint64_t> wanted[(kProcessesMax + 64) / 64];  // a bit for each entry that somebody waits for

  // Behind the latch.
  alignas(64) TableMeta<P> processes;
  TableMeta<P> locks;
  TableMeta<P> storages;
  TableMeta<P> slots;
  alignas(64) TableMeta<P> extents;
  TableMeta<P> buckets;          // `used` is the number of buckets of the index
  Atomic<uint32_t> unused_head;  // named locks that no slot is bound to, the longest unused first
  Atomic<uint32_t> unused_tail;
  Atomic<uint32_t> marked_head;  // the same for those that carry an abandoned record
  Atomic<uint32_t> marked_tail;
  Atomic<uint32_t> ticket;       // of the last waiter that queued; compared modulo 2^32
  Atomic<uint32_t> rebuilds;     // how often a latch owner died
  Atomic<uint64_t> token_floor;  // no token of a lock that was reclaimed is greater
  Atomic<uint64_t> recoveries;   // dead processes recovered
};

template <class P>
struct alignas(64) Process {
  template <class T>
  using Atomic = typename P::template Atomic<T>;
  Atomic<uint32_t> state;       // ProcessState
  Atomic<int32_t> pid;          // as its own PID namespace counts
  Atomic<uint64_t> start_time;  // clock ticks since boot (/proc/pid/stat, field 22); 0 if unknown
  Atomic<uint64_t> pid_ns;      // inode of /proc/self/ns/pid; 0 if unknown
  Atomic<uint64_t> time_ns;     // inode of /proc/self/ns/time; 0 if there is none
  Atomic<uint64_t> number;      // whose token tells whether it lives; stored before the state becomes live
  Atomic<uint32_t> doorbell;    // futex: rung after something was put on the stack below
  Atomic<uint32_t>
      poked_head;  // stack of poked asynchronous slots; pushed behind the latch, taken whole by its owner
  Atomic<uint32_t> slots_head;  // derived: all slots of this process
  Atomic<uint32_t> left;        // 1: slots of threads that ended are to be recovered
  Atomic<uint32_t> seldom;      // 1: it looks seldom at what it waits for (queue.h)
};

template <class P>
struct alignas(64) Lock {
  template <class T>
  using Atomic = typename P::template Atomic<T>;
  // First line: what an acquire and a release look at.
  Atomic<uint64_t> gate;
  Atomic<uint64_t> token;  // of the last exclusive grant; written by the exclusive holder alone
  Atomic<uint64_t>
      barrier_ns;              // monotonic time from which nobody overtakes the queue; 0: now, ~0: not at all
  Atomic<uint32_t> pokes;      // grows with every poke of the front
  Atomic<uint32_t> unwatched;  // not 0: some that wait look seldom, see Q1 to Q4 in queue.h
  Atomic<uint32_t> abandoned;  // see is_abandoned(). Written by holders and by recovery, behind the latch
  Atomic<uint32_t> holder;     // slot of the last exclusive grant: where to look for a death first (a hint)
  Atomic<uint32_t> queue_head;  // derived
  Atomic<uint32_t> queue_tail;
  Atomic<uint32_t> queue_fair;  // how many of them are fair
  Atomic<uint32_t> slots_head;  // derived: all slots bound to this lock
  Atomic<uint32_t> hash;
  Atomic<uint32_t> next_in_bucket;  // derived; also the link of the free list

  // Second line: what only the latch's owner looks at.
  alignas(64) Atomic<uint32_t> name_bytes;  // with the name flags
  Atomic<uint32_t> name_rest;               // first extent
  Atomic<uint32_t> unused_next;             // derived
  Atomic<uint32_t> unused_prev;
  Atomic<uint32_t> retired;  // derived: storages that a straggler may still refer to
  Atomic<int32_t> abandoned_pid;
  Atomic<uint32_t> abandoned_thread;
  Atomic<uint32_t> look_cursor;      // slot at which the last look ended; a hint
  Atomic<uint64_t> abandoned_since;  // bits of a double, ms since the epoch
  Atomic<uint64_t> abandoned_token;
  Atomic<uint64_t> name[kNameInlineBytes / 8];
};

template <class P>
struct alignas(64) Storage {
  typename P::RwLock rwlock;
  typename P::template Atomic<uint32_t> next;  // derived: free list, or the retired list of a lock
};

template <class P>
struct alignas(64) Slot {
  template <class T>
  using Atomic = typename P::template Atomic<T>;
  Atomic<uint64_t> word;   // see words.h
  Atomic<uint64_t> since;  // bits of a double: when it was granted, or queued; ms since the epoch
  Atomic<uint32_t>
      wake;  // futex of a synchronous waiter; grows with every poke. Of others: see kSlotInContext
  Atomic<uint32_t> ticket;  // place in the queue. Of a hold with kSlotInContext: the context around its own
  Atomic<uint32_t> lock;    // written last when the slot is bound, first when it is given back; 0: free
  Atomic<uint32_t> thread;  // worker_threads.threadId
  Atomic<uint32_t> flags;   // kSlot*
  Atomic<uint32_t> poked_next;  // link of the doorbell stack
  Atomic<uint32_t> queue_next;  // derived
  Atomic<uint32_t> queue_prev;
  Atomic<uint32_t> lock_next;  // derived: slots of the same lock; also the link of the free list
  Atomic<uint32_t> lock_prev;
  Atomic<uint32_t> process_next;  // derived: slots of the same process
  Atomic<uint32_t> process_prev;
};

template <class P>
struct Extent {
  template <class T>
  using Atomic = typename P::template Atomic<T>;
  Atomic<uint32_t> next;  // of the name, or of the free list
  Atomic<uint32_t> bytes[kExtentBytes / 4];
};

template <class P>
struct Layout {
  static constexpr size_t page_up(size_t bytes) { return (bytes + kPage - 1) / kPage * kPage; }
  static constexpr size_t kProcesses = kPage;
  static constexpr size_t kLocks = kProcesses + page_up(kProcessesMax * sizeof(Process<P>));
  static constexpr size_t kStorages = kLocks + page_up(kLocksMax * sizeof(Lock<P>));
  static constexpr size_t kSlots = kStorages + page_up(kStoragesMax * sizeof(Storage<P>));
  static constexpr size_t kExtents = kSlots + page_up(kSlotsMax * sizeof(Slot<P>));
  static constexpr size_t kBuckets = kExtents + page_up(kExtentsMax * sizeof(Extent<P>));
  static constexpr size_t kBytes = kBuckets + page_up(kBucketsMax * sizeof(uint32_t));

  static_assert(sizeof(Header<P>) <= kPage, "the header is one page");
  static_assert(offsetof(Header<P>, magic) == 0 && offsetof(Header<P>, layout_version) == 8,
                "where every version looks first");
  static_assert(sizeof(Process<P>) == 64, "one cache line");
  static_assert(sizeof(Lock<P>) == 128, "two cache lines: the hot one and the cold one");
  static_assert(sizeof(Storage<P>) == 64, "one cache line");
  static_assert(sizeof(Slot<P>) == 64, "one cache line: no two threads write to the same");
  static_assert(sizeof(Extent<P>) == 64, "one cache line");
  static_assert(P::template Atomic<uint64_t>::is_always_lock_free, "shared words must not hide a lock");
};

}  // namespace proclock
